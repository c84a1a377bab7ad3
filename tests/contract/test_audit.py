"""The contract of the audit log, on SQLite and on PostgreSQL: what administrators did stays as it was written."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, delete, update

from datasync.domain.limits import AUDIT_DETAIL_BYTES_MAX, AUDIT_NAME_CHARACTERS_MAX
from datasync.store import audit, tables
from datasync.store.audit import ADMINISTRATOR, Event
from datasync.store.chain import Head
from datasync.store.database import Database

_T = tables.audit
AT_MS = 1_700_000_000_000


@pytest.fixture
def logged(database: Database) -> Database:
    with database.write() as tx:
        audit.append(tx, Event.WORKER_ENROLLED, ADMINISTRATOR, "coach", {"expires_ms": None}, AT_MS)
        audit.append(tx, Event.POLICY_ACTIVATED, ADMINISTRATOR, "d" * 64, {"revision": 2}, AT_MS + 1)
        audit.append(tx, Event.WORKER_REVOKED, ADMINISTRATOR, "coach", {}, AT_MS + 2)
    return database


def test_entries_come_back_as_they_were_logged_in_order_and_by_kind(logged: Database) -> None:
    with logged.read() as tx:
        entries = audit.page(tx)
        assert [each.event for each in entries] == ["worker-enrolled", "policy-activated", "worker-revoked"]
        assert (entries[1].at_ms, entries[1].actor, entries[1].subject) == (AT_MS + 1, ADMINISTRATOR, "d" * 64)
        assert entries[1].detail == {"revision": 2}
        assert audit.page(tx, event="worker-revoked") == entries[2:]
        assert audit.page(tx, after=1, limit=1) == entries[1:2]
        assert audit.CHAIN.head(tx) == Head(3, entries[2].hash)
        assert audit.CHAIN.hash_at(tx, 2) == entries[1].hash
        assert audit.CHAIN.hash_at(tx, 4) is None
        assert audit.verify(tx) is None


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda tx: tx.execute(update(_T).where(_T.c.number == 1).values(subject="nobody")), "entry 1"),
        (lambda tx: tx.execute(update(_T).where(_T.c.number == 2).values(detail='{"revision": 3}')), "entry 2"),
        (lambda tx: tx.execute(update(_T).where(_T.c.number == 3).values(at_ms=0)), "entry 3"),
        (lambda tx: tx.execute(delete(_T).where(_T.c.number == 2)), "entry 2 is missing"),
        (lambda tx: tx.execute(delete(_T).where(_T.c.number == 3)), "its head says 3"),
    ],
)
def test_an_edit_or_a_deletion_is_found(logged: Database, tamper: Callable[[Connection], object], found: str) -> None:
    with logged.write() as tx:
        tamper(tx)
    with logged.read() as tx:
        assert found in (audit.verify(tx) or "")


def test_what_is_too_long_does_not_grow_the_log(logged: Database) -> None:
    with logged.write() as tx:
        assert len(audit.append(tx, Event.EXPORT, "a" * 9999, "s", {}, AT_MS).actor) == AUDIT_NAME_CHARACTERS_MAX
        with pytest.raises(ValueError, match="more than"):
            audit.append(tx, Event.EXPORT, "a", "s", {"text": "x" * AUDIT_DETAIL_BYTES_MAX}, AT_MS)
    with logged.read() as tx:
        assert audit.verify(tx) is None
