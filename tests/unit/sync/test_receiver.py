"""Receiving: checked against what the sender may send, stored once, all of it or nothing; shown when verified."""

from collections.abc import Callable, Iterable

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, select

from datasync.domain import limits
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import (
    DatasyncError,
    SegmentConflict,
    SegmentInvalid,
    SignatureInvalid,
    StreamForeign,
    TierForbidden,
)
from datasync.domain.ids import NodeName, node_name, stream_id
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place, Tier
from datasync.protocol import checkpoint, segment
from datasync.protocol.checkpoint import Entry
from datasync.security.vault import Vault
from datasync.store import segments, streams, tables
from datasync.store.segments import State
from datasync.store.streams import Stream
from datasync.sync.receiver import Receipt, receive, receive_signed

WATCH, OTHER = node_name("watch-1"), node_name("watch-2")


def key_of(tier: Tier, owner: int = 1) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([owner, tier]) * 16)


def made(
    first: int,
    count: int = 1,
    tier: Tier = Tier.PUBLIC,
    collection: str = "steps",
    key: Ed25519PrivateKey | None = None,
) -> bytes:
    signing = key or key_of(tier)
    public_key = signing.public_key().public_bytes_raw()
    header = segment.Header(
        stream=stream_id(public_key),
        public_key=public_key,
        collection=collection,
        tier=tier,
        seq_first=first,
        seq_last=first + count - 1,
        rows=count,
        captured=HybridTime(1_000 + first, 0),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest="d" * 64,
        meta={},
        previous="",
    )
    salt = segment.salt_of(header, signing)
    return segment.encode(header, pa.record_batch({"label": pa.array(["x"] * count)}), None, salt).data


