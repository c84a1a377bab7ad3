"""A private Mosquitto for each test that asks, links in use, and whole deployments.

The broker listens on a free port of the loopback with a configuration generated in the test's own folder, so it
collides with nothing that is installed. Where Mosquitto is not installed the tests that need it fail and say
so, unless DATASYNC_TESTS_WITHOUT names ``mosquitto``.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from datasync.transport.link import Packet, Received
from datasync.transport.mqtt import MqttLink
from tests.integration.deployment import Deployment
from tests.integration.mosquitto import PATIENCE_S, Mosquitto, mosquitto_program

T = TypeVar("T")


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
        self.start()
        await within(self.up.wait())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self) -> None:
        self._task = asyncio.create_task(self.link.run(self._receive, self._changed))

    async def stop(self) -> None:
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


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Start any number of brokers; arguments are more lines for the configuration, as in mosquitto.conf(5)."""
    program = mosquitto_program()
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


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Make deployments of real processes in the test's folder; see :class:`Deployment` for the options."""
    with ExitStack() as stack:

        def make(name: str = "deployment", **options: Any) -> Deployment:
            deployment = Deployment(tmp_path / name, **options)
            stack.callback(deployment.close)
            return deployment

        yield make


@pytest.fixture(scope="module")
def shared_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with ExitStack() as stack:
        deployment = Deployment(tmp_path_factory.mktemp("deployment"))
        stack.callback(deployment.close)
        deployment.start()
        yield deployment


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Iterator[Deployment]:
    """A deployment that is running, without devices at first; the tests of a module share it."""
    yield shared_deployment
    shared_deployment.print_logs()
