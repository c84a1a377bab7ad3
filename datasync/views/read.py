"""Reading a view: segments by position, opened, joined, filtered, and given out in chunks.

Segments are found by their metadata in SQL, where consent and what else can be decided without opening them is decided.
A chunk is whole segments, so every chunk's cursor is a place to resume from: nothing is lost and nothing comes twice.
Memory is bounded by rows and bytes of a chunk. A segment that cannot be shown is passed over and counted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa
from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.security.vault import Vault
from datasync.store import segments, tables
from datasync.store.segments import StoredSegment
from datasync.views.batches import Chunk, Joined, concat, join_batches
from datasync.views.cursor import newest
from datasync.views.documents import Span, read_documents
from datasync.views.plan import ViewPlan

CHUNK_ROWS = 65_536
CHUNK_BYTES_MAX = 32 << 20
"""Opened layers that one chunk keeps in memory, columns that are not shown included; who reaches it is the last."""

PAGE_SEGMENTS_MIN, PAGE_SEGMENTS_MAX = 64, 1_024
"""Segments whose metadata is read at one time: the more, the more of them a read has seen."""


def read(
    tx: Connection,
    vault: Vault,
    plan: ViewPlan,
    now: Instant,
    *,
    after: int = 0,
    until: int | None = None,
    resume: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[Chunk]:
    """Give what the plan's worker may read, from the positions above ``after`` to ``until`` (None: the newest).

    To go on with a read that was interrupted, ask the same again with ``resume``, the cursor of the last chunk of it.

    A chunk has at most ``chunk_rows`` rows, or one segment if that has more (one stream's documents, if those are
    more). The last chunk's cursor is ``until``; it may be empty, and so may others where rules hide every row. Nothing
    is given when there is nothing to read.
    """
    end = newest(tx, plan, after) if until is None else until
    start = after if resume is None else resume
    if start >= end:
        return
    if plan.reads_documents:
        yield from read_documents(tx, vault, plan, now, Span(after, start, end), chunk_rows)
        return
    gathered = _Gathered(plan, now)
    for joined in _joined(tx, vault, plan, now, start, end):
        if not gathered.has_room_for(joined, chunk_rows):
            yield gathered.chunk()
            gathered = _Gathered(plan, now)
        gathered.add(joined)
    yield gathered.chunk(end)


def reader(
    tx: Connection, vault: Vault, plan: ViewPlan, now: Instant, *, after: int = 0, until: int | None = None
) -> pa.RecordBatchReader:
    """Return the view as an Arrow reader, which pandas, DuckDB, Polars and torch read from; ``tx`` must outlive it."""
    chunks = read(tx, vault, plan, now, after=after, until=until)
    return pa.RecordBatchReader.from_batches(plan.schema, (chunk.batch for chunk in chunks))


class _Gathered:
    """What a chunk is made of."""

    def __init__(self, plan: ViewPlan, now: Instant) -> None:
        self._plan = plan
        self._now = now
        self._joined: list[Joined] = []
        self._withheld: Counter[str] = Counter()
        self._streams: dict[StreamId, Tier] = {}
        self._cursor = 0
        self._rows = 0
        self._bytes = 0

    def has_room_for(self, joined: Joined, chunk_rows: int) -> bool:
        if joined.rows is None or not self._joined:
            return True
        return self._rows + joined.rows.num_rows <= chunk_rows and self._bytes < CHUNK_BYTES_MAX

    def add(self, joined: Joined) -> None:
        self._cursor = joined.position
        if joined.rows is None:
            self._withheld[joined.withheld] += 1
        else:
            self._joined.append(joined)
            self._streams.update(joined.streams)
            self._rows += joined.rows.num_rows
            self._bytes += joined.bytes

    def chunk(self, cursor: int | None = None) -> Chunk:
        # By their text, which tells 1 from true, as conditions do.
        runs = [list(run) for _, run in groupby(self._joined, key=lambda each: repr(each.meta))]
        shown = [self._shown(run) for run in runs]
        rows, read_to = concat(shown, self._plan.schema), self._cursor if cursor is None else cursor
        return Chunk(rows, read_to, self._withheld, self._streams)

    def _shown(self, run: Sequence[Joined]) -> pa.RecordBatch:
        rows = concat([each.rows for each in run], self._plan.fields)
        return self._plan.rules.apply(rows, run[0].meta, self._now)


def _joined(tx: Connection, vault: Vault, plan: ViewPlan, now: Instant, after: int, end: int) -> Iterator[Joined]:
    for page in _pages(tx, plan, now, after, end):
        yield from join_batches(tx, vault, plan, page)


def _pages(tx: Connection, plan: ViewPlan, now: Instant, after: int, end: int) -> Iterator[list[StoredSegment]]:
    conditions = [*plan.conditions(now), tables.segments.c.position <= end]
    limit = PAGE_SEGMENTS_MIN
    while True:
        page = segments.visible(tx, plan.collection, plan.base, after=after, limit=limit, extra=conditions)
        yield [segment for segment in page if plan.pruning.may_show(segment.meta, now)]
        if len(page) < limit:
            return
        after = page[-1].position or after
        limit = min(2 * limit, PAGE_SEGMENTS_MAX)
