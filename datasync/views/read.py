"""Reading a view: segments by position, opened, joined, filtered, and given out in chunks.

Segments are found by their metadata in SQL, where consent and what else can be decided without opening them is decided.
A chunk is whole segments, so every chunk's cursor is a place to resume from: nothing is lost and nothing comes twice.
Memory is bounded: by rows and bytes of a chunk, and by the bytes of the bodies that are fetched at one time.

A segment that cannot be shown is passed over and counted, never shown in part: one whose partner layer is missing
(layers are stored together, so it was erased or is damaged), whose key was destroyed, or whose signature, content or
listing does not hold.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.errors import BodyDamaged, KeyUnavailable, MessageError
from datasync.domain.tiers import Tier
from datasync.security.vault import Vault
from datasync.store import segments, tables
from datasync.store.segments import StoredSegment
from datasync.views.cursor import newest
from datasync.views.layers import Sources, join, open_layer
from datasync.views.plan import ViewPlan

CHUNK_ROWS = 65_536
CHUNK_BYTES_MAX = 32 << 20
"""Opened layers that one chunk keeps in memory, columns that are not shown included; who reaches it is the last."""

LOT_BYTES_MAX = 8 << 20
"""Bodies fetched at one time, unless one batch alone has more."""

PAGE_SEGMENTS_MIN, PAGE_SEGMENTS_MAX = 64, 1_024
"""Segments whose metadata is read at one time: the more, the more of them a read has seen."""

PARTNER_MISSING = "PARTNER_MISSING"
LAYERS_DISAGREE = "LAYERS_DISAGREE"
POLICY_FOREIGN = "POLICY_FOREIGN"
"""Reasons beside the codes of errors: the last says that no column was made as the policy in force would make it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a view: all up to ``cursor`` was read. ``withheld`` counts what was passed over, by reason."""

    batch: pa.RecordBatch
    cursor: int
    withheld: Mapping[str, int] = field(default_factory=dict)


def read(
    tx: Connection,
    vault: Vault,
    plan: ViewPlan,
    now: Instant,
    *,
    after: int = 0,
    until: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[Chunk]:
    """Give what the plan's worker may read, from the positions above ``after`` to ``until`` (None: the newest).

    A chunk has at most ``chunk_rows`` rows, or one segment if that has more. The last chunk's cursor is ``until``; it
    may be empty, and so may others where rules hide every row. Nothing is given when there is nothing to read.
    """
    end = newest(tx, plan, after) if until is None else until
    if after >= end:
        return
    gathered = _Gathered(plan, now)
    for joined in _joined(tx, vault, plan, now, after, end):
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


@dataclass(frozen=True, slots=True)
class Joined:
    """One batch's layers joined: its rows with their numbers, or the reason why they are withheld.

    ``sources`` say where each column comes from: a column without any is null in all rows.
    """

    position: int
    rows: pa.RecordBatch | None = None
    numbers: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    sources: Sources = field(default_factory=dict)
    meta: segments.Meta = field(default_factory=dict)
    bytes: int = 0
    withheld: str = ""
    detail: str = ""


class _Gathered:
    """What a chunk is made of."""

    def __init__(self, plan: ViewPlan, now: Instant) -> None:
        self._plan = plan
        self._now = now
        self._joined: list[Joined] = []
        self._withheld: Counter[str] = Counter()
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
            self._rows += joined.rows.num_rows
            self._bytes += joined.bytes

    def chunk(self, cursor: int | None = None) -> Chunk:
        # By their text, which tells 1 from true, as conditions do.
        runs = [list(run) for _, run in groupby(self._joined, key=lambda each: repr(each.meta))]
        shown = [self._shown(run) for run in runs]
        return Chunk(_concat(shown, self._plan.schema), self._cursor if cursor is None else cursor, self._withheld)

    def _shown(self, run: Sequence[Joined]) -> pa.RecordBatch:
        rows = _concat([each.rows for each in run], self._plan.fields)
        return self._plan.rules.apply(rows, run[0].meta, self._now)


def join_batches(tx: Connection, vault: Vault, plan: ViewPlan, page: Sequence[StoredSegment]) -> Iterator[Joined]:
    """Give the batches whose base layers these are, opened and joined, one for each."""
    partners = segments.partners(tx, page, plan.tiers[1:]) if page and len(plan.tiers) > 1 else {}
    for lot in _lots([(base, *partners.get(base.id, {}).values()) for base in page]):
        bodies = segments.bodies(tx, [layer.id for batch in lot for layer in batch])
        for batch in lot:
            yield _join(tx, vault, plan, batch, bodies)


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


def _lots(batches: Sequence[tuple[StoredSegment, ...]]) -> Iterator[list[tuple[StoredSegment, ...]]]:
    lot: list[tuple[StoredSegment, ...]] = []
    held = 0
    for batch in batches:
        size = sum(layer.bytes for layer in batch)
        if lot and held + size > LOT_BYTES_MAX:
            yield lot
            lot, held = [], 0
        lot.append(batch)
        held += size
    if lot:
        yield lot


def _join(
    tx: Connection, vault: Vault, plan: ViewPlan, batch: tuple[StoredSegment, ...], bodies: Mapping[int, bytes]
) -> Joined:
    position = batch[0].position or 0
    missing = set(plan.tiers) - {layer.tier for layer in batch if layer.id in bodies}
    if missing:
        detail = f"the {_labels(missing)} layer of the batch is missing"
        return Joined(position, withheld=PARTNER_MISSING, detail=detail)
    try:
        layers = {stored.tier: open_layer(vault, stored, bodies[stored.id]) for stored in batch}
    except (KeyUnavailable, BodyDamaged, MessageError) as error:
        return Joined(position, withheld=error.code, detail=error.detail)
    digest = layers[plan.base].header.policy_digest
    if any(layer.header.policy_digest != digest for layer in layers.values()):
        return Joined(position, withheld=LAYERS_DISAGREE, detail="policies of different digests made the layers")
    sources = plan.sources(tx, digest)
    if not any(sources.get(name) for name in plan.schema.names):
        detail = f"no column was made under the policy {digest[:16]} as the policy in force would make it"
        return Joined(position, withheld=POLICY_FOREIGN, detail=detail)
    rows = join(plan.fields, sources, layers)
    opened_bytes = sum(layer.batch.nbytes for layer in layers.values())
    base = layers[plan.base]
    return Joined(position, rows, base.numbers, sources, base.header.meta, opened_bytes)


def _labels(tiers: Iterable[Tier]) -> str:
    return " and the ".join(tier.label for tier in sorted(tiers))


def _concat(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    whole = pa.Table.from_batches(batches, schema).combine_chunks().to_batches()
    return whole[0] if whole else pa.RecordBatch.from_pylist([], schema)
