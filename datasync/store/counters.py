"""Counters: numbers that only rise and are never given twice, whatever is deleted.

A reader's cursor is such a number: if the number of a deleted row came back, the reader would pass over the
row that has it now. The counter's row stays locked until the transaction ends, so numbers become visible to
readers in the order in which they were taken.
"""

from sqlalchemy import Connection, select

from datasync.store import tables
from datasync.store.statements import insert


def take(tx: Connection, name: str, count: int) -> int:
    """Take ``count`` numbers and return the first of them; a counter's first number is 1."""
    statement = insert(tx, tables.counters).values(name=name, last=count)
    raised = statement.on_conflict_do_update(
        index_elements=["name"], set_={"last": tables.counters.c.last + statement.excluded.last}
    )
    return int(tx.execute(raised.returning(tables.counters.c.last)).scalar_one()) - count + 1


def last(tx: Connection, name: str) -> int:
    """Return the last number taken, 0 if none was."""
    return tx.scalar(select(tables.counters.c.last).where(tables.counters.c.name == name)) or 0
