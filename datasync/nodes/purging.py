"""Purging: edges and the cloud delete what a subject took back, as the policy's ``consent.withdraw.purge`` says.

Reading stops with the withdrawal itself. A stream is purged when no purpose is left for which any worker of the policy,
of whatever operator, may read its collection at this kind of place, and the newest withdrawal is older than ``purge``.
A purpose that needs no consent therefore keeps the rows, and so does one that is still allowed. While nobody may read
them, rows that arrive later are purged likewise. The device's own copy is the subject's and stays.

As with :mod:`datasync.nodes.retention`, what is owed or held by a handover stays until it is not, layers and documents
go whole, and that the rows were here is not forgotten.
"""

from collections import Counter

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.nodes.node import Node, Turn
from datasync.nodes.retention import delete_batches, delete_whole, free_streams
from datasync.policy.compiled import Policy
from datasync.policy.decide import decide
from datasync.store import ageing
from datasync.store.ageing import Named
from datasync.views.withdrawals import withdrawn

INTERVAL_MS = 3_600_000
"""How long after one look at all streams the next begins."""

PAGE_STREAMS = 500
PAGE_SEGMENTS = 500
"""How much one transaction looks at, about."""


class Purging:
    """What one edge or cloud purges. It remembers how far it has looked; a new one begins anew."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._due_ms = 0
        self._looking = False
        self._after: StreamId | None = None
        self._within: tuple[StreamId, int] | None = None
        self._rows: Counter[str] = Counter()

    def duties(self, turn: Turn) -> None:
        """Look at one page of streams, if it is time, and ask to go on at once when there are more."""
        policy = self._node.policy
        withdraw = None if policy is None else policy.document.consent.withdraw
        if policy is None or withdraw is None:
            return
        if turn.now.steady_ms >= self._due_ms and not self._looking:
            self._looking = True
            self._due_ms = turn.now.steady_ms + INTERVAL_MS
        if self._looking:
            self._look(turn, policy, HybridTime(max(0, turn.now.wall_ms - withdraw.purge), 0))
        turn.effects.wake(turn.now.steady_ms if self._looking else self._due_ms)

    def _look(self, turn: Turn, policy: Policy, before: HybridTime) -> None:
        page = ageing.streams_after(turn.tx, self._after, PAGE_STREAMS)
        looked_at = 0
        for each in self._taken_back(turn, policy, page, before):
            count, whole = self._purge(turn, policy, each)
            looked_at += count
            if whole:
                self._after = each.stream
            if looked_at >= PAGE_SEGMENTS:
                return
        self._after = page[-1].stream if page else None
        if len(page) < PAGE_STREAMS:
            self._finish(turn)

    def _taken_back(self, turn: Turn, policy: Policy, page: list[Named], before: HybridTime) -> list[Named]:
        gone: set[StreamId] = set()
        for name in {each.collection for each in page} & policy.collections.keys():
            streams = [each.stream for each in page if each.collection == name]
            gone |= withdrawn(turn.tx, streams, self._bases(policy, name), before)
        return [each for each in page if each.stream in gone]

    def _bases(self, policy: Policy, collection: str) -> dict[str, str]:
        """Return the purposes for which some worker may read a collection at such a place, with their bases."""
        workers = [each for each in policy.workers.values() if each.place is self._node.place]
        return {
            purpose: policy.basis[purpose]
            for worker in workers
            for purpose in worker.purposes
            if decide(policy, worker, collection, None, purpose).allowed
        }

    def _purge(self, turn: Turn, policy: Policy, each: Named) -> tuple[int, bool]:
        """Purge a part of a stream; return how many segments that was, and whether it was the last."""
        if policy.collections[each.collection].kind == "document":
            free = free_streams(turn, self._node.place, {each.stream: each.device})
            sizes = [delete_whole(turn, "purge", each.collection, stream) for stream in free]
            self._rows[each.collection] += sum(size.rows for size in sizes)
            return sum(size.segments for size in sizes), True
        after_seq = self._within[1] if self._within is not None and self._within[0] == each.stream else -1
        part = ageing.of_stream(turn.tx, each.stream, after_seq=after_seq, limit=PAGE_SEGMENTS)
        self._rows[each.collection] += delete_batches(turn, self._node.place, "purge", each.collection, part)
        more = len(part) == PAGE_SEGMENTS
        self._within = (each.stream, part[-1].seq_first) if more else None
        return len(part), not more

    def _finish(self, turn: Turn) -> None:
        for name, rows in (+self._rows).items():
            turn.effects.notes.append(f"purge: deleted {rows} rows of {name}, whose subjects took consent back")
        self._looking, self._after = False, None
        self._rows.clear()
