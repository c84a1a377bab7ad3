"""Rows that a program recorded and that are not yet durable: gathered until there are enough of them.

This is the only state of a node that a crash loses, and the program knows it: a ticket is answered only when its
rows are in the database.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from datasync.domain.clock import Instant
from datasync.domain.errors import RecordError
from datasync.domain.limits import BATCH_BYTES_MAX, ROW_BYTES_MAX


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
        """Take rows. Raises RecordError, and takes none, when one of them is too large."""
        within = list(pieces(batch, self._flush_rows))
        pending = self._pending.setdefault(collection, _Pending(now.steady_ms))
        pending.batches += within
        pending.tickets.append(ticket)
        pending.rows += batch.num_rows

    def take(self, now: Instant, *, everything: bool = False) -> list[Gathered]:
        """Give up what is ready, or all; batches within ``flush_rows`` and the limits, in the order of recording."""
        ready = [name for name, each in self._pending.items() if everything or self._is_ready(each, now)]
        return [self._cut(name, self._pending.pop(name)) for name in ready]

    @property
    def deadline_ms(self) -> int | None:
        """The steady time at which something is ready."""
        return min((each.since_ms + self._flush_ms for each in self._pending.values()), default=None)

    def _is_ready(self, pending: _Pending, now: Instant) -> bool:
        return pending.rows >= self._flush_rows or now.steady_ms >= pending.since_ms + self._flush_ms

    def _cut(self, collection: str, pending: _Pending) -> Gathered:
        batches = pending.batches
        if any(batch.num_rows < self._flush_rows for batch in batches[:-1]):
            whole = pa.Table.from_batches(batches).combine_chunks().to_batches()
            batches = [piece for batch in whole for piece in pieces(batch, self._flush_rows)]
        return Gathered(collection, tuple(batches), tuple(pending.tickets))


def pieces(batch: pa.RecordBatch, rows_max: int) -> Iterator[pa.RecordBatch]:
    """Cut rows into batches within the limits, in their order; none for no rows. Raises RecordError for a huge row."""
    for start in range(0, batch.num_rows, rows_max):
        yield from _within_bytes(batch.slice(start, rows_max), start)


def _within_bytes(batch: pa.RecordBatch, first: int) -> Iterator[pa.RecordBatch]:
    if batch.nbytes <= BATCH_BYTES_MAX:
        yield batch
    elif batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _within_bytes(batch.slice(0, half), first)
        yield from _within_bytes(batch.slice(half), first + half)
    elif batch.nbytes <= ROW_BYTES_MAX:
        yield batch
    else:
        raise RecordError(f"row {first} has {batch.nbytes} bytes", fix=f"give at most {ROW_BYTES_MAX} in one row")
