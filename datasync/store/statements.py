"""The few statements that SQLAlchemy writes per dialect, written once for both.

Building a statement costs more than running it on a small transaction, so those on the way of every message are
built once.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

Insert = sqlite.Insert | postgresql.Insert


def insert(dialect: str, table: Table) -> Insert:
    """Return an INSERT of the dialect, ``sqlite`` or ``postgresql``, that can say ``ON CONFLICT``."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def upsert(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert ``rows``, each with every column; one whose primary key is there replaces the row that has it."""
    if rows:
        tx.execute(_upsert(tx.dialect.name, table), rows)


@cache
def _upsert(dialect: str, table: Table) -> Insert:
    statement = insert(dialect, table)
    key = [column.name for column in table.primary_key]
    changed = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=changed)
