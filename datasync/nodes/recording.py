"""Rows that a program recorded and that are not yet durable: gathered until there are enough of them.

This is the only state of a node that a crash loses, and the program knows it: a ticket is answered only when its
rows are in the database.
"""

from dataclasses import dataclass, field

import pyarrow as pa

from datasync.domain.clock import Instant


@dataclass(slots=True)
class _Pending:
    since_ms: int
    batches: list[pa.RecordBatch] = field(default_factory=list)
    tickets: list[int] = field(default_factory=list)
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is ready to be captured: one collection's rows, and the tickets to answer when they are durable."""

    collection: str
    batches: tuple[pa.RecordBatch, ...]
    tickets: tuple[int, ...]


class Gathering:
    """Recorded rows by collection; ready at ``flush_rows`` rows or ``flush_ms`` after the first of them."""

    def __init__(self, flush_rows: int, flush_ms: int) -> None:
        self._flush_rows = flush_rows
        self._flush_ms = flush_ms
        self._pending: dict[str, _Pending] = {}

    def add(self, collection: str, batch: pa.RecordBatch, ticket: int, now: Instant) -> None:
        """Take rows."""
        pending = self._pending.setdefault(collection, _Pending(now.steady_ms))
        pending.batches.append(batch)
        pending.tickets.append(ticket)
        pending.rows += batch.num_rows

    def take(self, now: Instant, *, everything: bool = False) -> list[Gathered]:
        """Give up what is ready, or all; batches of at most ``flush_rows`` rows each, in the order of recording."""
        ready = [name for name, each in self._pending.items() if everything or self._is_ready(each, now)]
        return [self._cut(name, self._pending.pop(name)) for name in ready]

    @property
    def deadline_ms(self) -> int | None:
        """The steady time at which something is ready."""
        return min((each.since_ms + self._flush_ms for each in self._pending.values()), default=None)

    def _is_ready(self, pending: _Pending, now: Instant) -> bool:
        return pending.rows >= self._flush_rows or now.steady_ms >= pending.since_ms + self._flush_ms

    def _cut(self, collection: str, pending: _Pending) -> Gathered:
        table = pa.Table.from_batches(pending.batches).combine_chunks()
        pieces = table.to_batches(max_chunksize=self._flush_rows)
        return Gathered(collection, tuple(piece for piece in pieces if piece.num_rows), tuple(pending.tickets))
