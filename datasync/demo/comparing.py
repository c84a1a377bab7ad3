"""Rows at a place compared with the rows that were recorded: what is lost, doubled, changed or should not be there.

A row is known by its recording and its place in it, which are unique over all devices of the demo.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts of rows; ``changed`` are those with a value that differs by more than was allowed."""

    expected: int
    found: int
    lost: int
    duplicated: int
    foreign: int
    changed: int

    @property
    def is_clean(self) -> bool:
        """Whether what was found is what was expected."""
        return not (self.lost or self.duplicated or self.foreign or self.changed)


def compare(
    expected: pa.RecordBatch | pa.Table, found: pa.Table, channels: Sequence[str], tolerance: float = 0.0
) -> Comparison:
    """Compare rows by recording and sample, and their channels' values within ``tolerance``."""
    wanted, wanted_order = _keys(expected)
    there, there_order = _keys(found)
    unique, first = np.unique(there, return_index=True)
    common, in_wanted, in_unique = np.intersect1d(wanted, unique, return_indices=True)
    changed = np.zeros(len(common), dtype=bool)
    for channel in channels:
        should = _values(expected, channel)[wanted_order][in_wanted]
        value = _values(found, channel)[there_order][first][in_unique]
        changed |= ~(np.abs(should - value) <= tolerance)
    return Comparison(
        expected=len(wanted),
        found=len(there),
        lost=len(wanted) - len(common),
        duplicated=len(there) - len(unique),
        foreign=len(unique) - len(common),
        changed=int(changed.sum()),
    )


def compare_counts(expected: pa.Table, found: pa.Table) -> Comparison:
    """Compare how many rows there are of each recording, where a row's place in it is not shown."""
    wanted, there = _counts(expected), _counts(found)
    lost = sum(max(0, rows - there.get(number, 0)) for number, rows in wanted.items())
    duplicated = sum(max(0, rows - wanted[number]) for number, rows in there.items() if number in wanted)
    foreign = sum(rows for number, rows in there.items() if number not in wanted)
    return Comparison(sum(wanted.values()), sum(there.values()), lost, duplicated, foreign, 0)


def _counts(rows: pa.Table) -> dict[int, int]:
    return {each["values"]: each["counts"] for each in rows["recording"].value_counts().to_pylist()}


def _keys(rows: pa.RecordBatch | pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows' keys in ascending order, and which row each is."""
    keys = _values(rows, "recording").astype(np.int64) << 32 | _values(rows, "sample").astype(np.int64)
    order = np.argsort(keys, kind="stable")
    return keys[order], order


def _values(rows: pa.RecordBatch | pa.Table, name: str) -> npt.NDArray[np.float64]:
    column = rows.column(name)
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    return np.asarray(chunked.cast(pa.float64()).to_numpy(), dtype=np.float64)
