"""How results look to people."""

import pytest

from datasync.cli.output import print_table, readable


def test_columns_are_aligned_and_none_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("device", "since"), [{"device": "watch-7", "since": None}, {"device": "w", "since": 5}])
    assert capsys.readouterr().out == "device   since\nwatch-7  -\nw        5\n"


def test_what_could_drive_a_terminal_is_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("device",), [{"device": "a\x1b[2Jb\nc"}])
    assert capsys.readouterr().out == "device\na\\x1b[2Jb\\nc\n"


def test_times_lists_and_inner_objects_become_text() -> None:
    row = {"since_ms": 1_700_000_000_123, "done_ms": None, "not_ready": [], "waiting": {"rows": 3}, "epoch": 4}
    assert readable(row) == {
        "since": "2023-11-14T22:13:20.123Z",
        "done": None,
        "not_ready": "nothing",
        "waiting_rows": 3,
        "epoch": 4,
    }
