"""The contract of the decision log, on SQLite and on PostgreSQL: nothing in it changes unseen."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Connection, delete, insert, update

from datasync.store import decisions, tables
from datasync.store.database import Database
from datasync.store.decisions import Decision

_T = tables.decisions

OPENED = Decision(
    at_ms=1_700_000_000_000,
    event="opened",
    worker="router",
    collection="trips",
    purpose="service.routing",
    revision=7,
    digest="d" * 64,
    code="ALLOW",
    rules=("R1", "D1"),
    fields=("gps", "mode"),
)


@pytest.fixture
def logged(database: Database) -> Database:
    with database.write() as tx:
        for number in range(5):
            decisions.append(tx, replace(OPENED, at_ms=OPENED.at_ms + number, rows=number))
    return database


def test_entries_come_back_as_they_were_logged_and_in_order(logged: Database) -> None:
    with logged.read() as tx:
        entries = decisions.page(tx)
        assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
        assert entries[3].decision == replace(OPENED, at_ms=OPENED.at_ms + 3, rows=3)
        assert decisions.page(tx, after=3, limit=1) == entries[3:4]
        assert decisions.verify(tx) is None


def test_an_empty_log_is_whole(database: Database) -> None:
    with database.read() as tx:
        assert decisions.verify(tx) is None


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda tx: tx.execute(update(_T).where(_T.c.number == 2).values(rows=99)), "entry 2"),
        (lambda tx: tx.execute(update(_T).where(_T.c.number == 5).values(worker="other")), "entry 5"),
        (lambda tx: tx.execute(update(_T).where(_T.c.number == 1).values(fields='["gps"]')), "entry 1"),
        (lambda tx: tx.execute(delete(_T).where(_T.c.number == 3)), "entry 3 is missing"),
        (lambda tx: tx.execute(delete(_T).where(_T.c.number == 5)), "its head says 5"),
        (lambda tx: tx.execute(delete(_T)), "its head says 5"),
    ],
)
def test_an_edit_or_a_deletion_is_found(logged: Database, tamper: Callable[[Connection], object], found: str) -> None:
    with logged.write() as tx:
        tamper(tx)
    with logged.read() as tx:
        assert found in (decisions.verify(tx) or "")


def test_an_entry_put_in_by_hand_is_found(logged: Database) -> None:
    with logged.write() as tx:
        row = tx.execute(_T.select().where(_T.c.number == 5)).one()
        tx.execute(insert(_T), dict(row._mapping) | {"number": 6})
    with logged.read() as tx:
        assert "entry 6" in (decisions.verify(tx) or "")


def test_a_log_goes_on_after_it_was_read(logged: Database) -> None:
    with logged.write() as tx:
        assert decisions.append(tx, OPENED).number == 6
    with logged.read() as tx:
        assert decisions.verify(tx) is None
