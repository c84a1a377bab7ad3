"""Verifying: what checkpoints say of segments, whichever of the two comes first."""

from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.ids import node_name
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place, Tier
from datasync.security.vault import Vault
from datasync.store import checkpoints, segments, streams
from datasync.store.checkpoints import Standing
from datasync.store.segments import Settled
from datasync.sync.receiver import receive
from datasync.sync.verifying import VERIFIED_MAX, Verified, lot, verify
from tests.unit.sync.test_receiver import PRIVATE, PUBLIC, key_of, made, signature

WATCH = node_name("watch-1")


def arrive(tx: Connection, vault: Vault, now: Instant, *blobs: bytes, signatures: tuple[bytes, ...] = ()) -> None:
    receive(tx, vault, Place.EDGE, WATCH, blobs, signatures, now)


def verify_all(tx: Connection) -> Verified:
    """Verify what is verified at one time, and note it."""
    verified = verify(tx, list(lot(checkpoints.in_standing(tx, Standing.PENDING, limit=99))))
    segments.settle(tx, [Settled(each.id, number, False, each.state) for each, number in verified.segments])
    return verified


def signed(tx: Connection) -> list[bool]:
    return [each.checkpoint is not None for each in segments.page(tx, after_id=0, limit=999)]


def test_one_signature_is_over_many_segments(tx: Connection, vault: Vault, now: Instant) -> None:
    blobs = [made(number) for number in range(5)]
    arrive(tx, vault, now, *blobs)
    arrive(tx, vault, now, signatures=(signature(*blobs[:4], key=key_of(Tier.PUBLIC)),))
    verified = verify_all(tx)
    assert sorted(each.seq_first for each, _ in verified.segments) == [0, 1, 2, 3]
    assert verified.numbers == {PUBLIC: RangeSet.of([(0, 3)])}
    assert signed(tx) == [True] * 4 + [False]
    assert streams.get(tx, [PUBLIC])[PUBLIC].signed == RangeSet.of([(0, 3)])


def test_a_signature_that_came_before_some_of_its_segments_counts_when_they_come(
    tx: Connection, vault: Vault, now: Instant
) -> None:
    arrive(tx, vault, now, made(0), signatures=(signature(made(0), made(1), key=key_of(Tier.PUBLIC)),))
    verify_all(tx)
    assert signed(tx) == [True]
    arrive(tx, vault, now, made(1))
    verify_all(tx)
    assert signed(tx) == [True, True]


def test_a_signature_of_nothing_that_is_here_is_not_kept(tx: Connection, vault: Vault, now: Instant) -> None:
    """There could be any number of them; it comes again with its segments."""
    arrive(tx, vault, now, made(0), signatures=(signature(made(7), key=key_of(Tier.PUBLIC)),))
    assert checkpoints.last(tx) == 0


def test_a_forged_signature_signs_nothing_and_is_told_once(tx: Connection, vault: Vault, now: Instant) -> None:
    good = signature(made(0), key=key_of(Tier.PUBLIC))
    arrive(tx, vault, now, made(0), signatures=(good[:-1] + bytes([good[-1] ^ 1]),))
    verified = verify_all(tx)
    assert [(stream, error.code) for stream, error in verified.failures] == [(PUBLIC, "SIGNATURE_INVALID")]
    assert verify_all(tx).failures == []
    assert signed(tx) == [False]
    arrive(tx, vault, now, signatures=(good,))
    verify_all(tx)
    assert signed(tx) == [True]


def test_a_segment_that_is_not_the_one_signed_stays_unsigned(tx: Connection, vault: Vault, now: Instant) -> None:
    """A device whose database was restored captures other rows under numbers that it gave away before."""
    other = made(0, collection="other")
    arrive(tx, vault, now, made(0), signatures=(signature(other, key=key_of(Tier.PUBLIC)),))
    assert [error.code for _, error in verify_all(tx).failures] == ["SEGMENT_CONFLICT"]
    assert signed(tx) == [False]


def test_a_known_signature_that_comes_again_is_acknowledged_again(tx: Connection, vault: Vault, now: Instant) -> None:
    good = signature(made(0), key=key_of(Tier.PUBLIC))
    arrive(tx, vault, now, made(0), signatures=(good,))
    verify_all(tx)
    receipt = receive(tx, vault, Place.EDGE, WATCH, [], [good], now)
    assert receipt.signed == {PUBLIC: RangeSet.of([(0, 0)])}
    assert checkpoints.in_standing(tx, Standing.PENDING, limit=9) == []


def test_a_signature_of_a_stream_that_is_not_here_is_passed_over(tx: Connection, vault: Vault, now: Instant) -> None:
    receipt = receive(tx, vault, Place.EDGE, WATCH, [], [signature(made(0), key=key_of(Tier.PUBLIC))], now)
    assert receipt.signed == {}
    assert checkpoints.last(tx) == 0


def test_so_many_are_verified_at_one_time_but_never_one_layer_of_a_batch_without_the_other(
    tx: Connection, vault: Vault, now: Instant
) -> None:
    layers = (Tier.PUBLIC, Tier.EDGE_PRIVATE)
    arrive(tx, vault, now, made(0), signatures=(signature(made(0), key=key_of(Tier.PUBLIC)),))
    for number in range(1, VERIFIED_MAX):
        blobs = [made(number, tier=tier) for tier in layers]
        signatures = [signature(blob, key=key_of(tier)) for blob, tier in zip(blobs, layers, strict=True)]
        arrive(tx, vault, now, *blobs, signatures=tuple(signatures))
    first = verify_all(tx).numbers
    assert first[PUBLIC].next == first[PRIVATE].next < VERIFIED_MAX
    for _ in range(2):
        verify_all(tx)
    assert all(signed(tx))
