"""Connections that keep their promises: every one is set up on connect, and what was set is read back.

A node's acknowledgement means durable, so a database that would lose a committed transaction, ignore a foreign
key or let a reader write is refused when it is opened, not discovered when it matters.

SQLite: the driver's own transactions are switched off (it would begin late and only sometimes) and ``BEGIN`` is
issued here: ``IMMEDIATE`` for the writer, so that a transaction never fails half-way for want of the lock.
PostgreSQL: readers get one snapshot for each transaction and may not write.
"""

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from datasync.domain.errors import ConfigError, DependencyMissing, StoreError

LOCK_WAIT_MS_MAX = 10_000
"""How long a transaction waits for a lock that another process holds."""

READERS_MAX = 16
"""Connections that read at the same time; further readers wait."""

_WAL_KEPT_BYTES = 64 << 20

_SQLITE_SETTINGS: dict[str, int | str] = {
    "busy_timeout": LOCK_WAIT_MS_MAX,
    "journal_mode": "wal",
    "synchronous": 2,  # FULL
    "foreign_keys": 1,
    "journal_size_limit": _WAL_KEPT_BYTES,
    "secure_delete": 1,  # what is deleted is overwritten, however SQLite was built
}

_POSTGRES_DURABLE = {"synchronous_commit": {"on", "remote_apply"}, "fsync": {"on"}}

_LOCK_NOT_AVAILABLE = "55P03"

_OWNER_LOCK = 0x64_61_74_61_73_79_6E_63
"""The advisory lock of a database's one writing process: "datasync" in ASCII."""


def parse_url(text: str) -> URL:
    """Return the database's address. Raises ConfigError unless it is one of SQLite or PostgreSQL."""
    fix = "write sqlite:///path/to/file or postgresql+psycopg://user@host/database"
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigError("the database's address is no URL", fix=fix) from error
    match url.get_backend_name():
        case "sqlite" if url.database and not url.database.startswith((":", "file:")):
            return url.set(drivername="sqlite")
        case "postgresql" if url.drivername in ("postgresql", "postgresql+psycopg"):
            return url.set(drivername="postgresql+psycopg")
        case _:
            raise ConfigError(f"{text.split(':')[0]!r} names no database that datasync keeps its data in", fix=fix)


def writer(url: URL, *, exclusive: bool) -> Engine:
    """Return the engine of the one connection that writes; with ``exclusive`` PostgreSQL lets no other process."""
    engine = _engine(url, pool_size=1, max_overflow=0)
    if engine.dialect.name == "sqlite":
        _on_connect(engine, _set_up_sqlite, query_only=False)
        _begin_with(engine, "BEGIN IMMEDIATE")
    else:
        _on_connect(engine, _set_up_postgres, read_only=False, exclusive=exclusive)
    return engine


def readers(url: URL) -> Engine:
    """Return the engine of the connections that read, each transaction from one snapshot."""
    if url.get_backend_name() == "sqlite":
        engine = _engine(url, pool_size=READERS_MAX, max_overflow=0)
        _on_connect(engine, _set_up_sqlite, query_only=True)
        _begin_with(engine, "BEGIN DEFERRED")
    else:
        # Pinged before use: a server that was restarted meanwhile costs no reader its answer.
        options = {"isolation_level": "REPEATABLE READ", "pool_pre_ping": True}
        engine = _engine(url, pool_size=READERS_MAX, max_overflow=0, **options)
        _on_connect(engine, _set_up_postgres, read_only=True, exclusive=False)
    return engine


def _engine(url: URL, **options: Any) -> Engine:
    try:
        return create_engine(url, poolclass=QueuePool, pool_use_lifo=True, hide_parameters=True, **options)
    except ImportError as error:
        fix = "pip install 'datasync[postgres]'"
        raise DependencyMissing("PostgreSQL needs the package psycopg", fix=fix) from error


def _on_connect(engine: Engine, set_up: Any, **options: Any) -> None:
    def connected(driver: Any, _record: object) -> None:
        try:
            set_up(driver, **options)
        except BaseException:
            driver.close()
            raise

    event.listen(engine, "connect", connected)


def _begin_with(engine: Engine, statement: str) -> None:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    event.listen(engine, "begin", begin)


def _set_up_sqlite(driver: Any, *, query_only: bool) -> None:
    driver.isolation_level = None
    for name, wanted in {**_SQLITE_SETTINGS, "query_only": int(query_only)}.items():
        driver.execute(f"PRAGMA {name}={wanted}")
        (found,) = driver.execute(f"PRAGMA {name}").fetchone()
        if found != wanted:
            raise StoreError(f"SQLite's {name} is {found!r} and must be {wanted!r}", fix="use a local disk")


def _set_up_postgres(driver: Any, *, read_only: bool, exclusive: bool) -> None:
    driver.autocommit = True
    for name, durable in _POSTGRES_DURABLE.items():
        (found,) = driver.execute(f"SHOW {name}").fetchone()
        if found not in durable:
            raise StoreError(f"PostgreSQL's {name} is {found!r}, so it may lose what it committed", fix="set it to on")
    driver.execute(f"SET lock_timeout = {LOCK_WAIT_MS_MAX}")
    if exclusive:
        _own_postgres(driver)
    driver.autocommit = False
    driver.read_only = read_only


def _own_postgres(driver: Any) -> None:
    """Take the owner's lock for as long as this connection lives; the server frees that of a killed process."""
    try:
        driver.execute(f"SELECT pg_advisory_lock({_OWNER_LOCK})")
    except Exception as error:
        if getattr(error, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise StoreError("another process has this database open", fix="stop that node") from error
