"""The contract of ageing, on SQLite and on PostgreSQL: what is old, and what is waited for."""

from collections.abc import Sequence

import pytest

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.store import ageing, segments, streams
from datasync.store.ageing import Aged, Size
from datasync.store.database import Database
from datasync.store.segments import NewSegment, State
from tests.contract.conftest import MakeSegment, MakeStream

A, B, C = (StreamId(letter * 32) for letter in "abc")
"""The edge-private and the public layer of one device, and a stream of another."""


def at(ms: int) -> HybridTime:
    return HybridTime(ms, 7)


def store(database: Database, make: MakeStream, now: Instant, *held: NewSegment) -> None:
    """Store segments of the three streams."""
    with database.write() as tx:
        streams.add(tx, make(A), now)
        streams.add(tx, make(B, tier=Tier.PUBLIC), now)
        streams.add(tx, make(C, device="watch-2"), now)
        segments.append(tx, held)


def old(database: Database, before_ms: int, after: Aged | None = None, limit: int = 9) -> list[Aged]:
    with database.read() as tx:
        return ageing.captured_before(tx, "trips", HybridTime(before_ms, 0), after=after, limit=limit)


def names(found: Sequence[Aged], chosen: set[int] | None = None) -> list[tuple[str, int]]:
    return [(each.stream[0], each.seq_first) for each in found if chosen is None or each.id in chosen]


@pytest.fixture
def held(database: Database, new_segment: MakeSegment, new_stream: MakeStream, now: Instant) -> Database:
    """Two batches of one device, of the second of which the public layer is owed; and an old segment of another."""
    store(
        database,
        new_stream,
        now,
        new_segment(A, 10, captured=at(20), state=State.LOCAL),
        new_segment(B, 10, captured=at(20), state=State.WAITING),
        new_segment(A, 0, captured=at(10), state=State.LOCAL),
        new_segment(B, 0, captured=at(10), state=State.SAFE),
        new_segment(C, 0, captured=at(5), state=State.LOCAL),
        new_segment(C, 10, captured=at(30), state=State.LOCAL, collection="other"),
    )
    return database


def test_old_segments_come_in_the_order_of_capture_and_only_those_captured_before(held: Database) -> None:
    assert names(old(held, 20)) == [("c", 0), ("a", 0), ("b", 0)]
    assert names(old(held, 21)) == [("c", 0), ("a", 0), ("b", 0), ("a", 10), ("b", 10)]
    assert old(held, 5) == []
    first = old(held, 6)[0]
    assert (first.device, first.rows, first.captured) == ("watch-2", 10, at(5))


def test_pages_follow_one_another_also_in_the_middle_of_a_batch(held: Database) -> None:
    pages: list[list[Aged]] = [old(held, 99, limit=2)]
    while pages[-1]:
        pages.append(old(held, 99, after=pages[-1][-1], limit=2))
    assert [names(page) for page in pages] == [[("c", 0), ("a", 0)], [("b", 0), ("a", 10)], [("b", 10)], []]


def free(database: Database, aged: Sequence[Aged]) -> list[tuple[str, int]]:
    with database.read() as tx:
        return sorted(names(ageing.whole_batches(tx, aged)))


def test_a_batch_is_owed_while_one_of_its_layers_is(held: Database) -> None:
    assert free(held, old(held, 99)) == [("a", 0), ("b", 0), ("c", 0)]
    assert free(held, []) == []


def test_a_page_that_ends_within_a_batch_gives_the_whole_of_it(held: Database) -> None:
    page = old(held, 99, limit=2)
    assert names(page) == [("c", 0), ("a", 0)]
    assert free(held, page) == [("a", 0), ("b", 0), ("c", 0)]
    assert free(held, old(held, 99, after=page[-1], limit=2)) == [("a", 0), ("b", 0)]


def test_what_the_edge_has_and_the_cloud_has_not_is_owed(
    database: Database, new_segment: MakeSegment, new_stream: MakeStream, now: Instant
) -> None:
    store(database, new_stream, now, new_segment(C, 0, state=State.DURABLE), new_segment(C, 10, state=State.SAFE))
    assert free(database, old(database, 1 << 45)) == [("c", 10)]


def test_where_devices_are_not_known_a_stream_is_by_itself(
    database: Database, new_segment: MakeSegment, new_stream: MakeStream, now: Instant
) -> None:
    with database.write() as tx:
        for stream in (A, B):
            streams.add(tx, new_stream(stream, device=None), now)
        held = [new_segment(A, 0, state=State.WAITING), new_segment(B, 0, state=State.LOCAL)]
        segments.append(tx, held)
    found = old(database, 1 << 45)
    assert free(database, found) == [("b", 0)]
    with database.read() as tx:
        assert ageing.owed_streams(tx, [A, B]) == {A}
        assert ageing.layers(tx, B) == [B]


def test_anything_owed_of_one_layer_is_owed_of_all_layers_of_the_stream(held: Database) -> None:
    with held.read() as tx:
        assert ageing.owed_streams(tx, [A, B, C]) == {A, B}
        assert ageing.owed_streams(tx, [C]) == set()
        assert sorted(ageing.layers(tx, A)) == [A, B]


def test_a_stream_lives_by_its_last_segment_or_that_of_another_layer(
    database: Database, new_segment: MakeSegment, new_stream: MakeStream, now: Instant
) -> None:
    store(
        database,
        new_stream,
        now,
        new_segment(A, 0, captured=at(10)),
        new_segment(B, 0, captured=at(10)),
        new_segment(B, 10, captured=at(20)),
        new_segment(C, 0, captured=at(10)),
    )
    found = old(database, 15)
    with database.read() as tx:
        assert names(found, ageing.living(tx, found, HybridTime(20, 0))) == [("a", 0), ("b", 0)]
        assert names(found, ageing.living(tx, found, HybridTime(21, 0))) == []


def test_what_is_deleted_is_gone_with_its_body_and_its_stream_remembers_it(held: Database) -> None:
    gone = old(held, 20)
    with held.read() as tx:
        before = streams.get(tx, [A, B, C])
        assert ageing.size(tx, [A, B]) == Size(4, 40)
        assert ageing.size(tx, []) == Size(0, 0)
    with held.write() as tx:
        ageing.delete(tx, gone)
    with held.read() as tx:
        assert segments.bodies(tx, [each.id for each in gone]) == {}
        assert [each.seq_first for each in segments.of_stream(tx, A)] == [10]
        assert streams.get(tx, [A, B, C]) == before


def test_a_stream_is_read_by_number_whatever_its_age(held: Database) -> None:
    with held.read() as tx:
        assert names(ageing.of_stream(tx, A, after_seq=-1, limit=1)) == [("a", 0)]
        assert names(ageing.of_stream(tx, A, after_seq=0, limit=9)) == [("a", 10)]
