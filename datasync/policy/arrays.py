"""Arrow arrays that hold nothing beside what they show.

A null in Arrow is a bit; the value underneath may still be there, and it travels with the buffer. Kernels such as
``if_else`` and ``filter`` keep it. What leaves this package has zeros under its nulls.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mask = npt.NDArray[np.bool_]


def clean(array: pa.Array) -> pa.Array:
    """Return the array with nothing underneath its nulls."""
    if array.null_count == 0 and not pa.types.is_nested(array.type):
        return array
    if pa.types.is_struct(array.type):
        parts = [clean(part) for part in array.flatten()]  # flatten carries the struct's nulls into its parts
        return pa.StructArray.from_arrays(parts, fields=list(array.type), mask=array.is_null())
    return array.take(pa.array(np.arange(len(array))))


def pick(array: pa.Array, shown: Mask) -> pa.Array:
    """Return the array with null, and nothing underneath, wherever ``shown`` is false."""
    return array.take(pa.array(np.arange(len(array)), mask=~shown))


def numbers(array: pa.Array) -> tuple[npt.NDArray[Any], Mask]:
    """Return a fixed-width array's values, zero for nulls, and which are null."""
    if array.null_count == 0:
        return array.to_numpy(zero_copy_only=False), np.zeros(len(array), dtype=bool)
    missing = array.is_null().to_numpy(zero_copy_only=False)
    return array.fill_null(0).to_numpy(zero_copy_only=False), missing
