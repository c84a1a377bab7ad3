"""Worlds whose subjects want to be forgotten: at any moment, more than once, while edges are away.

The same simulator with one more thing that may happen. What a device recorded until its subject's wish was durable is
to be gone everywhere in the end; what it records later is ordinary, in the streams of the next generation. At the
moment of a wish all that is stored of the device anywhere is copied, as a backup or a thief would have it, so that in
the end it can be shown that no key that is left anywhere opens it, and that no file has any of it.
"""

import random
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, union_all

from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Tier
from datasync.nodes.node import Erase, Input, Move
from datasync.store import compaction, erasures, segments, streams, tables, terms
from datasync.store.compaction import KEYS, ROWS
from datasync.transport.link import Packet
from tests.simulation.simulator import Simulator, stem
from tests.simulation.world import Process, Walk, Wish

AWAY_MS = (2_000, 20_000)
"""How long an edge stays down or cut off while a wish is told."""


LATE_MS = (500, 5_000)
"""How long a message is on its way while messages are late."""

HEAD_BYTES = 24
"""How much of a body or of a wrapped key is looked for in files: enough to be found nowhere by chance."""


_BACK = union_all(*(
    select(table.c.stream_id).where(table.c.stream_id.in_(select(tables.erasures.c.stream_id)))
    for table in (tables.streams, tables.segments)
)).limit(1)  # fmt: skip
"""Finds what a node should not have: a stream, or a segment of one, that was erased there."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A body that a place stored; ``original`` is the stream itself, or the one that it stands for."""

    place: NodeName
    stream: StreamId
    original: StreamId
    key_id: str
    seq_first: int
    body: bytes


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as a place keeps it."""

    place: NodeName
    stream: StreamId
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """A wish on its way to the device, and what was stored of the device anywhere when it was made."""

    walk: Walk
    wish: Wish
    tiers: dict[StreamId, Tier]
    copies: tuple[Copy, ...]
    keys: tuple[WrappedKey, ...]

    def remains(self, process: Process, content: bytes, doomed: Container[StreamId]) -> set[bytes]:
        """Return the heads of the place's bodies and wrapped keys of doomed streams that are in the content."""
        bodies = {each.body[:HEAD_BYTES] for each in self.copies if _is_of(each, process, doomed)}
        keys = {each.wrapped[:HEAD_BYTES] for each in self.keys if _is_of(each, process, doomed)}
        return {head for head in bodies | keys if head in content}


