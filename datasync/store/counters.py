"""Counters: numbers that only rise and are never given twice, whatever is deleted.

A reader's cursor is such a number: if the number of a deleted row came back, the reader would pass over the
row that has it now. The counter's row stays locked until the transaction ends, so numbers become visible to
readers in the order in which they were taken.
"""

from functools import cache

from sqlalchemy import Connection, select
from sqlalchemy.sql.dml import ReturningInsert

from datasync.store import tables
from datasync.store.statements import insert

_T = tables.counters


def take(tx: Connection, name: str, count: int) -> int:
    """Take ``count`` numbers and return the first of them; a counter's first number is 1."""
    last = tx.execute(_raise(tx.dialect.name), {"name": name, "last": count}).scalar_one()
    return last - count + 1


def last(tx: Connection, name: str) -> int:
    """Return the last number taken, 0 if none was."""
    return tx.scalar(select(_T.c.last).where(_T.c.name == name)) or 0


@cache
def _raise(dialect: str) -> ReturningInsert[int]:
    statement = insert(dialect, _T)
    raised = {"last": _T.c.last + statement.excluded.last}
    return statement.on_conflict_do_update(index_elements=["name"], set_=raised).returning(_T.c.last)
