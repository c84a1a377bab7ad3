"""Data keys, wrapped by the node's key, in a database of their own: destroying a key erases what it encrypted.

Every call has committed durably when it returns. On SQLite a deleted key is also overwritten, in the file by
``secure_delete`` and in the write-ahead log by emptying it; a page that SQLite rebuilt may keep a copy. PostgreSQL has
no such overwriting. So ``compact`` rewrites the files: afterwards they hold no deleted key. It is called soon after a
deletion. What is left until then, and in PostgreSQL's own log for longer, opens nothing without the node's key. Keep
the key database on SQLite, which leaves no log.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, select
from sqlalchemy import delete as sql_delete

from datasync.domain.ids import StreamId
from datasync.store import tables
from datasync.store.database import Database
from datasync.store.statements import upsert

_T = tables.data_keys


class SqlKeyShelf:
    """The vault's shelf (``security.vault.KeyShelf``) in a database that holds nothing else.

    Opening it finishes the overwriting that a crash may have left undone, unless its node runs and does that: then
    ``is_owner`` is false for who looks at the keys beside it.
    """

    def __init__(self, database: Database, *, is_owner: bool = True) -> None:
        self._database = database
        if is_owner:
            database.checkpoint()

    def put(self, key_id: str, stream: StreamId, wrapped: bytes, created_ms: int) -> None:
        """Keep the wrapped key, in place of one with the same id."""
        row = {"key_id": key_id, "stream_id": stream, "wrapped": wrapped, "created_ms": created_ms}
        with self._write() as tx:
            upsert(tx, _T, [row])

    def get(self, key_id: str) -> bytes | None:
        """Return the wrapped key."""
        with self._database.read() as tx:
            return tx.scalar(select(_T.c.wrapped).where(_T.c.key_id == key_id))

    def of_stream(self, stream: StreamId) -> list[tuple[str, bytes]]:
        """Return the stream's keys as (key id, wrapped key), the oldest first."""
        query = select(_T.c.key_id, _T.c.wrapped).where(_T.c.stream_id == stream)
        with self._database.read() as tx:
            return [(row.key_id, row.wrapped) for row in tx.execute(query.order_by(_T.c.created_ms, _T.c.key_id))]

    def delete(self, streams: Iterable[StreamId]) -> None:
        """Destroy the streams' keys. Raises StoreError when they are deleted but could not be overwritten yet."""
        with self._write() as tx:
            tx.execute(sql_delete(_T).where(_T.c.stream_id.in_(list(streams))))
        self._database.checkpoint()

    def compact(self) -> None:
        """Let no file hold the bytes of a destroyed key. Raises StoreError when one may still."""
        self._database.compact([_T])

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._database.write() as tx:
            if tx.dialect.name == "sqlite":
                # For every write: one that moves rows between pages would leave copies behind otherwise.
                tx.exec_driver_sql("PRAGMA secure_delete=ON")
            yield tx
