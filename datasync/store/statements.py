"""The few statements that SQLAlchemy writes per dialect, written once for both."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(tx: Connection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """Return an INSERT of the connection's own dialect, which can say ``ON CONFLICT``."""
    return sqlite.insert(table) if tx.dialect.name == "sqlite" else postgresql.insert(table)


def upsert(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, keep: Collection[str] = ()) -> None:
    """Insert ``rows``, each a whole row; a row whose primary key exists replaces it, columns in ``keep`` excepted."""
    if not rows:
        return
    statement = insert(tx, table)
    key = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in rows[0] if name not in key and name not in keep}
    tx.execute(statement.on_conflict_do_update(index_elements=key, set_=changed), [dict(row) for row in rows])
