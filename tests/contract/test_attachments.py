"""The contract of stored attachments and handovers, on SQLite and on PostgreSQL."""

import dataclasses

import pytest

from datasync.store import attachments, handovers
from datasync.store.attachments import Attachment
from datasync.store.database import Database
from datasync.store.handovers import Handover


@pytest.fixture
def attached() -> Attachment:
    return Attachment(
        device="watch-1",
        state="attached",
        incarnation=1,
        epoch=1 << 40,
        edge="acme/cbd",
        previous="acme/docks",
        handover="d" * 32,
        nonce="f" * 32,
        mode="full",
        token=b"\x00token",
        session_key=b"\xffwrapped",
        certificate=b"der",
        detail={"missing": ["trips"], "ranges": {"a": [0, 9]}},
        since_ms=1_700_000_000_000,
        updated_ms=1_700_000_000_001,
    )


@pytest.fixture
def moved() -> Handover:
    return Handover(
        handover="d" * 32,
        device="watch-1",
        role="source",
        peer="acme/docks",
        phase="released",
        incarnation=1,
        epoch=8,
        planned=True,
        started_ms=1_700_000_000_000,
        frozen_ms=1_700_000_000_010,
        active_ms=1_700_000_000_020,
        finished_ms=1_700_000_000_030,
        segments=12,
        rows=12_000,
        bytes=3 << 31,
        detail={"verdict": {"trips": "move"}},
    )


def test_an_attachment_comes_back_with_every_field(database: Database, attached: Attachment) -> None:
    bare = Attachment(device="watch-2", state="detached", incarnation=0, epoch=0, since_ms=1, updated_ms=2)
    with database.write() as tx:
        attachments.put(tx, attached)
        attachments.put(tx, bare)
    with database.read() as tx:
        assert attachments.get(tx, "watch-1") == attached
        assert attachments.get(tx, "watch-2") == bare
        assert attachments.get(tx, "watch-3") is None


def test_putting_an_attachment_replaces_all_of_the_former_one(database: Database, attached: Attachment) -> None:
    fresh = Attachment(device="watch-1", state="detached", incarnation=2, epoch=0, since_ms=1, updated_ms=2)
    with database.write() as tx:
        attachments.put(tx, attached)
        attachments.put(tx, fresh)
        assert attachments.all(tx) == [fresh]


def test_attachments_are_listed_by_device_and_by_state(database: Database, attached: Attachment) -> None:
    rows = [dataclasses.replace(attached, device=f"watch-{n}", state="abc"[n % 3]) for n in range(6)]
    with database.write() as tx:
        for row in reversed(rows):
            attachments.put(tx, row)
        assert attachments.all(tx) == rows
        assert attachments.all(tx, ["a", "c"]) == [row for row in rows if row.state != "b"]
        assert attachments.all(tx, []) == []


def test_a_deleted_attachment_is_gone(database: Database, attached: Attachment) -> None:
    with database.write() as tx:
        attachments.put(tx, attached)
        attachments.put(tx, dataclasses.replace(attached, device="watch-2"))
        attachments.delete(tx, "watch-1")
        assert [row.device for row in attachments.all(tx)] == ["watch-2"]


def test_a_handover_comes_back_with_every_field_and_can_be_updated(database: Database, moved: Handover) -> None:
    begun = dataclasses.replace(
        moved, phase="preparing", peer=None, frozen_ms=None, active_ms=None, finished_ms=None, detail={}
    )
    with database.write() as tx:
        handovers.put(tx, begun)
        assert handovers.get(tx, moved.handover) == begun
        handovers.put(tx, moved)
        assert handovers.all(tx) == [moved]
        assert handovers.get(tx, "0" * 32) is None


def test_handovers_are_listed_newest_first_by_phase_and_device(database: Database, moved: Handover) -> None:
    def row(number: int, phase: str, device: str) -> Handover:
        return dataclasses.replace(moved, handover=f"{number:032x}", started_ms=number, phase=phase, device=device)

    first, second, third = row(1, "released", "a"), row(2, "active", "b"), row(3, "released", "b")
    with database.write() as tx:
        for each in (second, first, third):
            handovers.put(tx, each)
        assert handovers.all(tx) == [third, second, first]
        assert handovers.all(tx, limit=2) == [third, second]
        assert handovers.all(tx, phases=["released"]) == [third, first]
        assert handovers.all(tx, phases=["released"], device="b") == [third]
        handovers.delete(tx, third.handover)
        assert handovers.all(tx, device="b") == [second]
