"""Rows as a worker would see them, given by hand: in a policy's own tests, and in questions about one row.

A row maps columns and constants to JSON or YAML values; a time may also be given from now, as in ``now-7d``.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from datasync.domain.clock import Instant
from datasync.domain.errors import RecordError
from datasync.policy.compiled import Collection, Worker, reader_scope
from datasync.policy.quantities import distance_ms, instant_us
from datasync.policy.rows import from_values
from datasync.policy.types import TIMESTAMP


def seen_row(
    collection: Collection, worker: Worker, row: Mapping[str, Any], now: Instant
) -> tuple[pa.RecordBatch, dict[str, Any]]:
    """Return the row as a batch of all that the worker sees, null where it says nothing, and its constants.

    Raises RecordError for what the worker does not see, and for a value of another type.
    """
    scope = reader_scope(collection, worker)
    for name, value in row.items():
        if name not in scope.columns and name not in scope.meta:
            raise RecordError(f"{worker.id} sees no {name}")
        if name in scope.meta and not isinstance(value, str | int | float | bool | None):
            raise RecordError(f"{name} is a constant", fix="give text, a number, true or false")
    constants = {name: row[name] for name in scope.meta if row.get(name) is not None}
    return _batch(scope.columns, row, now), constants


def _batch(columns: Mapping[str, pa.DataType], row: Mapping[str, Any], now: Instant) -> pa.RecordBatch:
    schema = pa.schema(list(columns.items()))
    return pa.RecordBatch.from_arrays([_cell(row.get(field.name), field, now) for field in schema], schema=schema)


def _cell(value: object, field: pa.Field, now: Instant) -> pa.Array:
    if field.type == TIMESTAMP and isinstance(value, str) and value.startswith("now"):
        return pa.array([_moment(value, now)], pa.int64()).view(TIMESTAMP)
    try:
        return from_values([value], field)
    except RecordError as error:
        raise RecordError(error.detail.removeprefix("row 0, "), fix=error.fix) from None


def _moment(text: str, now: Instant) -> int:
    try:
        distance = distance_ms(text)
    except ValueError as error:
        raise RecordError(str(error)) from None
    if distance is None:
        raise RecordError(f"{text!r} is no time", fix="write now, now-7d or RFC 3339")
    return instant_us(now) + distance * 1_000