class ErasingSimulator(Simulator):
    """One world, from one seed, in which subjects may want to be forgotten; in most they do not."""

    def __init__(self, seed: int, folder: Path, *, devices: int = 3, rows: int = 60, fault_ms: int = 30_000) -> None:
        """Build the world of a seed."""
        self.moods = random.Random(f"moods of {seed}")
        self.wishing = self.moods.choice([0, 0, 0, 0, 0, 0.02, 0.08])
        self.granted: list[Asked] = []
        """Wishes that became durable, in the order in which they did."""
        self._asked: dict[int, Asked] = {}
        self._late_until_ms = 0
        super().__init__(seed, folder, devices=devices, rows=rows, fault_ms=fault_ms)

    def live(self, walk: Walk) -> None:
        """Sometimes the subject wants to be forgotten: while an edge is away, messages are late or the device moves."""
        if self.now_ms < self.fault_ms and self.moods.random() < self.wishing:
            moment = self.moods.random()
            if moment < 0.3:
                self._away(self.moods.choice(list(self.edges.values())))
            elif moment < 0.6:
                self._late_until_ms = self.now_ms + 2_000
            else:
                self._move(walk)
            for _ in range(self.moods.choice([1, 1, 2])):
                self._after(self.moods.randint(0, 1_500), lambda: self.wish(walk))
        super().live(walk)

    def publish(self, process: Process, link: str, packet: Packet) -> None:
        """Let a packet go on its way, at times seconds later."""
        publish = super().publish
        if self.now_ms < self._late_until_ms and self.moods.random() < 0.3:
            self.counts["late messages"] += 1
            self._after(self.moods.randint(*LATE_MS), lambda: publish(process, link, packet))
        else:
            publish(process, link, packet)

    def wish(self, walk: Walk) -> None:
        """Let the subject of a device want to be forgotten, as far as it likes."""
        if walk.process.node is None or self.now_ms >= self.fault_ms:
            return
        ticket, everything = next(self.tickets), self.moods.random() < 0.5
        collection = self.moods.choice([None, "steps"])
        wish = Wish(walk.next_row, everything=everything, all_collections=collection is None)
        self._asked[ticket] = self._copy(walk, wish)
        walk.rows = max(walk.rows, walk.next_row + 15)
        self.counts["erasures asked"] += 1
        self.deliver_input(walk.process, Erase(ticket, None, collection, everything))

    def committed(self, process: Process, inputs: Sequence[Input]) -> None:
        """Note which wishes are durable now, and that nothing is here of what was erased here."""
        for each in inputs:
            if isinstance(each, Erase) and (asked := self._asked.pop(each.ticket, None)) is not None:
                asked.walk.wishes.append(asked.wish)
                self.granted.append(asked)
                self.counts["erasures"] += 1
        if self.granted and inputs:
            self._require_gone(process)

    def is_settled(self) -> bool:
        """Whether, besides, no receipt is awaited anywhere and no key is yet to be destroyed."""
        return super().is_settled() and all(self._has_erased(process) for process in self.processes)

    def compact(self, process: Process) -> None:
        """Rewrite the files of a node of which its database says that they may hold what was erased."""
        with process.database.read() as tx:
            owed = {what for what in (KEYS, ROWS) if compaction.state(tx, what).owed_ms is not None}
        if KEYS in owed:
            process.keys.compact([tables.data_keys])
        if owed:
            process.database.compact(compaction.ERASED)

    def files(self, process: Process) -> bytes:
        """Return all that is in a node's files."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob(f"{stem(process.name)}*.db*")))

    def _move(self, walk: Walk) -> None:
        target, planned = self.moods.choice(list(self.edges)), self.moods.random() < 0.5
        move = Move(next(self.tickets), target, planned)
        self._after(self.moods.randint(0, 800), lambda: self.deliver_input(walk.process, move))

    def _away(self, edge: Process) -> None:
        """Let an edge crash and stay down, or lose its connections, for some time."""
        away_ms = self.moods.randint(*AWAY_MS)
        if self.moods.random() < 0.5 and edge.node is not None:
            self._kill(edge, "stays down", away_ms)
        else:
            self._cut(edge, away_ms)

    def _copy(self, walk: Walk, wish: Wish) -> Asked:
        with walk.process.database.read() as tx:
            tiers = {each.stream: each.tier for each in streams.of_device(tx, walk.process.name)}
        copies = tuple(each for process in self.processes for each in _stored(process, tiers))
        held = {each.stream for each in copies}
        keys = tuple(each for process in self.processes for each in _wrapped(process, held))
        asked = Asked(walk, wish, tiers, copies, keys)
        for process in self.processes:
            own = len({each for each in (*copies, *keys) if each.place == process.name})
            found = asked.remains(process, self.files(process), held)
            assert len(found) == own, "a search that cannot find would prove nothing"
        return asked

    def _require_gone(self, process: Process) -> None:
        with process.database.read() as tx:
            back = tx.scalar(_BACK)
        assert back is None, f"{process.name} has something of {back}, which was erased\n{self.describe()}"

    def _has_erased(self, process: Process) -> bool:
        with process.database.read() as tx:
            return not erasures.awaited(tx) and not erasures.unshredded(tx, 1)


def _stored(process: Process, originals: Iterable[StreamId]) -> Iterator[Copy]:
    """Yield what a node has stored of streams, and of those that stand for them there."""
    with process.database.read() as tx:
        derived = {stream: each.stands_for for stream, each in terms.standing_for(tx, originals).items()}
        for stream, original in {**dict(zip(originals, originals, strict=True)), **derived}.items():
            found = segments.of_stream(tx, stream)
            bodies = segments.bodies(tx, [each.id for each in found])
            for each in found:
                yield Copy(process.name, stream, original, each.key_id, each.seq_first, bodies[each.id])


def _wrapped(process: Process, of_streams: set[StreamId]) -> Iterator[WrappedKey]:
    """Yield the data keys that a node has of streams."""
    keys = tables.data_keys.c
    with process.keys.read() as tx:
        for row in tx.execute(select(keys.stream_id, keys.wrapped).where(keys.stream_id.in_(of_streams))):
            yield WrappedKey(process.name, row.stream_id, row.wrapped)


def _is_of(each: Copy | WrappedKey, process: Process, of_streams: Container[StreamId]) -> bool:
    return each.place == process.name and each.stream in of_streams
