"""The search for leaks: is anything that is private to its user anywhere but on its user's device?

Looked for are planted strings, the users' names, and exact coordinates as they are in memory and as text. Looked
through are all files of the edges and the cloud, all that passed the brokers, and, since what is encrypted hides a leak
from such a search, every segment that the edges and the cloud hold, decrypted with their own keys. The same search over
the decrypted segments of the devices must find everything: a search that cannot find would prove nothing. What all
nodes should have forgotten is looked for in the same places, and in the devices' files and segments, too.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from datasync.demo.recordings import DemoData
from datasync.demo.town import Node
from datasync.domain.errors import KeyUnavailable
from datasync.protocol import segment
from datasync.security.tls import Caller
from datasync.security.vault import Vault
from datasync.store import segments
from datasync.store.database import Database
from datasync.store.segments import StoredSegment
from datasync.transport.link import Received
from datasync.transport.mqtt import MqttLink


@dataclass(frozen=True, slots=True)
class Search:
    """What was looked through, and what was found: (place, needle)."""

    needles: int
    bytes_searched: int
    leaked: tuple[tuple[str, str], ...]
    control_found: int
    control_wanted: int
    back: tuple[tuple[str, str], ...]
    """What was found of what all nodes should have forgotten: (place, needle)."""


class Tap:
    """Listens to everything that passes a broker and writes it to a file."""

    def __init__(self, brokers: Sequence[tuple[str, Caller | None]], path: Path) -> None:
        self._brokers = brokers
        self._path = path
        self._tasks: list[asyncio.Task[None]] = []
        self.messages = 0

    async def __aenter__(self) -> Self:
        file = self._path.open("wb")
        ready = [asyncio.Event() for _ in self._brokers]

        def take(received: Received) -> None:
            self.messages += 1
            file.write(received.topic.encode() + b"\n" + received.payload + b"\n")
            received.acknowledge()

        for number, ((broker, caller), up) in enumerate(zip(self._brokers, ready, strict=True)):
            link = MqttLink(broker, f"tap-{number}", ["#"], caller=caller)
            changed = self._marker(up)
            self._tasks.append(asyncio.create_task(link.run(take, changed)))
        self._file = file
        for up in ready:
            await up.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._file.close()

    @staticmethod
    def _marker(up: asyncio.Event) -> Callable[[bool], None]:
        return lambda connected: up.set() if connected else None


def needles(data: DemoData) -> dict[str, bytes]:
    """Return what must not be found, by a name for it."""
    found = {text: text.encode() for text in data.canaries}
    for lat, lon in data.coordinates:
        found[f"{lat}, {lon} as numbers"] = struct.pack("<d", lat)
        found[f"{lat}, {lon} as numbers (longitude)"] = struct.pack("<d", lon)
        found[f"{lat} as text"] = repr(lat).encode()
    return found


def search(
    wanted: dict[str, bytes], forgotten: dict[str, bytes], tap: Path, servers: Sequence[Node], devices: Sequence[Node]
) -> Search:
    """Look through everything for what is ``wanted`` on devices alone, and what is ``forgotten``. See the module."""
    in_memory = {name for name in wanted if not name.endswith("as text")}
    leaked: set[tuple[str, str]] = set()
    back: set[tuple[str, str]] = set()
    control: set[str] = set()
    size = 0
    for place, content in _outside(tap, servers):
        size += len(content)
        leaked |= {(place, name) for name, needle in wanted.items() if needle in content}
        back |= {(place, name) for name, needle in forgotten.items() if needle in content}
    for node in devices:
        for content in _decrypted(node):
            control |= {name for name in in_memory if wanted[name] in content}
            back |= {(node.name, name) for name, needle in forgotten.items() if needle in content}
        for place, content in _files(node):
            back |= {(place, name) for name, needle in forgotten.items() if needle in content}
    return Search(len(wanted), size, tuple(sorted(leaked)), len(control), len(in_memory), tuple(sorted(back)))


def _outside(tap: Path, servers: Iterable[Node]) -> Iterator[tuple[str, bytes]]:
    yield "brokers", tap.read_bytes()
    for node in servers:
        yield from _files(node)
        for content in _decrypted(node):
            yield f"{node.name}: decrypted segments", content


def _files(node: Node) -> Iterator[tuple[str, bytes]]:
    for path in sorted(each for each in node.folder.rglob("*") if each.is_file()):
        yield f"{node.name}: {path.relative_to(node.folder)}", path.read_bytes()


def _decrypted(node: Node) -> Iterator[bytes]:
    """Yield every segment that a node holds, visible or not, as uncompressed columns."""
    with node.store() as (database, vault):
        after = 0
        while page := _page(database, after):
            after = page[-1].id
            for each in page:
                # what has just been erased, or came sealed for later, nobody at this node can read
                with suppress(KeyUnavailable):
                    yield columns(database, vault, each)


def _page(database: Database, after: int) -> list[StoredSegment]:
    with database.read() as tx:
        return segments.page(tx, after_id=after, limit=256)


def columns(database: Database, vault: Vault, each: StoredSegment) -> bytes:
    """Return a stored segment's rows as uncompressed columns. Raises KeyUnavailable when its key or body is gone."""
    with database.read() as tx:
        body = segments.bodies(tx, [each.id]).get(each.id)
    if body is None:
        raise KeyUnavailable(f"the segment at {each.seq_first} of the stream {each.stream} was erased meanwhile")
    batch, _ = segment.rows(segment.parse(vault.decrypt(each.stream, each.key_id, each.seq_first, body)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
