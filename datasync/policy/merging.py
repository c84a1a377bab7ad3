"""Merging: the changes of documents become documents, field by field, a whole column at a time.

Changes come in the order in which they count: by hybrid logical clock, then by number. A field that is null in a
change is not touched by it. Each merge is a function of the set of changes alone, so every place that has the same
changes sees the same documents, whatever the order in which they came:

- ``lww``: the last value.
- ``counter``: the sum of all values; one that leaves the type's range stops at its end. Of floats, the sum in order.
- ``max``, ``min``: the extreme; NaN counts only where there is nothing else.
- ``union``: the distinct elements of all lists, in the order in which they first came.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datasync.policy.arrays import clean, numbers
from datasync.policy.document import Merge
from datasync.policy.types import TIMESTAMP

Places = npt.NDArray[np.int64]


def merge(changes: pa.RecordBatch, documents: Places, count: int, merges: Mapping[str, Merge]) -> pa.RecordBatch:
    """Return ``count`` documents with the columns of ``changes``, in the order of their numbers.

    ``documents`` are the numbers, from 0 on, of the documents that the rows change; the rows are in the order in which
    they count. ``merges`` says how each column merges.
    """
    columns = [_merged(changes.column(name), documents, count, merges[name]) for name in changes.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=changes.schema)


def last_of(documents: Places, count: int) -> Places:
    """Return the place of each document's last row, -1 where it has none."""
    return _last(documents, count, np.arange(len(documents)))


def _last(documents: Places, count: int, rows: Places) -> Places:
    places = np.full(count, -1, dtype=np.int64)
    places[documents[rows]] = rows  # of several assignments to one element, the last counts
    return places


def _taken(column: pa.Array, places: Places) -> pa.Array:
    return column.take(pa.array(places, mask=places < 0))


def _merged(column: pa.Array, documents: Places, count: int, how: Merge) -> pa.Array:
    match how:
        case "lww":
            return _taken(column, _last(documents, count, np.flatnonzero(_valid(column))))
        case "counter":
            return _sums(column, documents, count)
        case "max" | "min":
            return _extremes(column, documents, count, how == "max")
        case "union":
            return _unions(column, documents, count)


def _valid(column: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)


def _sums(column: pa.Array, documents: Places, count: int) -> pa.Array:
    values, missing = numbers(column)
    touched = np.zeros(count, dtype=bool)
    touched[documents[~missing]] = True
    if pa.types.is_floating(column.type):
        sums = np.zeros(count, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            np.add.at(sums, documents, values.astype(np.float64))
            narrowed = sums.astype(column.type.to_pandas_dtype())
        return clean(pa.array(narrowed, column.type, mask=~touched))
    # In two halves of 32 bits no sum of fewer than 2**31 values overflows; then both are put together and bounded.
    high, low = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    wide = values.astype(np.int64)
    np.add.at(high, documents, wide >> 32)
    np.add.at(low, documents, wide & 0xFFFFFFFF)
    high, low = high + (low >> 32), low & 0xFFFFFFFF
    bits = column.type.bit_width
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    bounded = np.clip(high, -(1 << 31), (1 << 31) - 1)
    whole = (bounded << 32) + np.where(high > bounded, 0xFFFFFFFF, np.where(high < bounded, 0, low))
    return pa.array(np.clip(whole, least, most), mask=~touched).cast(column.type)


def _extremes(column: pa.Array, documents: Places, count: int, highest: bool) -> pa.Array:
    plain = column.view(pa.int64()) if column.type == TIMESTAMP else column
    values, missing = numbers(plain)
    rows = np.flatnonzero(~missing)
    known = values[rows]
    rank = np.argsort(known, kind="stable")  # NaN is last
    if highest:
        unordered = int(np.isnan(known).sum()) if known.dtype.kind == "f" else 0
        rank = np.roll(rank, unordered)
    else:
        rank = rank[::-1]
    return _taken(column, _last(documents, count, rows[rank]))


def _unions(column: pa.Array, documents: Places, count: int) -> pa.Array:
    elements = pc.list_flatten(column)
    owners = documents[pc.list_parent_indices(column).to_numpy()]
    codes = elements.dictionary_encode(null_encoding="encode").indices.to_numpy(zero_copy_only=False).astype(np.int64)
    pairs = np.stack([owners, codes]) if len(codes) else np.zeros((2, 0), dtype=np.int64)
    _, firsts = np.unique(pairs, axis=1, return_index=True)
    firsts = firsts[np.lexsort((firsts, owners[firsts]))] if len(firsts) else firsts
    lengths = np.bincount(owners[firsts], minlength=count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    touched = np.zeros(count, dtype=bool)
    touched[documents[_valid(column)]] = True
    kept = elements.take(pa.array(firsts, pa.int64()))
    lists = pa.ListArray.from_arrays(pa.array(offsets), kept, type=column.type)
    return clean(pc.if_else(pa.array(touched), lists, pa.scalar(None, column.type)))
