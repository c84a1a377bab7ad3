"""Links in use, and a broker whose every byte a test decides."""

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from datasync.transport.link import Packet, Received
from datasync.transport.mqtt import MqttLink

PATIENCE_S = 20.0

T = TypeVar("T")

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14


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

    async def trouble(self, code: str) -> None:
        """Return once the link has met a trouble of this code."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.link.counts.get(code):
                await asyncio.sleep(0.01)  # the link tells nobody, but counts

    async def next(self) -> Received:
        return await within(self._received.get())

    async def topics(self, count: int) -> list[str]:
        return [(await self.next()).topic for _ in range(count)]

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


class Wire:
    """A broker's end of one connection, packet by packet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, kind: int) -> bytes:
        """Return the body of the next packet, which must be of this kind; pings are passed over."""
        found = PINGREQ
        while found == PINGREQ != kind:
            found = (await within(self._reader.readexactly(1)))[0] >> 4
            length, shift, byte = 0, 0, 0x80
            while byte & 0x80:
                byte = (await self._reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
            body = await self._reader.readexactly(length)
        assert found == kind
        return body

    async def accept(self, *codes: int) -> None:
        """Take CONNECT, and SUBSCRIBE if ``codes`` are there to answer it with."""
        await self.read(CONNECT)
        self.send(CONNACK << 4, b"\0\0")
        if codes:
            subscribe = await self.read(SUBSCRIBE)
            self.send(SUBACK << 4, subscribe[:2] + bytes(codes))

    async def published(self) -> tuple[int, bytes]:
        """Return message id and payload of the next PUBLISH."""
        body = await self.read(PUBLISH)
        end = 2 + int.from_bytes(body[:2], "big")
        return int.from_bytes(body[end : end + 2], "big"), body[end + 2 :]

    async def acknowledged(self) -> int:
        return int.from_bytes(await self.read(PUBACK), "big")

    def publish(self, mid: int, topic: bytes, payload: bytes = b"x") -> None:
        self.send(PUBLISH << 4 | 2, struct.pack(">H", len(topic)) + topic + struct.pack(">H", mid) + payload)

    def raw(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, first: int, body: bytes) -> None:
        length, header = len(body), bytearray([first])
        while True:
            length, low = divmod(length, 128)
            header.append(low | (0x80 if length else 0))
            if not length:
                break
        self._writer.write(bytes(header) + body)

    async def ended(self) -> bytes:
        """Return what still arrives until the other end closes."""
        return await within(self._reader.read())

    def close(self) -> None:
        self._writer.close()


class ScriptedBroker:
    """Accepts connections, with TLS if it is given a context, and leaves each to the test."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context

    async def __aenter__(self) -> Self:
        self._wires: asyncio.Queue[Wire] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._context)
        scheme = "mqtts" if self._context else "mqtt"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def wire(self) -> Wire:
        return await within(self._wires.get())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._wires.put_nowait(Wire(reader, writer))


async def within(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable


@pytest.fixture
def peer() -> type[Peer]:
    return Peer


@pytest.fixture
def scripted_broker() -> type[ScriptedBroker]:
    return ScriptedBroker


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a test's coroutine on an event loop of its own, which must be left without tasks."""

    async def alone(main: Coroutine[Any, Any, None]) -> None:
        await main
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return lambda main: asyncio.run(alone(main))
