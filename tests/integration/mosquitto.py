"""A private Mosquitto on a port of its own, with its files in a folder of the test's."""

import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE_S = 20.0
ATTEMPTS = 5
SBIN = "/usr/sbin"
PORTS = range(16_000, 32_000)
"""Below what Linux gives to outgoing connections: a server that is started again finds its port free."""


class Mosquitto:
    """A broker process. ``stop`` and ``kill`` end it, ``start`` begins it again at the same ``url``."""

    def __init__(
        self, program: str, folder: Path, *settings: str, generate: Callable[[int], str] | None = None
    ) -> None:
        """Take more lines for the configuration, or what gives the whole of it, with TLS, for a port."""
        self._program = program
        self._folder = folder
        self._settings = settings
        self._generate = generate
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.port = 0
        self.log: list[str] = []

    @property
    def url(self) -> str:
        return f"{'mqtts' if self._generate else 'mqtt'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it listens. The first time another process may snatch the free port: then it takes another."""
        for _ in range(1 if self.port else ATTEMPTS):
            port = self.port or free_port()
            if self._listens(port):
                self.port = port
                return
        pytest.fail("Mosquitto did not start:\n" + "".join(self.log))

    def stop(self) -> None:
        """End it as an operator would: it saves its persistent sessions."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def reload(self) -> None:
        """Have it read its files again; what is said after this returns it may hear before or after."""
        self._send(signal.SIGHUP)

    def pause(self) -> None:
        """Leave its connections open, but answer nothing until ``resume``."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _listens(self, port: int) -> bool:
        self._folder.mkdir(exist_ok=True)
        file = self._folder / "mosquitto.conf"
        user = ["user root"] if os.geteuid() == 0 else []
        text = self._plain(port) if self._generate is None else self._generate(port) + "log_type information\n"
        file.write_text("\n".join([text, *user, *self._settings]))
        command = [self._program, "-c", str(file)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            if line.rstrip().endswith("running"):
                self._reader = threading.Thread(target=self.log.extend, args=(self._process.stderr,))
                self._reader.start()
                return True
        self._end(signal.SIGKILL)
        return False

    def _plain(self, port: int) -> str:
        where = ["persistence true", f"persistence_location {self._folder}/", "log_dest stderr"]
        return "\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *where])

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        for each in (number, signal.SIGCONT):
            self._process.send_signal(each)
        self._process.wait(PATIENCE_S)
        if self._reader is not None:
            self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = self._reader = None


def mosquitto_program() -> str:
    """Return the broker's program; where there is none the test fails, or is left out if it was said so."""
    if "mosquitto" in os.environ.get("DATASYNC_TESTS_WITHOUT", "").replace(",", " ").split():
        pytest.skip("DATASYNC_TESTS_WITHOUT leaves out what needs Mosquitto")
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path=SBIN)
    if program is None:
        pytest.fail(
            f"Mosquitto is neither on the PATH nor in {SBIN}: install the package mosquitto, "
            "or set DATASYNC_TESTS_WITHOUT=mosquitto"
        )
    return program


def free_port() -> int:
    """Return a port that is free now and not one that the system gives away by itself."""
    chance = random.SystemRandom()
    while True:
        port = chance.choice(PORTS)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
