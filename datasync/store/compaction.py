"""Compaction: rewriting what held erased rows and destroyed keys, so that the database's files hold them no longer.

What is owed is a register, written in the transaction that erases, and taken back only after the files were rewritten:
a crash at any point leaves it owed. Nothing is believed: a rewriting that did not take place, or that had to carry dead
rows over because somebody still looks at an older snapshot, raises and stays owed.

SQLite overwrites what is deleted (``secure_delete``), but pages that it rebuilds meanwhile may keep copies of what was
moved from them: only VACUUM makes every page anew. PostgreSQL keeps dead rows: VACUUM frees their space without
overwriting it, so VACUUM FULL writes table, TOAST and indexes into new files and gives the old ones back. Its
statistics about columns hold values, too: none are kept of secrets, and those of the other columns are made anew.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, LargeBinary, Table, Text, text

from datasync.domain.errors import StoreError
from datasync.store import registers, tables

KEYS, ROWS = "keys", "rows"
"""What is compacted: the data keys and session keys; the rows and what is known of their streams."""

SESSIONS = (tables.attachments,)
"""What holds keys in a node's own database."""

_OF_STREAMS = (tables.segments, tables.bodies, tables.streams, tables.consents, tables.terms)
_OF_MODELS = (tables.sightings, tables.models, tables.model_parts, tables.model_streams)
ERASED = (*_OF_STREAMS, *_OF_MODELS, *SESSIONS)
"""What an erasure deletes from in a node's own database."""

_LOCK_WAIT_MS_MAX = 2_000
"""How long others may queue behind a rewriting that waits for its lock."""

_REWRITE_MS_MAX = 1_800_000
"""How long one table may be locked while it is rewritten."""

_IN_MEMORY_BYTES_MAX = 64 << 20
"""What SQLite rewrites by way of memory; more goes by a file in the system's temporary folder."""

_REGISTER = "compaction/"


@dataclass(frozen=True, slots=True)
class State:
    """Since when compaction is owed, and when it was done last; wall times, None for never."""

    owed_ms: int | None = None
    done_ms: int | None = None


def state(tx: Connection, what: str) -> State:
    """Return how far the compaction of the keys or the rows is."""
    return State(**registers.get(tx, _REGISTER + what, {}))


def states(tx: Connection) -> dict[str, State]:
    """Return how far each compaction is."""
    return {what: state(tx, what) for what in (KEYS, ROWS)}


def owe(tx: Connection, what: str, now_ms: int) -> None:
    """Note that something was deleted that files still hold."""
    before = state(tx, what)
    if before.owed_ms is None:
        registers.put(tx, _REGISTER + what, asdict(State(now_ms, before.done_ms)))


def done(tx: Connection, what: str, now_ms: int) -> None:
    """Note that files hold nothing any more of what was deleted."""
    registers.put(tx, _REGISTER + what, asdict(State(None, now_ms)))


def size_bytes(connection: Connection, of: Sequence[Table]) -> int:
    """Return what there is to rewrite: these tables on PostgreSQL, the whole file on SQLite."""
    if connection.dialect.name == "sqlite":
        query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    else:
        query = "SELECT " + " + ".join(f"pg_total_relation_size('{table.name}')" for table in of)
    return int(connection.scalar(text(query)))


def rewrite_sqlite(driver: Any) -> None:
    """Write the whole file anew, through the log: that is emptied afterwards by who calls this."""
    cursor = driver.cursor()
    (size,) = cursor.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()
    cursor.execute(f"PRAGMA temp_store={'MEMORY' if size <= _IN_MEMORY_BYTES_MAX else 'DEFAULT'}")
    cursor.execute("VACUUM")
    cursor.close()


def rewrite_postgres(connection: Connection, of: Sequence[Table]) -> None:
    """Write these tables anew, on a connection that commits each statement by itself.

    Raises StoreError when one could not be rewritten or keeps dead rows; drivers' errors are left to the caller.
    """
    with _bounded(connection):
        for table in of:
            _forget_statistics(connection, table)
            _rewrite(connection, table.name, "FULL, ANALYZE")
            _require_clean(connection, table.name)
        _rewrite(connection, "pg_catalog.pg_statistic", "FULL")


@contextmanager
def _bounded(connection: Connection) -> Iterator[None]:
    before = {
        name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("lock_timeout", "statement_timeout")
    }
    connection.exec_driver_sql(f"SET lock_timeout = {_LOCK_WAIT_MS_MAX}")
    connection.exec_driver_sql(f"SET statement_timeout = {_REWRITE_MS_MAX}")
    try:
        yield
    finally:
        for name, value in before.items():
            connection.exec_driver_sql(f"SET {name} = '{value}'")


def _forget_statistics(connection: Connection, table: Table) -> None:
    """Drop what the planner remembers of the table's values; of secrets it remembers nothing from now on.

    A column that gets the type which it has keeps its contents where they are and loses its statistics.
    """
    query = text(
        "SELECT a.attname, coalesce(a.attstattarget, -1) FROM pg_attribute a WHERE a.attrelid = to_regclass(:name)"
    )
    targets = {row[0]: row[1] for row in connection.execute(query, {"name": table.name})}
    changes = []
    for column in table.columns:
        if isinstance(column.type, Text | LargeBinary):
            kind = column.type.compile(connection.dialect)
            changes.append(f'ALTER COLUMN "{column.name}" TYPE {kind}')
        if isinstance(column.type, LargeBinary) and targets[column.name] != 0:
            changes.append(f'ALTER COLUMN "{column.name}" SET STATISTICS 0')
    connection.exec_driver_sql(f'ALTER TABLE "{table.name}" {", ".join(changes)}')


def _rewrite(connection: Connection, name: str, options: str) -> None:
    before = _file(connection, name)
    connection.exec_driver_sql(f"VACUUM ({options}) {name}")
    if _file(connection, name) == before:
        fix = "let the node's role own the database and its tables"
        raise StoreError("PostgreSQL did not let this role rewrite it", where=name, fix=fix)


def _file(connection: Connection, name: str) -> int | None:
    number: int | None = connection.scalar(text("SELECT pg_relation_filenode(to_regclass(:name))"), {"name": name})
    return number


def _require_clean(connection: Connection, name: str) -> None:
    """Raise StoreError unless every page holds nothing but rows that everybody sees, as a plain VACUUM finds it."""
    connection.exec_driver_sql(f"VACUUM {name}")
    query = text("SELECT relpages, relallvisible FROM pg_class WHERE oid = to_regclass(:name)")
    pages, visible = connection.execute(query, {"name": name}).one()
    if pages != visible:
        fix = "end transactions, backups and replication slots that are older than the erasure"
        raise StoreError("its files keep dead rows for somebody who looks at an older snapshot", where=name, fix=fix)