def signature(*blobs: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return a checkpoint of segments of one stream."""
    parsed = [segment.parse(blob) for blob in blobs]
    entries = [Entry(each.header.seq_first, each.header.seq_last, each.hash) for each in parsed]
    return checkpoint.sign(entries, key).data


PUBLIC = stream_id(key_of(Tier.PUBLIC).public_key().public_bytes_raw())
PRIVATE = stream_id(key_of(Tier.EDGE_PRIVATE).public_key().public_bytes_raw())


def at_edge(
    tx: Connection,
    vault: Vault,
    now: Instant,
    *blobs: bytes,
    device: NodeName = WATCH,
    signatures: Iterable[bytes] = (),
) -> Receipt:
    return receive(tx, vault, Place.EDGE, device, blobs, signatures, now)


def at_cloud(tx: Connection, vault: Vault, now: Instant, *blobs: bytes, signatures: Iterable[bytes] = ()) -> Receipt:
    return receive_signed(tx, vault, Place.CLOUD, blobs, signatures, now)


def held(tx: Connection) -> list[object]:
    found = (tables.streams, tables.segments, tables.bodies)
    return [tuple(row) for table in found for row in tx.execute(select(table))]


def test_new_segments_are_stored_and_acknowledged_and_hidden_until_they_are_verified(
    tx: Connection, vault: Vault, now: Instant
) -> None:
    blobs = [made(0, 3), made(0, 3, Tier.EDGE_PRIVATE), made(3)]
    receipt = at_edge(tx, vault, now, *blobs)
    assert (receipt.segments, receipt.rows, receipt.duplicates) == (3, 7, 0)
    assert receipt.durable == {PUBLIC: RangeSet.of([(0, 3)]), PRIVATE: RangeSet.of([(0, 2)])}
    assert {each.stream: each.have for each in receipt.streams} == receipt.durable
    stored = segments.page(tx, after_id=0, limit=9)
    assert {(each.checkpoint, each.position, each.state) for each in stored} == {(None, None, State.LOCAL)}
    bodies = segments.bodies(tx, [each.id for each in stored])
    opened = [vault.decrypt(each.stream, each.key_id, each.seq_first, bodies[each.id]) for each in stored]
    assert opened == blobs
    assert [stream.device for stream in streams.of_device(tx, WATCH)] == [WATCH, WATCH]


def test_the_cloud_shows_at_once_what_comes_with_its_signature(tx: Connection, vault: Vault, now: Instant) -> None:
    blobs = [made(0, 3), made(3)]
    at_cloud(tx, vault, now, *blobs, signatures=[signature(*blobs, key=key_of(Tier.PUBLIC))])
    stored = segments.page(tx, after_id=0, limit=9)
    assert [(each.state, each.position is None, each.checkpoint) for each in stored] == [(State.LOCAL, False, 1)] * 2
    assert streams.get(tx, [PUBLIC])[PUBLIC].device is None


FORGED: dict[str, Callable[[bytes], list[bytes]]] = {
    "no signature": lambda blob: [],
    "another segment's": lambda blob: [signature(made(9), key=key_of(Tier.PUBLIC))],
    "another stream's": lambda blob: [signature(blob, key=key_of(Tier.PUBLIC, owner=2))],
    "a changed one": lambda blob: [
        (lambda it: it[:-1] + bytes([it[-1] ^ 1]))(signature(blob, key=key_of(Tier.PUBLIC)))
    ],
}


@pytest.mark.parametrize("what", FORGED)
def test_the_cloud_takes_nothing_that_its_stream_did_not_sign(
    tx: Connection, vault: Vault, now: Instant, what: str
) -> None:
    """Numbers that anybody could take up would keep the stream's own segments out."""
    with pytest.raises(SignatureInvalid):
        at_cloud(tx, vault, now, made(0), signatures=FORGED[what](made(0)))
    assert held(tx) == []


def test_what_is_there_already_is_acknowledged_again_and_otherwise_ignored(
    tx: Connection, vault: Vault, now: Instant
) -> None:
    at_edge(tx, vault, now, made(0, 3))
    before = held(tx)
    receipt = at_edge(tx, vault, now, made(0, 3), made(1))
    assert (receipt.segments, receipt.rows, receipt.duplicates) == (0, 0, 2)
    assert receipt.durable == {PUBLIC: RangeSet.of([(0, 2)])}
    assert held(tx) == before


def test_the_same_segment_twice_in_one_message_is_stored_once(tx: Connection, vault: Vault, now: Instant) -> None:
    receipt = at_edge(tx, vault, now, made(4, 2), made(4, 2))
    assert (receipt.segments, receipt.duplicates) == (1, 1)


def test_an_acknowledgement_says_only_what_was_in_the_message(tx: Connection, vault: Vault, now: Instant) -> None:
    at_edge(tx, vault, now, made(0, 5))
    assert at_edge(tx, vault, now, made(7)).durable == {PUBLIC: RangeSet.of([(7, 7)])}
    assert streams.get(tx, [PUBLIC])[PUBLIC].have == RangeSet.of([(0, 4), (7, 7)])


def test_an_empty_message_is_nothing(tx: Connection, vault: Vault, now: Instant) -> None:
    assert at_edge(tx, vault, now).durable == {}


BAD: dict[str, tuple[bytes, type[DatasyncError]]] = {
    "bytes that are no segment": (b"nonsense", SegmentInvalid),
    "half of a segment": (made(50)[:-1], SegmentInvalid),
    "the user's alone": (made(50, tier=Tier.USER_PRIVATE), TierForbidden),
    "another device's stream": (made(50, key=key_of(Tier.PUBLIC, owner=2)), StreamForeign),
    "a stream of another collection": (made(50, collection="other"), SegmentInvalid),
    "a stream of another tier": (made(50, tier=Tier.EDGE_PRIVATE, key=key_of(Tier.PUBLIC)), SegmentInvalid),
    "numbers that overlap stored ones": (made(2, 4), SegmentConflict),
    "numbers that overlap those of the same message": (made(42, 10), SegmentConflict),
}


@pytest.mark.parametrize("what", BAD)
def test_a_message_with_one_that_does_not_fit_leaves_nothing(
    tx: Connection, vault: Vault, now: Instant, what: str
) -> None:
    bad, error = BAD[what]
    at_edge(tx, vault, now, made(0, 3))
    at_edge(tx, vault, now, made(0, key=key_of(Tier.PUBLIC, owner=2)), device=OTHER)
    before = held(tx)
    fresh = made(0, tier=Tier.EDGE_PRIVATE)  # a stream that is new here
    with pytest.raises(error):
        at_edge(tx, vault, now, fresh, made(40, 5), bad)
    assert held(tx) == before


def test_the_cloud_holds_nothing_but_what_is_public(tx: Connection, vault: Vault, now: Instant) -> None:
    blob = made(0, tier=Tier.EDGE_PRIVATE)
    signatures = [signature(blob, key=key_of(Tier.EDGE_PRIVATE))]
    with pytest.raises(TierForbidden):
        at_cloud(tx, vault, now, blob, signatures=signatures)
    assert held(tx) == []


def test_more_streams_than_a_device_may_have_are_refused(tx: Connection, vault: Vault, now: Instant) -> None:
    for number in range(limits.STREAMS_PER_DEVICE_MAX):
        streams.add(tx, Stream(stream_id(number.to_bytes(32)), number.to_bytes(32), WATCH, "steps", Tier.PUBLIC), now)
    with pytest.raises(SegmentInvalid, match="256 streams"):
        at_edge(tx, vault, now, made(0))


def test_more_gaps_than_a_range_set_may_have_are_refused_but_not_what_fills_one(
    tx: Connection, vault: Vault, now: Instant
) -> None:
    at_edge(tx, vault, now, made(0))
    gaps = RangeSet.of((2 * number, 2 * number) for number in range(limits.RANGES_MAX))
    streams.put_have(tx, {PUBLIC: gaps})
    with pytest.raises(SegmentInvalid, match="gaps"):
        at_edge(tx, vault, now, made(2 * limits.RANGES_MAX))
    at_edge(tx, vault, now, made(1))
    assert len(streams.get(tx, [PUBLIC])[PUBLIC].have.ranges) == limits.RANGES_MAX - 1
