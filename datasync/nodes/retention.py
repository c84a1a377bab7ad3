"""Retention: each place keeps the rows of a collection for as long as the policy's ``retain`` says, and no longer.

Age is that of the capture, by the hybrid clock of the node that captured: what is recorded today about last year is
new. Now and then every node looks for segments that are older than its place retains them and deletes them, metadata
and bodies, a bounded page in each transaction. In every place and for every collection that ``retain`` does not name,
and without a policy, everything is kept.

Nothing is lost by age. What is still owed stays, however old it is: what waits for the next place, what is not known
to be safe, and at an edge everything of a device that it does not serve alone and completely (a handover holds it,
freezes it, or still brings more). The layers of a batch go together, so one that is owed keeps the others. That the
rows were here is not forgotten: the ranges of their streams stay, so that no peer can give them a second time.

A document is merged from its changes, and one without the old ones would be another document. So changes are kept while
one of their stream is young enough; when the last is too old, and none is owed, all go in one transaction.
"""

from collections.abc import Mapping, Sequence

from datasync.domain.clock import HybridTime
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.limits import SEGMENT_ROWS_MAX
from datasync.domain.tiers import Place
from datasync.handover import accounts
from datasync.handover.states import EdgeState
from datasync.nodes.node import Node, Turn
from datasync.policy.compiled import Collection
from datasync.store import ageing, checkpoints, segments
from datasync.store.ageing import Aged, Size

INTERVAL_MS = 600_000
"""How long after one look at everything old the next begins."""

PAGE_SEGMENTS = 500
"""Segments that one transaction looks at."""


class Retention:
    """What one node retains no longer. It remembers how far it has looked; a new one begins anew."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._due_ms = 0
        self._left: list[str] = []
        self._after: Aged | None = None
        self._rows = 0

    def duties(self, turn: Turn) -> None:
        """Look at one page, if it is time, and ask to go on at once when there may be more."""
        limited = self._limited()
        if limited and not self._left and turn.now.steady_ms >= self._due_ms:
            self._left = list(limited)
            self._due_ms = turn.now.steady_ms + INTERVAL_MS
        if self._left and self._look(turn, limited.get(self._left[-1])):
            self._finish(turn, self._left.pop())
        if limited:
            turn.effects.wake(turn.now.steady_ms if self._left else self._due_ms)

    def _limited(self) -> dict[str, Collection]:
        policy = self._node.policy
        collections = {} if policy is None else policy.collections
        return {name: each for name, each in collections.items() if self._node.place in each.retain}

    def _look(self, turn: Turn, collection: Collection | None) -> bool:
        """Look at the next page of a collection; return whether that was the last."""
        if collection is None:
            return True  # the policy that limited it has been replaced meanwhile
        before = HybridTime(max(0, turn.now.wall_ms - collection.retain[self._node.place]), 0)
        page = ageing.captured_before(turn.tx, collection.name, before, after=self._after, limit=PAGE_SEGMENTS)
        if collection.kind == "stream":
            self._rows += delete_batches(turn, self._node.place, "retention", collection.name, page)
        elif not self._delete_documents(turn, collection.name, page, before):
            return False  # the same page again: there is less of it now
        self._after = page[-1] if page else None
        return len(page) < PAGE_SEGMENTS

    def _delete_documents(self, turn: Turn, collection: str, page: Sequence[Aged], before: HybridTime) -> bool:
        """Delete the documents of a page that live no longer; return whether those were all."""
        alive = ageing.living(turn.tx, page, before)
        old = {each.stream: each.device for each in page if each.id not in alive}
        segments_deleted = 0
        for stream in free_streams(turn, self._node.place, old):
            if segments_deleted >= PAGE_SEGMENTS:
                return False
            size = delete_whole(turn, "retention", collection, stream)
            segments_deleted += size.segments
            self._rows += size.rows
        return True

    def _finish(self, turn: Turn, collection: str) -> None:
        if self._rows:
            turn.effects.notes.append(f"retention: deleted {self._rows} rows of {collection}, which were too old")
        self._after, self._rows = None, 0


def delete_batches(turn: Turn, place: Place, why: str, collection: str, aged: Sequence[Aged]) -> int:
    """Delete the batches of these segments that nobody waits for at a place; return how many rows those had."""
    free = ageing.whole_batches(turn.tx, aged)
    settled = _settled(turn, place, {each.device for each in free})
    gone = [each for each in free if each.device in settled]
    ageing.delete(turn.tx, gone)
    for name in {each.stream for each in gone}:
        numbers = [each.seq_first for each in gone if each.stream == name]
        checkpoints.delete_idle(turn.tx, name, min(numbers), max(numbers) + SEGMENT_ROWS_MAX)
    rows = sum(each.rows for each in gone)
    _count(turn, why, collection, len(gone), rows)
    return rows


def free_streams(turn: Turn, place: Place, devices: Mapping[StreamId, str | None]) -> list[StreamId]:
    """Return those of the streams, given with their devices, of which nobody waits for anything at a place."""
    owed = ageing.owed_streams(turn.tx, devices)
    settled = _settled(turn, place, set(devices.values()))
    return [stream for stream, device in devices.items() if stream not in owed and device in settled]


def delete_whole(turn: Turn, why: str, collection: str, stream: StreamId) -> Size:
    """Delete all that a stream and its other layers have; return how much that was."""
    layers = ageing.layers(turn.tx, stream)
    size = ageing.size(turn.tx, layers)
    segments.delete(turn.tx, layers)
    for each in layers:
        checkpoints.delete_idle(turn.tx, each)
    _count(turn, why, collection, size.segments, size.rows)
    return size


def _settled(turn: Turn, place: Place, devices: set[str | None]) -> set[str | None]:
    """Return the devices of which no handover holds anything at a place."""
    if place is not Place.EDGE:
        return devices
    served = (accounts.load(turn.tx, NodeName(device)) for device in devices if device is not None)
    return {each.device for each in served if each.state is EdgeState.ACTIVE and not each.pending}


def _count(turn: Turn, why: str, collection: str, segments_gone: int, rows_gone: int) -> None:
    if segments_gone:
        turn.count(f"{why} segments", collection, segments_gone)
        turn.count(f"{why} rows", collection, rows_gone)
