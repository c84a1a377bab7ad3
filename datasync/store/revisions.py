"""Revisions: which revision of the policy each other node follows, as it said last; a register for each."""

import json
from collections.abc import Sequence

from sqlalchemy import Connection, select

from datasync.store import registers, tables

_PREFIX = "revision/"


def put(tx: Connection, node: str, revision: int | None) -> None:
    """Note what a node said; None says that it has no policy."""
    registers.put(tx, _PREFIX + node, revision)


def get(tx: Connection, node: str) -> int | None:
    """Return a node's revision; None when it has none, or was never heard of."""
    revision: int | None = registers.get(tx, _PREFIX + node)
    return revision


def of(tx: Connection, nodes: Sequence[str]) -> dict[str, int | None]:
    """Return the revisions of those of the nodes that said one."""
    table = tables.registers
    query = select(table.c.name, table.c.value).where(table.c.name.in_([_PREFIX + node for node in nodes]))
    return {row.name.removeprefix(_PREFIX): json.loads(row.value) for row in tx.execute(query)}
