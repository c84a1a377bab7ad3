"""Signing: one signature over many segments, all layers of a collection together."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import stream_id
from datasync.domain.limits import CHECKPOINT_SEGMENTS_MAX
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.protocol import checkpoint
from datasync.store import checkpoints, segments, streams
from datasync.store.checkpoints import Standing
from datasync.store.segments import NewSegment, State
from datasync.store.streams import Stream
from datasync.sync.signing import sign


def key_of(collection: str, tier: Tier, generation: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([tier, generation]) * 16)


def captured(tx: Connection, now: Instant, count: int) -> list[Stream]:
    """Put the layers of so many batches of one row into the store."""
    for tier in (Tier.PUBLIC, Tier.EDGE_PRIVATE):
        public_key = key_of("steps", tier, 0).public_key().public_bytes_raw()
        stream = stream_id(public_key)
        have = RangeSet.of([(0, count - 1)])
        streams.add(tx, Stream(stream, public_key, "watch-1", "steps", tier, have=have), now)
        segments.append(tx, [_segment(stream, tier, number) for number in range(count)])
    return streams.of_device(tx, "watch-1")


def _segment(stream: str, tier: Tier, number: int) -> NewSegment:
    return NewSegment(
        stream=stream,
        collection="steps",
        tier=tier,
        seq_first=number,
        seq_last=number,
        rows=1,
        bytes=1,
        captured=HybridTime(number, 0),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest="d" * 64,
        meta={},
        hash=f"{number:064x}",
        key_id="k" * 32,
        state=State.WAITING,
        body=b"x",
        visible=True,
    )


@pytest.mark.parametrize("count", [1, 3, CHECKPOINT_SEGMENTS_MAX, 2 * CHECKPOINT_SEGMENTS_MAX + 1])
def test_every_segment_is_signed_once_and_by_as_few_signatures_as_may_be(
    tx: Connection, now: Instant, count: int
) -> None:
    made = sign(tx, captured(tx, now, count), key_of, lambda _: Standing.OWED)
    assert len(made) == 2 * -(-count // CHECKPOINT_SEGMENTS_MAX)
    for each in made:
        parsed = checkpoint.parse(each.data)
        checkpoint.verify(parsed)
        assert [entry.hash for entry in parsed.entries] == [segment.hash for segment in each.segments]
    of = {segment.id: each.id for each in made for segment in each.segments}
    assert {each.id: each.checkpoint for each in segments.page(tx, after_id=0, limit=999)} == of
    assert [each.id for each in checkpoints.in_standing(tx, Standing.OWED, limit=99)] == [each.id for each in made]


def test_the_layers_of_the_same_batches_follow_one_another(tx: Connection, now: Instant) -> None:
    made = sign(tx, captured(tx, now, 2 * CHECKPOINT_SEGMENTS_MAX), key_of, lambda _: Standing.OWED)
    assert [(each.segments[0].seq_first, int(each.segments[0].tier)) for each in made] == [
        (first, tier) for first in (0, CHECKPOINT_SEGMENTS_MAX) for tier in (0, 1)
    ]


def test_what_is_signed_is_not_signed_again(tx: Connection, now: Instant) -> None:
    sign(tx, captured(tx, now, 2), key_of, lambda _: Standing.OWED)
    assert sign(tx, streams.of_device(tx, "watch-1"), key_of, lambda _: Standing.OWED) == []
