"""The contract of claims, on SQLite and on PostgreSQL: all that is claimed is checked, and nothing is written."""

import dataclasses

import pytest

from datasync.domain import limits
from datasync.domain.clock import Instant
from datasync.domain.errors import SegmentConflict, SegmentInvalid, StreamForeign, TierForbidden
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place, Tier
from datasync.store import streams
from datasync.store.claims import claim, is_known
from datasync.store.database import Database
from datasync.store.streams import Stream
from tests.contract.conftest import MakeStream

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def test_what_nobody_has_is_new_and_what_is_here_comes_back_as_it_is(
    database: Database, new_stream: MakeStream, now: Instant
) -> None:
    here = new_stream(A, have=RangeSet.of([(0, 9)]))
    with database.write() as tx:
        streams.add(tx, here, now)
        known: dict[StreamId, Stream] = {}
        assert claim(tx, Place.EDGE, [new_stream(A), new_stream(B), new_stream(B)], known) == [new_stream(B)]
        assert known == {StreamId(A): here, StreamId(B): new_stream(B)}
        assert list(streams.get(tx, [StreamId(A), StreamId(B)])) == [StreamId(A)]


def test_what_is_known_is_not_looked_up_again(database: Database, new_stream: MakeStream) -> None:
    here = new_stream(A, have=RangeSet.of([(0, 9)]))
    known = {here.stream: here}
    with database.read() as tx:
        assert claim(tx, Place.EDGE, [new_stream(A)], known) == []
    assert known == {here.stream: here}


def test_who_claims_anothers_stream_or_changes_what_it_carries_is_refused(
    database: Database, new_stream: MakeStream, now: Instant
) -> None:
    with database.write() as tx:
        streams.add(tx, new_stream(A), now)
        for thief in ("watch-2", None):
            with pytest.raises(StreamForeign):
                claim(tx, Place.EDGE, [new_stream(C), new_stream(A, device=thief)], {})
        with pytest.raises(SegmentInvalid, match="carries trips"):
            claim(tx, Place.EDGE, [new_stream(A, collection="other")], {})
        with pytest.raises(SegmentInvalid, match="edge-private"):
            claim(tx, Place.EDGE, [new_stream(A, tier=Tier.PUBLIC)], {})
        assert list(streams.get(tx, [StreamId(A), StreamId(C)])) == [StreamId(A)]


def test_two_claims_in_one_message_that_contradict_are_refused(database: Database, new_stream: MakeStream) -> None:
    with database.read() as tx, pytest.raises(SegmentInvalid):
        claim(tx, Place.EDGE, [new_stream(A), new_stream(A, collection="other")], {})


@pytest.mark.parametrize(("place", "tier"), [(Place.EDGE, Tier.USER_PRIVATE), (Place.CLOUD, Tier.EDGE_PRIVATE)])
def test_a_tier_above_the_place_is_refused(
    database: Database, new_stream: MakeStream, place: Place, tier: Tier
) -> None:
    with database.read() as tx, pytest.raises(TierForbidden, match=place):
        claim(tx, place, [new_stream(A, tier=tier)], {})


def test_a_device_has_so_many_streams_and_the_cloud_counts_none(database: Database, new_stream: MakeStream) -> None:
    full = {StreamId(f"{n:032x}"): new_stream(f"{n:032x}") for n in range(limits.STREAMS_PER_DEVICE_MAX)}
    with database.read() as tx:
        with pytest.raises(SegmentInvalid, match="256"):
            claim(tx, Place.EDGE, [new_stream(A)], dict(full))
        nobodys = new_stream(A, device=None, tier=Tier.PUBLIC)
        assert claim(tx, Place.CLOUD, [nobodys], {k: dataclasses.replace(v, device=None) for k, v in full.items()})


def test_numbers_are_all_known_or_all_new() -> None:
    have = RangeSet.of([(10, 19), (30, 39)])
    stream = StreamId(A)
    assert is_known(have, 10, 19, stream)
    assert is_known(have, 12, 12, stream)
    assert not is_known(have, 0, 9, stream)
    assert not is_known(have, 20, 29, stream)
    assert not is_known(RangeSet(), 0, 0, stream)
    for first, last in ((9, 10), (19, 20), (0, 99), (15, 35)):
        with pytest.raises(SegmentConflict, match=f"{first}..{last}"):
            is_known(have, first, last, stream)


def test_gaps_are_limited_and_what_touches_a_range_makes_none() -> None:
    full = RangeSet.of((3 * n, 3 * n) for n in range(limits.RANGES_MAX))
    stream, last = StreamId(A), 3 * (limits.RANGES_MAX - 1)
    assert not is_known(full, last + 1, last + 5, stream)
    assert not is_known(full, 2, 2, stream)
    with pytest.raises(SegmentInvalid, match="gaps"):
        is_known(full, last + 2, last + 5, stream)
    assert not is_known(RangeSet(full.ranges[1:]), last + 2, last + 5, stream)
