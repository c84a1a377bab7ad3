"""Layers of one batch, joined by sequence number into the columns that a worker reads.

The layers of a batch share their numbers, so a join is an alignment of sorted integer arrays and nothing is done per
row in Python. A row that was lifted to a higher tier is absent from the lower layers; its cells of lower tiers stand in
the layer that it was lifted to, in a column that is null for all other rows, so the two are coalesced.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datasync.domain.tiers import Tier
from datasync.store.opening import Layer

Sources = Mapping[str, tuple[Tier, ...]]
"""By column: the layers that may hold its cells; of several that have one, the first wins."""


def join(fields: Iterable[pa.Field], sources: Sources, layers: Mapping[Tier, Layer]) -> pa.RecordBatch:
    """Return the columns ``fields`` for every row of the highest layer; a cell that no source has is null.

    A source's column must have the very type that is asked for: one that has another type is no source.
    """
    base = layers[max(layers)]
    places = {tier: _places(base.numbers, layer.numbers) for tier, layer in layers.items()}
    schema = pa.schema(list(fields))
    columns = []
    for field in schema:
        held = [tier for tier in sources.get(field.name, ()) if tier in layers and _has(layers[tier], field)]
        cells = [_cells(layers[tier].batch.column(field.name), places[tier]) for tier in held]
        columns.append(_coalesced(cells) if cells else pa.nulls(len(base.numbers), field.type))
    return pa.record_batch(columns, schema=schema)


def _places(wanted: npt.NDArray[np.int64], held: npt.NDArray[np.int64]) -> pa.Array | None:
    """Return where in ``held`` each wanted number is, null where it is not; None when the two are the same."""
    if np.array_equal(wanted, held):
        return None
    if not len(held):
        return pa.nulls(len(wanted), pa.int64())
    places = np.searchsorted(held, wanted).clip(max=len(held) - 1)
    return pa.array(places, mask=held[places] != wanted)


def _has(layer: Layer, field: pa.Field) -> bool:
    index = layer.batch.schema.get_field_index(field.name)
    return index >= 0 and bool(layer.batch.schema.field(index).type == field.type)


def _cells(column: pa.Array, places: pa.Array | None) -> pa.Array:
    return column if places is None else column.take(places)


def _coalesced(cells: list[pa.Array]) -> pa.Array:
    return cells[0] if len(cells) == 1 else pc.coalesce(*cells)
