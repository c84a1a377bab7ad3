"""Reading documents: the changes of each stream merged, and those documents given out that changed.

A read from ``after`` to ``until`` gives every document that a segment between them changes, whole: merged from all
changes up to ``until``. Streams come in the order of their newest change, so the cursor of a chunk tells which of them
were given. Conditions see the merged documents, and the device's constants as of a document's latest change.

Memory is bounded by the documents of one stream and by the changes that are merged at one time, not by how many
changes there ever were: what was merged before is the earliest change of what comes next.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, func, select

from datasync.domain.clock import Instant
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.policy import documents, merging
from datasync.security.vault import Vault
from datasync.store import segments, tables
from datasync.store.segments import Meta, StoredSegment
from datasync.views.batches import Chunk, Joined, concat, join_batches
from datasync.views.cursor import newest
from datasync.views.plan import ViewPlan

MERGE_ROWS = 65_536
"""Changes that are merged at one time; one segment may have more."""

PAGE_SEGMENTS = 256

DOCUMENT_UNNAMED = "DOCUMENT_UNNAMED"
"""Why a segment is withheld: its rows do not say which documents they change."""


@dataclass(frozen=True, slots=True)
class Span:
    """Positions: changes above ``after`` up to ``end`` are read; streams with none above ``start`` were given."""

    after: int
    start: int
    end: int


def read_documents(
    tx: Connection, vault: Vault, plan: ViewPlan, now: Instant, span: Span, chunk_rows: int
) -> Iterator[Chunk]:
    """Give the documents that changed in the span, as of its end; a chunk is the documents of whole streams."""
    shown: list[pa.RecordBatch] = []
    withheld: Counter[str] = Counter()
    streams: dict[StreamId, Tier] = {}
    cursor = span.start
    for stream, latest in _streams(tx, plan, now, span):
        merged = _Merged(plan)
        for joined in _changes(tx, vault, plan, stream, span.end):
            merged.add(joined, withheld, changed=joined.position > span.after)
        batch = merged.shown(now)
        if shown and sum(each.num_rows for each in shown) + batch.num_rows > chunk_rows:
            yield Chunk(concat(shown, plan.schema), cursor, withheld, streams)
            shown, withheld, streams = [], Counter(), {}
        shown.append(batch)
        streams |= merged.streams
        cursor = latest
    yield Chunk(concat(shown, plan.schema), span.end, withheld, streams)


def changed_by(tx: Connection, vault: Vault, plan: ViewPlan, base: StoredSegment) -> list[tuple[pa.RecordBatch, Meta]]:
    """Return the documents that a batch changes, merged from all changes, with the constants they are judged by."""
    merged, ignored = _Merged(plan), Counter[str]()
    for joined in _changes(tx, vault, plan, base.stream, newest(tx, plan, 0)):
        merged.add(joined, ignored, changed=joined.position == base.position)
    return merged.changed()


def is_unnamed(rows: pa.RecordBatch) -> bool:
    """Whether there are changes that do not say which documents they change."""
    return bool(rows.column(documents.COLUMN).null_count)


def _streams(tx: Connection, plan: ViewPlan, now: Instant, span: Span) -> list[tuple[StreamId, int]]:
    """Return the streams that are still to be given, by the position of their newest change."""
    t = tables.segments
    changed = (t.c.position > span.start, t.c.position <= span.end)
    base = (t.c.collection == plan.collection, t.c.tier == int(plan.base))
    query = select(t.c.stream_id, func.max(t.c.position)).where(*base, *changed, *plan.conditions(now))
    rows = tx.execute(query.group_by(t.c.stream_id).order_by(func.max(t.c.position)))
    return [(StreamId(stream), int(latest)) for stream, latest in rows]


def _changes(tx: Connection, vault: Vault, plan: ViewPlan, stream: StreamId, end: int) -> Iterator[Joined]:
    """Give the stream's changes in the order in which they were made: numbers rise with the hybrid logical clock."""
    after_seq = -1
    while page := segments.visible_of_stream(tx, stream, after_seq=after_seq, until=end, limit=PAGE_SEGMENTS):
        yield from join_batches(tx, vault, plan, page)
        after_seq = page[-1].seq_last


class _Merged:
    """One stream's documents, as far as its changes were read."""

    def __init__(self, plan: ViewPlan) -> None:
        schema = plan.policy.collections[plan.collection].fields
        self._plan = plan
        self._merges = {name: schema[name].merge if name in schema else "lww" for name in plan.fields.names}
        self._state = concat([], plan.fields)
        self._changed = np.zeros(0, dtype=bool)
        self._meta_of = np.zeros(0, dtype=np.int64)
        self._metas: list[Meta] = []
        self._pending: list[tuple[pa.RecordBatch, bool, int]] = []
        self._pending_rows = 0
        self.streams: dict[StreamId, Tier] = {}
        """What the documents were merged from."""

    def add(self, joined: Joined, withheld: Counter[str], *, changed: bool) -> None:
        """Take the next changes; ``changed`` says whether they are what the reader asks about."""
        reason = joined.withheld
        if joined.rows is not None and is_unnamed(joined.rows):
            reason = DOCUMENT_UNNAMED
        if joined.rows is None or reason:
            withheld[reason] += 1
            return
        self.streams.update(joined.streams)
        self._pending.append((joined.rows, changed, self._number(joined.meta)))
        self._pending_rows += joined.rows.num_rows
        if self._pending_rows >= MERGE_ROWS:
            self._merge()

    def shown(self, now: Instant) -> pa.RecordBatch:
        """Return what the worker may see of the documents that changed."""
        batches = [self._plan.rules.apply(batch, meta, now) for batch, meta in self.changed()]
        return concat(batches, self._plan.schema)

    def changed(self) -> list[tuple[pa.RecordBatch, Meta]]:
        """Return the documents that changed, with the constants of their latest changes."""
        self._merge()
        chosen = [self._changed & (self._meta_of == number) for number in range(len(self._metas))]
        return [(self._state.filter(pa.array(these)), meta) for these, meta in zip(chosen, self._metas, strict=True)]

    def _number(self, meta: Meta) -> int:
        """Return the constants' number; their text tells 1 from true, as conditions do."""
        texts = [repr(each) for each in self._metas]
        if repr(meta) in texts:
            return texts.index(repr(meta))
        self._metas.append(meta)
        return len(texts)

    def _merge(self) -> None:
        if not self._pending:
            return
        rows = concat([self._state, *(batch for batch, _, _ in self._pending)], self._plan.fields)
        changed = _spread(self._changed, [(batch.num_rows, value) for batch, value, _ in self._pending])
        meta_of = _spread(self._meta_of, [(batch.num_rows, value) for batch, _, value in self._pending])
        names = rows.column(documents.COLUMN).dictionary_encode()
        which, count = names.indices.to_numpy().astype(np.int64), len(names.dictionary)
        self._state = merging.merge(rows, which, count, self._merges)
        self._changed = np.zeros(count, dtype=bool)
        self._changed[which[changed]] = True
        self._meta_of = meta_of[merging.last_of(which, count)]
        self._pending, self._pending_rows = [], 0


def _spread(before: np.ndarray, runs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return one value for each row: those of before, then each run's as often as it has rows."""
    return np.concatenate([before, *(np.full(rows, value, dtype=before.dtype) for rows, value in runs)])
