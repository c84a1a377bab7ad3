"""A pytest plugin: names the files with tests that were left out because programs that they need are missing here."""

import pytest

VARIABLE = "DATASYNC_TESTS_WITHOUT"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the files at the end of the run; nothing when everything ran."""
    skipped = terminalreporter.stats.get("skipped", [])
    files = sorted({report.nodeid.partition("::")[0] for report in skipped if VARIABLE in str(report.longrepr)})
    if files:
        terminalreporter.section(f"left out for lack of programs that they need ({VARIABLE})")
        terminalreporter.write_line("\n".join(files))
