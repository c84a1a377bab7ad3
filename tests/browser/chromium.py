"""A headless Chromium of the tests' own: what it writes lies in a temporary folder, and it ends with the tests."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "google-chrome")
START_S_MAX = 60.0
END_S_MAX = 10.0
POLL_S = 0.02

SWITCHES = (
    "--headless",
    "--no-sandbox",  # the tests may run as root, where there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers give little of it
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-features=LocalNetworkAccessChecks",  # it would go before what the page's own policy says
    "--remote-debugging-port=0",
)


class Chromium:
    """A browser process; ``url`` is where DevTools listens."""

    def __init__(self, program: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="datasync-chromium-"))
        self._profile = self._folder / "profile"
        command = [program, *SWITCHES, f"--user-data-dir={self._profile}", "about:blank"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"HOME": str(self._folder), "TMPDIR": str(self._folder)},
                start_new_session=True,
            )

    @property
    def _log(self) -> Path:
        return self._folder / "output"

    async def url(self) -> str:
        """Wait until it listens, and return where."""
        port_file = self._profile / "DevToolsActivePort"
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S_MAX):
                while self._process.poll() is None:
                    lines = port_file.read_text().splitlines() if port_file.exists() else []
                    if len(lines) == 2:
                        return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
                    await asyncio.sleep(POLL_S)
        return pytest.fail(f"Chromium does not listen for DevTools:\n{self._log.read_text(errors='replace')}")

    def end(self) -> None:
        """End the browser and all that it started, however it is doing."""
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_S_MAX)
        shutil.rmtree(self._folder, ignore_errors=True)


def chromium_program() -> str:
    """Return the browser's program; where there is none the test fails, or is left out if it was said so."""
    if "chromium" in os.environ.get("DATASYNC_TESTS_WITHOUT", "").replace(",", " ").split():
        pytest.skip("DATASYNC_TESTS_WITHOUT leaves out what needs Chromium")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.fail(
            f"None of {', '.join(PROGRAMS)} is on the PATH: install the package chromium, "
            "or set DATASYNC_TESTS_WITHOUT=chromium"
        )
    return program
