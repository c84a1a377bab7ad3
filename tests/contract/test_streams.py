"""The contract of stored streams, registers and counters, on SQLite and on PostgreSQL."""

from typing import Any

import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import StoreError
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.store import counters, registers, streams
from datasync.store.database import Database

A, B, C = (StreamId(letter * 32) for letter in "abc")


def test_a_stream_comes_back_with_every_field(database: Database, new_stream: Any, now: Instant) -> None:
    gaps = RangeSet.of([(0, 0), (5, 1 << 52)])
    stream = new_stream(A, device=None, tier=Tier.PUBLIC, generation=3, have=gaps, safe=RangeSet.of([(7, 7)]))
    with database.write() as tx:
        streams.add(tx, stream, now)
    with database.read() as tx:
        assert streams.get(tx, [A, B]) == {A: stream}
        assert streams.get(tx, []) == {}


def test_a_stream_cannot_be_added_twice(database: Database, new_stream: Any, now: Instant) -> None:
    with database.write() as tx:
        streams.add(tx, new_stream(A), now)
    with pytest.raises(StoreError), database.write() as tx:
        streams.add(tx, new_stream(A, device="thief"), now)
    with database.read() as tx:
        assert streams.get(tx, [A])[A].device == "watch-1"


def test_the_streams_of_a_device_come_by_collection_tier_and_generation(
    database: Database, new_stream: Any, now: Instant
) -> None:
    wanted = [
        new_stream(C, collection="health"),
        new_stream(B, tier=Tier.PUBLIC),
        new_stream(A, generation=0),
        new_stream(StreamId("0" * 32), generation=1),
    ]
    with database.write() as tx:
        for stream in [*reversed(wanted), new_stream(StreamId("e" * 32), device="watch-2")]:
            streams.add(tx, stream, now)
        assert streams.of_device(tx, "watch-1") == wanted
        assert streams.of_device(tx, "watch-3") == []


def test_the_range_sets_of_many_streams_are_replaced_at_once(database: Database, new_stream: Any, now: Instant) -> None:
    one, two = RangeSet.of([(0, 9)]), RangeSet.of([(0, 4), (8, 9)])
    with database.write() as tx:
        for stream in (new_stream(A), new_stream(B, safe=one), new_stream(C, have=one)):
            streams.add(tx, stream, now)
        streams.put_have(tx, {A: one, B: two})
        streams.put_safe(tx, {A: two})
        streams.put_safe(tx, {})
        found = streams.get(tx, [A, B, C])
    assert {key: (stream.have, stream.safe) for key, stream in found.items()} == {
        A: (one, two),
        B: (two, one),
        C: (one, RangeSet()),
    }


def test_deleted_streams_are_gone_and_others_are_not(database: Database, new_stream: Any, now: Instant) -> None:
    with database.write() as tx:
        for stream in (new_stream(A), new_stream(B)):
            streams.add(tx, stream, now)
        streams.delete(tx, [A, C])
        assert list(streams.get(tx, [A, B])) == [B]


@pytest.mark.parametrize("value", [None, 0, 1 << 62, "ü\n'\"", [1, [2]], {"a": {"b": None}}, True, 0.1])
def test_a_register_keeps_any_json_value(database: Database, value: Any) -> None:
    with database.write() as tx:
        registers.put(tx, "clock", "before")
        registers.put(tx, "clock", value)
        registers.put(tx, "other", 1)
    with database.read() as tx:
        assert registers.get(tx, "clock", "default") == value
        assert registers.get(tx, "missing") is None
        assert registers.get(tx, "missing", 7) == 7


@pytest.mark.parametrize("value", [float("nan"), b"bytes", {1, 2}])
def test_a_register_refuses_what_json_cannot_say(database: Database, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)), database.write() as tx:
        registers.put(tx, "clock", value)
    with database.read() as tx:
        assert registers.get(tx, "clock") is None


def test_counters_start_at_one_and_never_give_a_number_twice(database: Database) -> None:
    with database.write() as tx:
        assert counters.last(tx, "rows") == 0
        assert counters.take(tx, "rows", 1) == 1
        assert counters.take(tx, "rows", 10) == 2
        assert counters.take(tx, "other", 5) == 1
    with database.write() as tx:
        assert counters.take(tx, "rows", 1) == 12
        assert counters.last(tx, "rows") == 12
        assert counters.last(tx, "other") == 5
