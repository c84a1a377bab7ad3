"""Rows of a user's program as Arrow columns: nothing guessed, nothing lost, and an error names row and field.

Python values must be of the field's kind: no text for numbers, no numbers for times, no whole numbers made from
fractions. Arrow columns may be of another width when every value fits. What Arrow would keep beside the values
(schema metadata, values under nulls, invalid UTF-8) does not pass.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasync.domain.errors import RecordError
from datasync.policy.arrays import clean
from datasync.policy.quantities import MOMENT_US_MAX, MOMENT_US_MIN, datetime_us, moment_us
from datasync.policy.types import POINT, TIMESTAMP, type_name

_CLASSES: dict[pa.DataType, tuple[type, ...]] = {
    pa.bool_(): (bool, np.bool_),
    pa.int32(): (int, np.integer),
    pa.int64(): (int, np.integer),
    pa.float32(): (float, int, np.floating, np.integer),
    pa.float64(): (float, int, np.floating, np.integer),
    pa.string(): (str,),
    pa.binary(): (bytes,),
}
_UNFIT = (pa.ArrowException, ValueError, TypeError, OverflowError)


def from_values(values: Sequence[Any], field: pa.Field) -> pa.Array:
    """Return Python values (None: null) as a column of the field's type. Raises RecordError."""
    try:
        return _from_values(values, field.type)
    except _UNFIT:
        row = _first_unfit(len(values), lambda index: _from_values(values[index : index + 1], field.type))
        raise _misfit(row, field, values[row]) from None


def from_column(column: pa.Array, field: pa.Field) -> pa.Array:
    """Return an Arrow column as one of the field's type. Raises RecordError when a value does not fit."""
    try:
        return _from_column(column, field.type)
    except _UNFIT:
        row = _first_unfit(len(column), lambda index: _from_column(column.slice(index, 1), field.type))
        raise _misfit(row, field, column[row]) from None


def _from_values(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    # A whole column of the usual classes is known to fit without a look at each value.
    usual = {*_CLASSES.get(kind, ())[:1], type(None)}
    if kind == TIMESTAMP or not set(map(type, values)) <= usual:
        values = [None if value is None else _plain(value, kind) for value in values]
    column = pa.array(values, kind)
    if pa.types.is_floating(kind):
        infinite = np.flatnonzero(np.isinf(column.to_numpy(zero_copy_only=False)))
        if any(math.isfinite(values[index]) for index in infinite.tolist()):
            raise ValueError("a finite number became infinite")
    return column


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Return a Python value as Arrow takes it. Raises ValueError when it is none of this kind."""
    if kind == POINT:
        if not isinstance(value, Mapping) or set(value) != {"lat", "lon"}:
            raise ValueError("no point")
        return {name: _plain(part, pa.float64()) for name, part in value.items()}
    if pa.types.is_nested(kind):
        if not isinstance(value, list | tuple | np.ndarray):
            raise ValueError("no list")
        return [_plain(part, kind.value_type) for part in value]
    if kind == TIMESTAMP:
        return moment_us(value) if isinstance(value, str) else datetime_us(_datetime(value))
    wanted = _CLASSES[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise ValueError("another class")
    return value


def _datetime(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError("no time")
    return value


def _from_column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    column.validate(full=True)
    if not len(column):
        return pa.array([], kind)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not _related(column.type, kind):
        raise ValueError("another kind")
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = pc.floor_temporal(column, unit="microsecond")
    cast = clean(column.cast(kind))
    _check_bounds(cast)
    if pa.types.is_floating(kind) and pa.types.is_floating(column.type):
        overflowed = pc.and_not(pc.is_inf(cast), pc.is_inf(column))
        if pc.any(overflowed).as_py():
            raise ValueError("a finite number became infinite")
    return cast


def _related(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether values of ``source`` mean what values of ``target`` mean, so that a checked cast may change the width."""
    if pa.types.is_null(source) or source == target:
        return True
    if pa.types.is_struct(target):
        names = {field.name for field in source} if pa.types.is_struct(source) else set()
        return names == {"lat", "lon"} and all(_related(field.type, pa.float64()) for field in source)
    if pa.types.is_nested(target):
        lists = pa.types.is_list(source) or pa.types.is_large_list(source) or pa.types.is_fixed_size_list(source)
        return lists and _related(source.value_type, target.value_type)
    if pa.types.is_timestamp(target):
        return pa.types.is_timestamp(source) and source.tz is not None
    return any(is_source(source) and is_target(target) for is_source, is_target in _FAMILIES)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


_FAMILIES = (
    (pa.types.is_integer, pa.types.is_integer),
    (pa.types.is_integer, pa.types.is_floating),
    (pa.types.is_floating, pa.types.is_floating),
    (_is_text, _is_text),
    (_is_bytes, _is_bytes),
)


def _check_bounds(column: pa.Array) -> None:
    moments = column.flatten() if pa.types.is_list(column.type) else column
    if pa.types.is_timestamp(moments.type):
        bounds = pc.min_max(moments.view(pa.int64())).as_py()
        if bounds["min"] is not None and not MOMENT_US_MIN <= bounds["min"] <= bounds["max"] <= MOMENT_US_MAX:
            raise ValueError("a time outside of the years 1 to 9999")


def _first_unfit(count: int, attempt: Callable[[int], object]) -> int:
    for index in range(count):
        try:
            attempt(index)
        except _UNFIT:
            return index
    return 0


def _misfit(row: int, field: pa.Field, value: object) -> RecordError:
    shown = _shown(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    where, wanted = f"row {row}, field {field.name}", type_name(field.type)
    hidden = f"{where}: the value is no {wanted}"
    fix = f"give {_example(field.type)}"
    return RecordError(f"{where}: {shown} is no {wanted}", fix=fix, without_value=hidden)


def _shown(value: object) -> str:
    if not isinstance(value, pa.Scalar):
        return repr(value)
    try:
        return repr(value.as_py())
    except (ValueError, OverflowError):  # no UTF-8, or a time that Python cannot express
        return f"a {value.type}"


def _example(kind: pa.DataType) -> str:
    if kind == TIMESTAMP:
        return "an RFC 3339 text or a datetime, with a time zone, of the years 1 to 9999"
    if kind == POINT:
        return "a mapping of lat and lon to numbers"
    if pa.types.is_fixed_size_list(kind):
        return f"a list of {kind.list_size} numbers"
    if pa.types.is_nested(kind):
        return f"a list; for each item, {_example(kind.value_type)}"
    if pa.types.is_integer(kind):
        return f"a whole number of {kind.bit_width} bits"
    words = {pa.bool_(): "true or false", pa.string(): "text", pa.binary(): "bytes"}
    return words.get(kind, f"a number of {type_name(kind)}")
