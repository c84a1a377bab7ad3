"""A node's database: one writer, many readers, everything committed is durable.

``write`` is one transaction that commits when its block ends and rolls back when it raises; ``read`` sees one
unchanging snapshot beside it. They may run in different threads; writers take turns. Drivers' errors become
StoreError here and nowhere else.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import URL, Connection, Engine, Table
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from datasync.domain.errors import StoreError, StoreRefused
from datasync.store import compaction, engines, schema


class Database:
    """Build it with :meth:`open`; close it after the last transaction has ended."""

    def __init__(self, writer: Engine, readers: Engine, lock: int | None) -> None:
        self._writer = writer
        self._readers = readers
        self._lock = lock

    @classmethod
    def open(cls, url: str, *, create: bool = True, exclusive: bool = False) -> Self:
        """Open the database at ``sqlite:///path`` or ``postgresql+psycopg://user@host/database``.

        ``create`` makes a missing SQLite file and gives an empty database its schema. ``exclusive`` is for the
        node itself: while it has the database open, no second process may open it so.

        Raises ConfigError for a bad address, StoreError when the database cannot be used or does not keep what
        it commits, SchemaOutdated when its schema is not of this version.
        """
        address = engines.parse_url(url)
        lock = _prepare_file(address, create, exclusive) if address.get_backend_name() == "sqlite" else None
        database = cls(engines.writer(address, exclusive=exclusive), engines.readers(address), lock)
        try:
            database._check(create)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may write; durable when the block has ended."""
        with _translated(), self._writer.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that cannot write and sees one snapshot, taken at its first query."""
        with _translated(), self._readers.begin() as tx:
            yield tx

    def checkpoint(self) -> None:
        """On SQLite, move the write-ahead log into the database file and leave the log empty.

        Raises StoreError when a reader holds an old snapshot for longer than ``engines.LOCK_WAIT_MS_MAX``.
        """
        if self._writer.dialect.name == "sqlite":
            with _translated(), self._writer.connect() as connection:
                cursor = connection.connection.cursor()  # the driver's own: a checkpoint runs outside transactions
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                blocked = any(row[0] for row in cursor.fetchall())
                cursor.close()
            if blocked:
                raise StoreError("a reader keeps the write-ahead log from being emptied")

    def compact(self, of: Sequence[Table]) -> None:
        """Let no file hold what was deleted from these tables; other transactions wait, or this one gives up.

        Raises StoreError when files may still hold something: a lock was not to be had, or somebody still reads.
        """
        with _translated(), self._writer.connect() as connection:
            if connection.dialect.name == "sqlite":
                compaction.rewrite_sqlite(connection.connection)
            else:
                compaction.rewrite_postgres(connection.execution_options(isolation_level="AUTOCOMMIT"), of)
        self.checkpoint()

    @property
    def rewrites_tables(self) -> bool:
        """Whether single tables can be compacted; where not, it is the whole database or nothing."""
        return self._writer.dialect.name == "postgresql"

    def close(self) -> None:
        """Close all connections and give the lock back. Harmless when repeated."""
        self._writer.dispose()
        self._readers.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check(self, create: bool) -> None:
        with _translated():
            self._writer.connect().close()  # sets the writing connection up, or says why that cannot be
        with self.read() as tx:
            empty = create and schema.is_empty(tx)
        if empty:
            with self.write() as tx:
                schema.upgrade(tx)
        with self.read() as tx:
            schema.require(tx)


def upgrade(url: str) -> list[str]:
    """Bring the database's schema up; return the revisions applied, none when it was up to date."""
    with _connection(url) as tx:
        return schema.upgrade(tx)


def check(url: str) -> list[str]:
    """Return how the database's schema differs from the one that this version needs; nothing when it does not."""
    with _connection(url) as tx:
        return schema.differences(tx)


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    address = engines.parse_url(url)
    if address.get_backend_name() == "sqlite":
        _prepare_file(address, create=True, exclusive=False)
    engine = engines.writer(address, exclusive=False)
    try:
        with _translated(), engine.begin() as tx:
            yield tx
    finally:
        engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        kind = StoreRefused if _is_refusal(error) else StoreError
        raise kind(str(error.orig).strip()) from error
    except PoolTimeout as error:
        raise StoreError("no connection to the database became free in time") from error


def _is_refusal(error: DBAPIError) -> bool:
    """Whether it is what was asked that failed, and not the database: then there is no use in asking again."""
    wrong_statement = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    return isinstance(error, IntegrityError | DataError) or wrong_statement


def _prepare_file(address: URL, create: bool, exclusive: bool) -> int | None:
    """Make the file, readable by its owner alone, and return the lock's descriptor if one is wanted."""
    path = Path(address.database or "")
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    elif not path.is_file():
        raise StoreError("there is no such database", where=str(path))
    return _lock(path) if exclusive else None


def _lock(path: Path) -> int:
    # SQLite's own locks are on the database file and break when it is opened and closed by other means.
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError("another process has this database open", where=str(path), fix="stop that node") from error
    return descriptor
