"""Batches of a view: the layers of one capture opened, checked and joined; or the reason why they are withheld.

Memory is bounded by the bytes of the bodies that are fetched at one time. A batch that cannot be shown is never shown
in part: one whose partner layer is missing (layers are stored together, so it was erased or is damaged), whose key was
destroyed, or whose signature, content or listing does not hold.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy import Connection

from datasync.domain.errors import BodyDamaged, KeyUnavailable, MessageError
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.security.vault import Vault
from datasync.store import segments
from datasync.store.opening import open_layer
from datasync.store.segments import StoredSegment
from datasync.views.layers import Sources, join
from datasync.views.plan import ViewPlan

LOT_BYTES_MAX = 8 << 20
"""Bodies fetched at one time, unless one batch alone has more."""

PARTNER_MISSING = "PARTNER_MISSING"
LAYERS_DISAGREE = "LAYERS_DISAGREE"
POLICY_FOREIGN = "POLICY_FOREIGN"
"""Reasons beside the codes of errors: the last says that no column was made as the policy in force would make it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a view: all up to ``cursor`` was read. ``withheld`` counts what was passed over, by reason.

    ``streams`` are those that the rows come from, with their tiers.
    """

    batch: pa.RecordBatch
    cursor: int
    withheld: Mapping[str, int] = field(default_factory=dict)
    streams: Mapping[StreamId, Tier] = field(default_factory=dict)


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
    streams: Mapping[StreamId, Tier] = field(default_factory=dict)


def join_batches(tx: Connection, vault: Vault, plan: ViewPlan, page: Sequence[StoredSegment]) -> Iterator[Joined]:
    """Give the batches whose base layers these are, opened and joined, one for each."""
    partners = segments.partners(tx, page, plan.tiers[1:]) if page and len(plan.tiers) > 1 else {}
    for lot in _lots([(base, *partners.get(base.id, {}).values()) for base in page]):
        bodies = segments.bodies(tx, [layer.id for batch in lot for layer in batch])
        for batch in lot:
            yield _join(tx, vault, plan, batch, bodies)


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
    streams = {layer.stream: layer.tier for layer in batch}
    return Joined(position, rows, base.numbers, sources, base.header.meta, opened_bytes, streams=streams)


def _labels(tiers: Iterable[Tier]) -> str:
    return " and the ".join(tier.label for tier in sorted(tiers))


def concat(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows of all the batches, none of none."""
    if len(batches) == 1:
        return batches[0]
    whole = pa.Table.from_batches(batches, schema).combine_chunks().to_batches()
    return whole[0] if whole else pa.RecordBatch.from_pylist([], schema)
