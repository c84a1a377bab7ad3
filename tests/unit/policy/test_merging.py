"""Merging: whole columns of changes against a slow merge of one value at a time."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasync.policy.merging import merge
from datasync.policy.types import TIMESTAMP

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
MOMENTS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
WORDS = st.sampled_from(["", "a", "b", "ab", "é"])
COLUMNS: dict[str, tuple[str, pa.DataType, st.SearchStrategy[Any]]] = {
    "text": ("lww", pa.string(), WORDS),
    "list": ("lww", pa.list_(pa.int32()), st.lists(st.integers(-2, 2), max_size=3)),
    "count": ("counter", pa.int64(), INT64),
    "small": ("counter", pa.int32(), st.integers(-(1 << 31), (1 << 31) - 1)),
    "amount": ("counter", pa.float64(), st.floats(width=64)),
    "high": ("max", pa.float64(), st.floats(width=64)),
    "low": ("min", pa.float32(), st.floats(width=32)),
    "first": ("min", pa.int64(), INT64),
    "when": ("max", TIMESTAMP, MOMENTS),
    "tags": ("union", pa.list_(pa.string()), st.lists(st.none() | WORDS, max_size=4)),
    "numbers": ("union", pa.list_(pa.int64()), st.lists(INT64, max_size=3)),
}
MERGES = {name: how for name, (how, _, _) in COLUMNS.items()}
SCHEMA = pa.schema([(name, kind) for name, (_, kind, _) in COLUMNS.items()])
CHANGE = st.fixed_dictionaries({name: st.none() | values for name, (_, _, values) in COLUMNS.items()})
CHANGES = st.lists(st.tuples(st.integers(0, 3), CHANGE), max_size=12)


def batch(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    arrays = [
        pa.array([row[field.name] for row in rows], pa.int64()).view(TIMESTAMP)
        if field.type == TIMESTAMP
        else pa.array([row[field.name] for row in rows], field.type)
        for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def plain(merged: pa.RecordBatch) -> list[list[Any]]:
    """The rows as lists of texts, which tell NaN and minus zero apart from other numbers."""
    columns = [
        column.view(pa.int64()).to_pylist() if column.type == TIMESTAMP else column.to_pylist()
        for column in merged.columns
    ]
    return [[repr(value) for value in row] for row in zip(*columns, strict=True)]


def merged_slowly(values: list[Any], how: str, kind: pa.DataType) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    match how:
        case "lww":
            return known[-1]
        case "counter" if pa.types.is_floating(kind):
            total = 0.0
            for value in known:
                total += value
            return total
        case "counter":
            bound = 1 << (kind.bit_width - 1)
            return max(-bound, min(bound - 1, sum(known)))
        case "max" | "min":
            numbers = [value for value in known if not math.isnan(value)]
            if not numbers:
                return math.nan
            return max(numbers) if how == "max" else min(numbers)
        case _:
            return list(dict.fromkeys(element for value in known for element in value))


def same(left: str, right: str) -> bool:
    return left == right or {left, right} == {"0.0", "-0.0"}


@settings(max_examples=300, deadline=None)
@given(changes=CHANGES)
def test_columns_merge_as_values_do(changes: list[tuple[int, dict[str, Any]]]) -> None:
    documents = np.array([document for document, _ in changes], dtype=np.int64)
    merged = merge(batch([change for _, change in changes]), documents, 4, MERGES)
    expected = [
        [
            repr(merged_slowly([change[name] for which, change in changes if which == document], how, kind))
            for name, (how, kind, _) in COLUMNS.items()
        ]
        for document in range(4)
    ]
    for got_row, wanted_row in zip(plain(merged), expected, strict=True):
        assert all(map(same, got_row, wanted_row)), (got_row, wanted_row)


@settings(max_examples=100, deadline=None)
@given(changes=CHANGES, cut=st.integers(0, 12))
def test_what_was_merged_stands_for_its_changes(changes: list[tuple[int, dict[str, Any]]], cut: int) -> None:
    """Except that integer counters which left their range on the way may differ; here they stay inside."""
    small = [(which, change | {"count": None, "small": None}) for which, change in changes]
    documents = np.array([document for document, _ in small], dtype=np.int64)
    rows = batch([change for _, change in small])
    at_once = merge(rows, documents, 4, MERGES)
    early = merge(rows.slice(0, cut), documents[:cut], 4, MERGES)
    both = pa.Table.from_batches([early, rows.slice(cut)]).combine_chunks().to_batches()[0]
    later = merge(both, np.concatenate([np.arange(4), documents[cut:]]), 4, MERGES)
    for left, right in zip(plain(at_once), plain(later), strict=True):
        assert all(map(same, left, right)), (left, right)


@pytest.mark.parametrize(
    ("kind", "values", "total"),
    [
        (pa.int64(), [(1 << 63) - 1, 1], (1 << 63) - 1),
        (pa.int64(), [-(1 << 63), -1], -(1 << 63)),
        (pa.int64(), [(1 << 63) - 1] * 5 + [-(1 << 63)] * 5, -5),
        (pa.int32(), [1 << 30, 1 << 30], (1 << 31) - 1),
        (pa.int64(), [-1, 1], 0),
        (pa.int64(), [None, None], None),
    ],
)
def test_a_sum_stops_at_the_end_of_its_range(kind: pa.DataType, values: list[int | None], total: int | None) -> None:
    rows = pa.record_batch({"n": pa.array(values, kind)})
    merged = merge(rows, np.zeros(len(values), dtype=np.int64), 1, {"n": "counter"})
    assert merged.column("n").to_pylist() == [total]


def test_nothing_stands_under_the_nulls_of_a_merged_column() -> None:
    rows = batch([dict.fromkeys(COLUMNS), dict.fromkeys(COLUMNS)])
    merged = merge(rows, np.zeros(2, dtype=np.int64), 1, MERGES)
    for column in merged.columns:
        if pa.types.is_primitive(column.type):
            assert not any(np.frombuffer(column.buffers()[1], dtype=np.uint8)[: column.type.bit_width // 8])
