"""A private Mosquitto for each test that asks, and links in use.

The broker listens on a free port of the loopback with a configuration generated in the test's own folder, so it
collides with nothing that is installed. Where Mosquitto is not installed the tests that need it fail and say
so, unless DATASYNC_TESTS_WITHOUT names ``mosquitto``.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from datasync.transport.link import Packet, Received
from datasync.transport.mqtt import MqttLink

PATIENCE_S = 20.0
ATTEMPTS = 5
SBIN = "/usr/sbin"

T = TypeVar("T")


class Mosquitto:
    """A broker process. ``stop`` and ``kill`` end it, ``start`` begins it again at the same ``url``."""

    def __init__(self, program: str, folder: Path, *settings: str) -> None:
        self._program = program
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.port = 0
        self.log: list[str] = []

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it listens. The first time another process may snatch the free port: then it takes another."""
        for _ in range(1 if self.port else ATTEMPTS):
            port = self.port or _free_port()
            if self._listens(port):
                self.port = port
                return
        pytest.fail("Mosquitto did not start:\n" + "".join(self.log))

    def stop(self) -> None:
        """End it as an operator would: it saves its persistent sessions."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Leave its connections open, but answer nothing until ``resume``."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _listens(self, port: int) -> bool:
        self._folder.mkdir(exist_ok=True)
        file = self._folder / "mosquitto.conf"
        user = ["user root"] if os.geteuid() == 0 else []
        where = ["persistence true", f"persistence_location {self._folder}/", "log_dest stderr"]
        file.write_text(
            "\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *user, *where, *self._settings])
        )
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


class Peer:
    """A link that runs while its context is open, acknowledging what it receives unless told otherwise."""

    def __init__(self, url: str, name: str, *filters: str, acknowledge: bool = True, **options: Any) -> None:
        self.link = MqttLink(url, name, filters, **options)
        self.states: list[bool] = []
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self._acknowledge = acknowledge
        self._received: asyncio.Queue[Received] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.link.run(self._receive, self._changed))
        await within(self.up.wait())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self, connected: bool) -> None:
        await within((self.up if connected else self.down).wait())

    async def next(self) -> Received:
        return await within(self._received.get())

    def waiting(self) -> int:
        """How many packets arrived that nobody took with ``next``."""
        return self._received.qsize()

    async def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> bool:
        return await within(self.link.publish(Packet(topic, payload, retain)))

    def _receive(self, received: Received) -> None:
        self._received.put_nowait(received)
        if self._acknowledge:
            received.acknowledge()

    def _changed(self, connected: bool) -> None:
        self.states.append(connected)
        (self.up if connected else self.down).set()
        (self.down if connected else self.up).clear()


async def within(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Start any number of brokers; arguments are more lines for the configuration, as in mosquitto.conf(5)."""
    if "mosquitto" in os.environ.get("DATASYNC_TESTS_WITHOUT", "").replace(",", " ").split():
        pytest.skip("DATASYNC_TESTS_WITHOUT leaves out what needs Mosquitto")
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path=SBIN)
    if program is None:
        pytest.fail(
            f"Mosquitto is neither on the PATH nor in {SBIN}: install the package mosquitto, "
            "or set DATASYNC_TESTS_WITHOUT=mosquitto"
        )
    started: list[Mosquitto] = []

    def start(*settings: str) -> Mosquitto:
        started.append(Mosquitto(program, tmp_path / f"mosquitto-{len(started)}", *settings))
        started[-1].start()
        return started[-1]

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture
def mosquitto(start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """One running broker as Debian configures it, but for persistence, which goes to the test's folder."""
    return start_mosquitto()


@pytest.fixture
def peer() -> type[Peer]:
    return Peer


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a test's coroutine on an event loop of its own, which must be left without tasks."""

    async def alone(main: Coroutine[Any, Any, None]) -> None:
        await main
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return lambda main: asyncio.run(alone(main))
