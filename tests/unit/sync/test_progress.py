"""How far a device's segments are, by what edges say."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import StreamId, stream_id
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.protocol import checkpoint
from datasync.protocol.checkpoint import Entry
from datasync.store import checkpoints, segments, streams
from datasync.store.checkpoints import Standing
from datasync.store.segments import NewSegment, State
from datasync.store.streams import Stream
from datasync.sync import progress

PUBLIC_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
PUBLIC, PRIVATE = stream_id(PUBLIC_KEY), StreamId("b" * 32)
W, D, S = State.WAITING, State.DURABLE, State.SAFE


@pytest.fixture
def six(tx: Connection, now: Instant) -> Connection:
    """A store with six segments of one row in each of two streams, all waiting."""
    for stream, tier in ((PUBLIC, Tier.PUBLIC), (PRIVATE, Tier.EDGE_PRIVATE)):
        have = RangeSet.of([(0, 5)])
        streams.add(tx, Stream(stream, stream.encode(), "watch-1", "steps", tier, have=have), now)
        segments.append(tx, [waiting(stream, tier, number) for number in range(6)])
    return tx


def waiting(stream: StreamId, tier: Tier, number: int) -> NewSegment:
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
        hash="e" * 64,
        key_id="k" * 32,
        state=State.WAITING,
        body=b"x",
        visible=True,
    )


def states(tx: Connection, stream: StreamId) -> list[State]:
    return [each.state for each in segments.of_stream(tx, stream)]


def safe(tx: Connection, stream: StreamId) -> RangeSet:
    return streams.get(tx, [stream])[stream].safe


def of(*pairs: tuple[int, int]) -> RangeSet:
    return RangeSet.of(pairs)


def test_what_is_private_to_edges_is_safe_at_the_edge_and_what_is_public_only_durable(six: Connection) -> None:
    progress.acknowledge(six, {PUBLIC: of((0, 2)), PRIVATE: of((0, 2))}, {}, {})
    assert states(six, PUBLIC) == [D, D, D, W, W, W]
    assert states(six, PRIVATE) == [S, S, S, W, W, W]
    assert (safe(six, PUBLIC), safe(six, PRIVATE)) == (of(), of((0, 2)))


def test_what_is_public_is_safe_when_the_edge_says_that_the_cloud_has_it(six: Connection) -> None:
    progress.acknowledge(six, {PUBLIC: of((0, 3))}, {PUBLIC: of((0, 1))}, {})
    progress.acknowledge(six, {}, {PUBLIC: of((2, 2), (5, 5))}, {})
    assert states(six, PUBLIC) == [S, S, S, D, W, S]
    assert safe(six, PUBLIC) == of((0, 2), (5, 5))


def test_a_late_acknowledgement_takes_nothing_back(six: Connection) -> None:
    progress.acknowledge(six, {}, {PUBLIC: of((0, 5))}, {})
    progress.acknowledge(six, {PUBLIC: of((0, 5))}, {}, {})
    assert states(six, PUBLIC) == [S] * 6


def test_what_was_never_captured_is_not_safe_when_it_will_be(six: Connection) -> None:
    """An edge that claims numbers to come could otherwise keep them from ever being sent again."""
    progress.acknowledge(six, {PRIVATE: of((0, 900))}, {PUBLIC: of((4, 900))}, {})
    assert (safe(six, PUBLIC), safe(six, PRIVATE)) == (of((4, 5)), of((0, 5)))
    here = streams.get(six, [PUBLIC])[PUBLIC]
    progress.resume(six, here, of((0, 900)), of((0, 900)), of())
    assert safe(six, PUBLIC) == of((0, 5))


def test_streams_that_are_not_here_are_passed_over(six: Connection) -> None:
    strange = StreamId("9" * 32)
    progress.acknowledge(six, {strange: of((0, 1))}, {strange: of((0, 1))}, {})
    assert states(six, PUBLIC) == [W] * 6


def test_exactly_what_the_next_edge_lacks_waits_again(six: Connection) -> None:
    progress.acknowledge(six, {PUBLIC: of((0, 5))}, {PUBLIC: of((0, 0))}, {})
    assert states(six, PUBLIC) == [S, D, D, D, D, D]
    progress.resume(six, streams.get(six, [PUBLIC])[PUBLIC], of((0, 0), (2, 3)), of((5, 5)), of())
    assert states(six, PUBLIC) == [S, W, D, D, W, S]
    assert safe(six, PUBLIC) == of((0, 0), (5, 5))


def test_what_the_next_edge_has_need_not_be_sent(six: Connection) -> None:
    for stream in (PUBLIC, PRIVATE):
        progress.resume(six, streams.get(six, [stream])[stream], of((0, 1)), of(), of())
    assert states(six, PUBLIC) == [D, D, W, W, W, W]
    assert states(six, PRIVATE) == [S, S, W, W, W, W]


def owed(tx: Connection) -> list[int]:
    return [each.seq_first for each in checkpoints.in_standing(tx, Standing.OWED, limit=9)]


@pytest.fixture
def signed(six: Connection) -> Connection:
    """The same, with two checkpoints of the public stream that nobody has yet, each of three segments."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    for first in (0, 3):
        entries = [Entry(number, number, "e" * 64) for number in range(first, first + 3)]
        checkpoints.add(six, [checkpoint.sign(entries, key)], Standing.OWED)
    streams.put_signed(six, {PUBLIC: of((0, 5))})
    return six


def test_a_checkpoint_is_owed_until_all_that_it_signs_was_verified(signed: Connection) -> None:
    progress.acknowledge(signed, {}, {}, {PUBLIC: of((0, 4))})
    assert owed(signed) == [3]
    progress.acknowledge(signed, {}, {}, {PUBLIC: of((0, 5))})
    assert owed(signed) == []


def test_a_checkpoint_of_what_the_next_edge_has_unsigned_is_owed_again(signed: Connection) -> None:
    progress.acknowledge(signed, {}, {}, {PUBLIC: of((0, 5))})
    here = streams.get(signed, [PUBLIC])[PUBLIC]
    progress.resume(signed, here, of((0, 5)), of(), of((0, 2)))
    assert owed(signed) == [3]


def test_what_is_safe_stays_safe_though_the_next_edge_lacks_it(six: Connection) -> None:
    progress.acknowledge(six, {PRIVATE: of((0, 5))}, {}, {})
    progress.resume(six, streams.get(six, [PRIVATE])[PRIVATE], of(), of(), of())
    assert states(six, PRIVATE) == [S] * 6
