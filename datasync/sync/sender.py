"""Sending segments up: what the receiver lacks, within a window, again until acknowledged.

The database says what waits; this object only remembers how far it has looked and what is in flight. Everything
that waited when the receiver changed is backlog: it gets at most half of the window, so that what is captured now
is not stuck behind what piled up. The layers of a batch are sent together.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.clock import Instant
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.window import Window
from datasync.store import segments
from datasync.store.batches import batches, pack
from datasync.store.segments import StoredSegment

LOOK_AHEAD = 256
FLIGHTS_MAX = 2048
"""Segments in flight at most, however small they are."""


class Sender:
    """The way of one node's waiting segments to one receiver."""

    def __init__(self, window_bytes: int = limits.WINDOW_BYTES, retry_ms: int = limits.RETRY_MS) -> None:
        self._window = Window(window_bytes, retry_ms)
        self._window_bytes = window_bytes
        self._flying: dict[int, StoredSegment] = {}
        self._live_from: int | None = None
        self._live_seen = 0
        self._backlog_seen = 0
        self._backlog_left = True

    def restart(self) -> None:
        """Begin again from the database: the receiver changed, or this node restarted."""
        self._window.clear()
        self._flying.clear()
        self.look_again()

    def look_again(self, from_id: int = 0) -> None:
        """Look once more for waiting segments from an id on: some may wait now that were passed over before."""
        if self._live_from is None or not from_id:
            self._live_from = None
            return
        self._backlog_seen = min(self._backlog_seen, from_id - 1) if self._backlog_left else from_id - 1
        self._backlog_left = True
        self._live_from = self._live_seen

    def due(self, tx: Connection, now: Instant) -> list[list[StoredSegment]]:
        """Return the messages to send now, each a list of whole batches, and count them as in flight."""
        if self._live_from is None:
            newest = segments.waiting(tx, after_id=0, limit=1, newest=True)
            self._live_from = self._live_seen = newest[0].id if newest else 0
            self._backlog_seen = 0
            self._backlog_left = True
        overdue = sorted((self._flying[key] for key in self._window.overdue(now)), key=lambda each: each.id)
        whole = list(batches(overdue))
        whole += self._fresh(tx, now, live=True)
        if self._backlog_left:
            whole += self._fresh(tx, now, live=False)
        return pack(whole)

    def acknowledge(self, durable: Mapping[StreamId, RangeSet]) -> None:
        """Forget what is in flight and covered by an acknowledgement."""
        self._drop([key for key, each in self._flying.items() if _covered(each, durable)])

    def forget(self, segment: StoredSegment) -> None:
        """Forget one that will not be sent; the same numbers may be here again, as another segment."""
        self._drop([segment.id])

    def is_flying(self, segment: int) -> bool:
        """Whether the segment with this id was sent and not heard of."""
        return segment in self._flying

    @property
    def deadline_ms(self) -> int | None:
        """The steady time at which something is overdue."""
        return self._window.deadline_ms

    @property
    def in_flight(self) -> int:
        """How many segments were sent and not heard of."""
        return len(self._flying)

    def _fresh(self, tx: Connection, now: Instant, *, live: bool) -> list[list[StoredSegment]]:
        """Take batches that were not yet sent, in the order of their ids, while the window has room for them."""
        assert self._live_from is not None
        reserve_bytes = 0 if live else self._window_bytes // 2
        taken: list[list[StoredSegment]] = []
        while self._has_room(reserve_bytes):
            page, is_last = self._page(tx, live=live)
            for batch in page:
                if not self._has_room(reserve_bytes):
                    return taken
                if fresh := [each for each in batch if each.id not in self._flying]:
                    self._fly(fresh, now)
                    taken.append(fresh)
                if live:
                    self._live_seen = batch[-1].id
                else:
                    self._backlog_seen = batch[-1].id
            if is_last:
                self._backlog_left &= live
                break
        return taken

    def _page(self, tx: Connection, *, live: bool) -> tuple[list[list[StoredSegment]], bool]:
        """Return the next whole batches of the live part or of the backlog, and whether there are no more of it."""
        found = segments.waiting(tx, after_id=self._live_seen if live else self._backlog_seen, limit=LOOK_AHEAD)
        whole, is_last = list(batches(found)), len(found) < LOOK_AHEAD
        if not is_last:
            whole.pop()  # it may go on beyond what was looked at
        if live:
            return whole, is_last
        old = [batch for batch in whole if batch[-1].id <= (self._live_from or 0)]
        return old, is_last or len(old) < len(whole)

    def _drop(self, keys: list[int]) -> None:
        self._window.drop(keys)
        for key in keys:
            self._flying.pop(key, None)

    def _has_room(self, reserve_bytes: int) -> bool:
        return self._window.room_bytes > reserve_bytes and len(self._flying) < FLIGHTS_MAX

    def _fly(self, batch: list[StoredSegment], now: Instant) -> None:
        for each in batch:
            self._window.add(each.id, each.bytes, now)
            self._flying[each.id] = each


def _covered(each: StoredSegment, durable: Mapping[StreamId, RangeSet]) -> bool:
    ranges = durable.get(each.stream)
    return ranges is not None and ranges.covers(each.seq_first, each.seq_last)
