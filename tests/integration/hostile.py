"""A hostile broker: a proxy before an honest one that does with MQTT packets what a broker could do.

It reads every packet of both directions. While it is hostile it drops publications (and acknowledges them, so that the
sender believes them delivered), says them again, later, in another order or on another topic, flips a bit, and puts in
what it was given to put in, retained. What it does is drawn from a seed; what it did it counts.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Self

PUBLISH, PUBACK = 3, 4
RETAIN = 1
HELD_MAX = 6
HEARD_MAX = 400


@dataclass(frozen=True, slots=True)
class Publication:
    """One MQTT PUBLISH of version 3.1.1; ``number`` is its packet identifier, 0 at QoS 0."""

    topic: str
    payload: bytes
    flags: int
    number: int

    @classmethod
    def parse(cls, flags: int, body: bytes) -> Self:
        end = 2 + int.from_bytes(body[:2], "big")
        numbered = 2 if flags & 6 else 0
        return cls(
            body[2:end].decode(), body[end + numbered :], flags, int.from_bytes(body[end : end + numbered], "big")
        )

    def packet(self) -> bytes:
        topic = self.topic.encode()
        number = self.number.to_bytes(2, "big") if self.flags & 6 else b""
        return packet(PUBLISH << 4 | self.flags, len(topic).to_bytes(2, "big") + topic + number + self.payload)

    def again(self) -> "Publication":
        """The same at QoS 0, which nobody acknowledges."""
        return replace(self, flags=self.flags & RETAIN, number=0)


def packet(first: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while True:
        rest, low = rest >> 7, rest & 127
        length += bytes([low | (128 if rest else 0)])
        if not rest:
            return bytes([first]) + length + body


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return first, await reader.readexactly(length)


class Mischief:
    """What a hostile broker makes of one publication: which ones it passes on in its place."""

    def __init__(self, seed: int, forged: Sequence[Publication]) -> None:
        self.done: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._forged = forged
        self._heard: list[Publication] = []

    def of(self, said: Publication, held: list[Publication]) -> list[Publication]:
        """Return what to pass on; ``held`` are those of this connection that were kept back, which may grow."""
        if len(self._heard) < HEARD_MAX:
            self._heard.append(said)
        kind = self._chance.choice(["pass", "pass", "drop", "replay", "reorder", "swap", "flip", "inject"])
        self.done[kind] += 1
        match kind:
            case "drop":
                return []
            case "replay":
                return [said, self._chance.choice(self._heard).again()]
            case "reorder":
                held.append(said.again())
                if len(held) < HELD_MAX:
                    return []
                self._chance.shuffle(held)
                late, held[:] = list(held), []
                return late
            case "swap":
                return [said, replace(said.again(), topic=self._chance.choice(self._heard).topic)]
            case "flip":
                return [replace(said.again(), payload=self._flipped(said.payload))]
            case "inject":
                return [said, self._chance.choice(self._forged).again()]
            case _:
                return [said]

    def _flipped(self, payload: bytes) -> bytes:
        if not payload:
            return payload
        bit = self._chance.randrange(8 * len(payload))
        return payload[: bit // 8] + bytes([payload[bit // 8] ^ 1 << bit % 8]) + payload[bit // 8 + 1 :]


class HostileBroker:
    """The proxy, on a port of its own, in a thread of its own."""

    def __init__(self, port: int, mischief: Mischief) -> None:
        """``port`` is the honest broker's."""
        self.mischief = mischief
        self.port = 0
        self.is_hostile = False
        self._upstream = port
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        self._thread.start()
        assert self._ready.wait(20)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(20)

    def relent(self) -> None:
        """Be honest from now on, and let everybody connect anew: as if an honest broker were in its place."""
        self.is_hostile = False
        self._loop.call_soon_threadsafe(self._hang_up)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._hang_up()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind, ahead = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()
            return
        ends = {writer, ahead}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry(reader, ahead, writer))
                tasks.create_task(self._carry(behind, writer, ahead))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one side hung up: so does the other
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _carry(
        self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        held: list[Publication] = []
        while True:
            first, body = await read_packet(reader)
            if first >> 4 != PUBLISH or not self.is_hostile:
                onward.write(packet(first, body))
            else:
                said = Publication.parse(first & 15, body)
                passed = self.mischief.of(said, held)
                if said.number and said not in passed:
                    back.write(packet(PUBACK << 4, said.number.to_bytes(2, "big")))
                for each in passed:
                    onward.write(each.packet())
            with suppress(ConnectionResetError):
                await onward.drain()
