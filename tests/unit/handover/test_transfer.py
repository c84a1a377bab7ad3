"""What one edge gives to another: in which order, until when, and that it arrives whole or not at all."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import SegmentConflict, SegmentInvalid, StreamForeign, TierForbidden
from datasync.domain.ids import StreamId, node_name, stream_id
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.handover import conditions, transfer
from datasync.handover.transfer import Transfer
from datasync.protocol.parts import DerivedStream, SealedSegment, SessionKeys, StreamNote
from datasync.security.vault import Vault, key_id, seal_body, state_key
from datasync.store import erasures, segments, streams
from datasync.store.database import Database
from datasync.store.erasures import Erased, Erasure
from datasync.store.keys import SqlKeyShelf
from datasync.store.segments import NewSegment, State, StoredSegment
from datasync.store.streams import Stream

WATCH = node_name("watch-1")
DOCKS, CBD = node_name("acme/docks"), node_name("acme/cbd")
SESSION = b"s" * 32
LOW, HIGH = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32).public_key().public_bytes_raw() for n in (1, 2))
PUBLIC, PRIVATE = stream_id(LOW), stream_id(HIGH)
NOTES = (
    StreamNote(public_key=LOW, collection="steps", tier=0),
    StreamNote(public_key=HIGH, collection="steps", tier=1),
)
T0 = Instant(1_800_000_000_000, 0)


@pytest.fixture
def other_vault(tmp_path: Path) -> Iterator[Vault]:
    keys = Database.open(f"sqlite:///{tmp_path}/other-keys.db")
    yield Vault(secrets.token_bytes(32), SqlKeyShelf(keys), secrets.token_bytes)
    keys.close()


def stored(
    number: int, tier: Tier = Tier.PUBLIC, size_bytes: int = 100, identifier: int | None = None
) -> StoredSegment:
    """One row at ``number``, captured at that second."""
    return StoredSegment(
        id=2 * number + tier,
        position=None,
        stream=(PUBLIC, PRIVATE)[tier],
        collection="steps",
        tier=tier,
        seq_first=number,
        seq_last=number,
        rows=1,
        bytes=size_bytes,
        captured=HybridTime(number * 1_000, 0),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest="d" * 64,
        meta={},
        hash="e" * 64,
        key_id="a" * 32,
        state=State.LOCAL,
        checkpoint=1,
    )


def recent(each: StoredSegment) -> bool:
    return each.captured.wall_ms >= 3_000


def numbers(messages: Sequence[Sequence[StoredSegment]]) -> list[int]:
    return [each.seq_first for message in messages for each in message]


def batch(*wanted: int) -> list[StoredSegment]:
    return [stored(number, tier) for number in wanted for tier in (Tier.PUBLIC, Tier.EDGE_PRIVATE)]


# --- what is owed


def test_the_hot_set_goes_first_then_the_rest_by_age_with_layers_together() -> None:
    owed = Transfer(DOCKS, reversed(batch(1, 2, 3, 4)), recent)
    sent = [each for message in owed.due(T0) for each in message]
    assert [(each.seq_first, int(each.tier)) for each in sent] == [
        (number, tier) for number in (3, 4, 1, 2) for tier in (0, 1)
    ]
    assert owed.due(T0) == []


def test_it_is_hot_when_the_target_has_what_is_recent_and_complete_when_it_has_all() -> None:
    owed = Transfer(DOCKS, batch(1, 2, 3, 4), recent)
    assert (owed.hot, owed.complete) == (False, False)
    owed.acknowledge({PUBLIC: RangeSet.of([(3, 4)])})
    assert (owed.hot, owed.complete) == (False, False)
    owed.acknowledge({PRIVATE: RangeSet.of([(3, 4)]), StreamId("9" * 32): RangeSet.of([(1, 2)])})
    assert (owed.hot, owed.complete) == (True, False)
    owed.acknowledge({PUBLIC: RangeSet.of([(0, 9)]), PRIVATE: RangeSet.of([(0, 9)])})
    assert (owed.hot, owed.complete) == (True, True)
    assert owed.due(T0) == []


def test_half_of_a_segment_is_not_the_segment() -> None:
    wide = replace(stored(1), seq_last=5)
    owed = Transfer(DOCKS, [wide], recent)
    owed.acknowledge({PUBLIC: RangeSet.of([(1, 3), (5, 5)])})
    assert not owed.complete


def test_nothing_to_give_is_hot_and_complete() -> None:
    owed = Transfer(DOCKS, [], recent)
    assert owed.hot
    assert owed.complete
    assert owed.deadline_ms is None


def test_what_the_target_had_before_is_never_sent() -> None:
    owed = Transfer(DOCKS, batch(1, 2, 3), recent)
    owed.acknowledge({PUBLIC: RangeSet.of([(1, 2)]), PRIVATE: RangeSet.of([(1, 1)])})
    assert [(each.seq_first, int(each.tier)) for message in owed.due(T0) for each in message] == [
        (3, 0),
        (3, 1),
        (2, 1),
    ]


def test_a_window_bounds_what_is_out_and_acknowledgements_open_it() -> None:
    held = [stored(number, size_bytes=limits.WINDOW_BYTES // 3) for number in range(9)]
    owed = Transfer(DOCKS, held, lambda _: True)
    first = numbers(owed.due(T0))
    assert first == [0, 1, 2, 3]  # the last begins while there is room
    assert owed.due(T0) == []
    owed.acknowledge({PUBLIC: RangeSet.of([(0, 1)])})
    assert numbers(owed.due(T0)) == [4, 5]


def test_what_is_not_acknowledged_is_sent_again_and_later_each_time() -> None:
    owed = Transfer(DOCKS, batch(1, 2), recent)
    owed.due(T0)
    due_ms = owed.deadline_ms
    assert due_ms == limits.RETRY_MS
    assert owed.due(Instant(0, due_ms - 1)) == []
    owed.acknowledge({PUBLIC: RangeSet.of([(1, 2)]), PRIVATE: RangeSet.of([(1, 1)])})
    assert [(each.seq_first, each.tier) for message in owed.due(Instant(0, due_ms)) for each in message] == [
        (2, Tier.EDGE_PRIVATE)
    ]
    assert owed.deadline_ms == due_ms + 2 * limits.RETRY_MS


def test_what_arrives_meanwhile_is_given_on_once() -> None:
    owed = Transfer(DOCKS, batch(1), recent)
    owed.due(T0)
    owed.acknowledge({PUBLIC: RangeSet.of([(1, 1)]), PRIVATE: RangeSet.of([(1, 1)])})
    owed.add(batch(1, 2))
    assert not owed.complete
    assert numbers(owed.due(T0)) == [2, 2]
    owed.add(batch(1, 2))
    assert owed.due(T0) == []


def test_what_cannot_be_read_does_not_hold_up_the_rest() -> None:
    owed = Transfer(DOCKS, batch(1), recent)
    owed.due(T0)
    owed.give_up(batch(1))
    assert owed.complete
    assert owed.deadline_ms is None


# --- how it travels and arrives


def held_at_source(tx: Connection, vault: Vault) -> list[StoredSegment]:
    """Put two batches of two layers into the store, sealed as a node keeps them."""
    transfer.know(tx, WATCH, NOTES, T0)
    made = []
    for number in (0, 1):
        for tier, stream in ((Tier.PUBLIC, PUBLIC), (Tier.EDGE_PRIVATE, PRIVATE)):
            name, body = vault.encrypt(stream, number, f"{number} {tier}".encode(), T0)
            state = State.SAFE if (number, tier) == (0, Tier.PUBLIC) else State.WAITING
            made.append(new_segment(number, tier, name, body, state))
    segments.append(tx, made)
    streams.put_have(tx, {PUBLIC: RangeSet.of([(0, 1)]), PRIVATE: RangeSet.of([(0, 1)])})
    return segments.page(tx, after_id=0, limit=100)


def new_segment(number: int, tier: Tier, name: str, body: bytes, state: State) -> NewSegment:
    return NewSegment(
        stream=(PUBLIC, PRIVATE)[tier],
        collection="steps",
        tier=tier,
        seq_first=number,
        seq_last=number,
        rows=1,
        bytes=len(body),
        captured=HybridTime(7_000 + number, 3),
        time_min_ms=-5,
        time_max_ms=number,
        policy_digest="d" * 64,
        meta={"region": "melbourne", "floor": 3, "share": 0.5, "indoor": True},
        hash=f"{number:064x}",
        key_id=name,
        state=state,
        checkpoint=1,
        body=body,
        visible=True,
    )


def sealed(number: int, stream: StreamId = PUBLIC, **changed: object) -> SealedSegment:
    """A segment as a source sends it under the session key."""
    key = state_key(SESSION, stream)
    said = SealedSegment(
        stream=stream,
        collection="steps",
        tier=0 if stream == PUBLIC else 1,
        seq_first=number,
        seq_last=number,
        rows=1,
        captured=HybridTime(7_000 + number, 0).pack(),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest="d" * 64,
        meta={},
        hash=f"{number:064x}",
        safe=False,
        key_id=key_id(key),
        body=seal_body(key, stream, number, b"row", secrets.token_bytes),
    )
    return said.model_copy(update=changed)


def test_what_a_target_was_given_can_be_read_once_it_has_the_session_key(
    tx: Connection, vault: Vault, other_vault: Vault, tmp_path: Path
) -> None:
    sent, unreadable = transfer.reseal(tx, vault, SESSION, held_at_source(tx, vault), secrets.token_bytes)
    assert unreadable == []
    there = Database.open(f"sqlite:///{tmp_path}/target.db")
    with there.write() as target:
        known = transfer.know(target, WATCH, NOTES, T0)
        assert transfer.arrive(target, known, sent, []) == (4, 4)
        arrived = segments.page(target, after_id=0, limit=100)
        bodies = segments.bodies(target, [each.id for each in arrived])
        assert not any(other_vault.has(each.stream, each.key_id) for each in arrived)
        transfer.adopt(other_vault, SessionKeys(session=b"x" * 32, previous={CBD: [SESSION]}), known, T0)
        read = {
            (each.seq_first, int(each.tier)): other_vault.decrypt(
                each.stream, each.key_id, each.seq_first, bodies[each.id]
            )
            for each in arrived
        }
    there.close()
    assert read == {(number, tier): f"{number} {tier}".encode() for number in (0, 1) for tier in (0, 1)}
    before = {(each.stream, each.seq_first): each for each in segments.page(tx, after_id=0, limit=100)}
    for each in arrived:
        origin = before[each.stream, each.seq_first]
        same = ("collection", "seq_last", "rows", "captured", "time_min_ms", "time_max_ms", "meta", "hash")
        assert all(getattr(each, name) == getattr(origin, name) for name in same)
        assert (each.position, each.checkpoint) == (None, None)


def test_what_is_damaged_or_under_a_key_that_is_not_here_is_said_to_be_unreadable(tx: Connection, vault: Vault) -> None:
    held = held_at_source(tx, vault)
    tx.exec_driver_sql(f"UPDATE bodies SET body = x'00' WHERE id = {held[0].id}")
    tx.exec_driver_sql(f"DELETE FROM bodies WHERE id = {held[1].id}")
    held[2] = replace(held[2], key_id="0" * 32)
    sent, unreadable = transfer.reseal(tx, vault, SESSION, held, secrets.token_bytes)
    assert unreadable == held[:3]
    assert [each.seq_first for each in sent] == [held[3].seq_first]


def test_what_arrives_is_hidden_and_owed_to_nobody_until_it_is_verified(tx: Connection) -> None:
    known = transfer.know(tx, WATCH, NOTES, T0)
    transfer.arrive(tx, known, [sealed(0), sealed(0, PRIVATE), sealed(1, safe=True)], [])
    arrived = segments.page(tx, after_id=0, limit=100)
    assert {(each.stream, each.seq_first): each.state for each in arrived} == {
        (PUBLIC, 0): State.LOCAL,
        (PRIVATE, 0): State.LOCAL,
        (PUBLIC, 1): State.SAFE,
    }
    assert {each.position for each in arrived} == {None}
    assert streams.get(tx, [PUBLIC])[PUBLIC].safe == RangeSet.of([(1, 1)])


def test_of_an_erased_stream_nothing_is_noted_or_stored_and_the_rest_is(tx: Connection) -> None:
    erasures.add(tx, Erasure(PUBLIC, HybridTime(1, 0), b"signed", Erased()))
    known = transfer.know(tx, WATCH, NOTES, T0)
    assert known.keys() == {PRIVATE}
    assert transfer.arrive(tx, known, [sealed(0), sealed(0, PRIVATE)], []) == (1, 1)
    third = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    for original, refused in ((PUBLIC, {stream_id(third)}), (PRIVATE, set())):
        told = DerivedStream(
            public_key=third, collection="steps", tier=0 if original == PUBLIC else 1, stands_for=original,
            purposes=None, retain_ms=None, onward=False, operator="globex", rule=None, revision=1,
        )  # fmt: skip
        assert conditions.take(tx, WATCH, [told], T0) == refused
    assert transfer.coverage(tx, WATCH).keys() == {PRIVATE, stream_id(third)}


def test_what_is_there_already_is_not_stored_twice(tx: Connection) -> None:
    known = transfer.know(tx, WATCH, NOTES, T0)
    assert transfer.arrive(tx, known, [sealed(0), sealed(0)], []) == (1, 1)
    known = transfer.know(tx, WATCH, [], T0)
    assert transfer.arrive(tx, known, [sealed(0), sealed(1)], []) == (1, 1)
    assert transfer.coverage(tx, WATCH) == {PUBLIC: RangeSet.of([(0, 1)]), PRIVATE: RangeSet()}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (sealed(5, StreamId("9" * 32)), StreamForeign),
        (sealed(5, collection="other"), SegmentInvalid),
        (sealed(5, tier=1), SegmentInvalid),
        (sealed(5, seq_last=4), SegmentInvalid),
        (sealed(5, rows=2), SegmentInvalid),
        (sealed(1, seq_last=2), SegmentConflict),
    ],
)
def test_of_segments_of_which_one_does_not_fit_none_is_stored(
    tx: Connection, bad: SealedSegment, error: type[Exception]
) -> None:
    transfer.arrive(tx, transfer.know(tx, WATCH, NOTES, T0), [sealed(1)], [])
    before = segments.page(tx, after_id=0, limit=100)
    known = transfer.know(tx, WATCH, [], T0)
    with pytest.raises(error):
        transfer.arrive(tx, known, [sealed(7), bad], [])
    assert segments.page(tx, after_id=0, limit=100) == before
    assert transfer.coverage(tx, WATCH)[PUBLIC] == RangeSet.of([(1, 1)])


def test_streams_are_noted_once_and_told_on(tx: Connection) -> None:
    assert set(transfer.know(tx, WATCH, NOTES, T0)) == {PUBLIC, PRIVATE}
    assert set(transfer.know(tx, WATCH, NOTES[:1], T0)) == {PUBLIC, PRIVATE}
    assert [each.public_key for each in streams.of_device(tx, WATCH)] == [note.public_key for note in NOTES]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (StreamNote(public_key=b"3" * 32, collection="steps", tier=2), TierForbidden),
        (StreamNote(public_key=LOW, collection="other", tier=0), SegmentInvalid),
        (StreamNote(public_key=b"4" * 32, collection="steps", tier=0), StreamForeign),
    ],
)
def test_of_streams_of_which_one_may_not_be_here_none_is_noted(
    tx: Connection, bad: StreamNote, error: type[Exception]
) -> None:
    theirs = Stream(stream_id(b"4" * 32), b"4" * 32, "watch-2", "steps", Tier.PUBLIC)
    streams.add(tx, theirs, T0)
    with pytest.raises(error):
        transfer.know(tx, WATCH, [*NOTES, bad], T0)
    assert streams.of_device(tx, WATCH) == []


def test_what_came_ahead_from_an_edge_that_the_device_did_not_leave_is_dropped(tx: Connection, vault: Vault) -> None:
    elsewhere = b"z" * 32
    key = state_key(elsewhere, PUBLIC)
    foreign = sealed(3, key_id=key_id(key), body=seal_body(key, PUBLIC, 3, b"row", secrets.token_bytes))
    known = transfer.know(tx, WATCH, NOTES, T0)
    transfer.arrive(tx, known, [sealed(1), foreign, sealed(4)], [])
    transfer.adopt(vault, SessionKeys(session=b"x" * 32, previous={CBD: [SESSION]}), known, T0)
    assert transfer.drop_unreadable(tx, vault, WATCH) == 1
    assert [each.seq_first for each in segments.page(tx, after_id=0, limit=100)] == [1, 4]
    assert transfer.coverage(tx, WATCH)[PUBLIC] == RangeSet.of([(1, 1), (4, 4)])
    assert transfer.drop_unreadable(tx, vault, WATCH) == 0
