"""Registers: single named values of a node, kept as JSON (its clock, its incarnation, what it was started as)."""

import json
from typing import Any

from sqlalchemy import Connection, bindparam, select

from datasync.store import tables
from datasync.store.statements import upsert

_GET = select(tables.registers.c.value).where(tables.registers.c.name == bindparam("of_name"))


def get(tx: Connection, name: str, default: Any = None) -> Any:
    """Return the register's value, or ``default`` when it was never put."""
    value = tx.scalar(_GET, {"of_name": name})
    return default if value is None else json.loads(value)


def put(tx: Connection, name: str, value: Any) -> None:
    """Set the register to a JSON value. Raises TypeError or ValueError for what JSON cannot say."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    upsert(tx, tables.registers, [{"name": name, "value": text}])
