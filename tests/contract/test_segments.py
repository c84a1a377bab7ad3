"""The contract of stored segments, on SQLite and on PostgreSQL."""

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import StoreError
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.store import segments, streams, tables
from datasync.store.database import Database
from datasync.store.segments import Count, State, StoredSegment

A, B, C = (StreamId(letter * 32) for letter in "abc")
TRIPS = ("trips", Tier.EDGE_PRIVATE)


def firsts(found: list[StoredSegment]) -> list[int]:
    return [segment.seq_first for segment in found]


def test_a_stored_segment_comes_back_with_every_field(database: Database, new_segment: Any) -> None:
    segment = new_segment(A, 7, time_min_ms=None, time_max_ms=9, state=State.LOCAL, checkpoint=3)
    with database.write() as tx:
        segments.append(tx, [segment])
    with database.read() as tx:
        (stored,) = segments.of_stream(tx, A)
        bodies = segments.bodies(tx, [stored.id])
    expected = dataclasses.asdict(segment)
    assert bodies == {stored.id: expected.pop("body")}
    assert expected.pop("visible")
    found = dataclasses.asdict(stored)
    assert found.pop("id") == found.pop("position") == 1
    assert found == expected
    assert type(stored.tier) is Tier
    assert type(stored.state) is State


def test_the_largest_numbers_that_the_limits_allow_are_kept_exactly(database: Database, new_segment: Any) -> None:
    late = HybridTime((1 << 47) - 1, 0xFFFF)
    with database.write() as tx:
        segments.append(tx, [new_segment(A, (1 << 53) - 10, captured=late, time_max_ms=(1 << 62))])
    with database.read() as tx:
        (stored,) = segments.of_stream(tx, A)
    assert (stored.seq_last, stored.captured, stored.time_max_ms) == ((1 << 53) - 1, late, 1 << 62)


def test_nothing_appended_changes_nothing(database: Database) -> None:
    with database.write() as tx:
        segments.append(tx, [])
        assert segments.counts(tx) == []


def test_a_stream_cannot_have_two_segments_from_one_sequence_number(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 0)])
    with pytest.raises(StoreError, match=r"(?i)unique"), database.write() as tx:
        segments.append(tx, [new_segment(A, 10), new_segment(A, 0)])
    with database.read() as tx:
        assert firsts(segments.of_stream(tx, A)) == [0]


def test_visible_segments_are_read_in_the_order_of_appending_and_resumed_after_a_cursor(
    database: Database, new_segment: Any
) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(B, 50), new_segment(A, 0), new_segment(A, 10)])
        segments.append(tx, [new_segment(B, 0)])
    with database.read() as tx:
        page = segments.visible(tx, *TRIPS, after=0, limit=3)
        rest = segments.visible(tx, *TRIPS, after=page[-1].position or 0, limit=3)
    assert [(s.stream, s.seq_first) for s in page] == [(B, 50), (A, 0), (A, 10)]
    assert [(s.stream, s.seq_first) for s in rest] == [(B, 0)]


def test_visible_shows_only_the_layer_asked_for_and_what_the_extra_conditions_allow(
    database: Database, new_segment: Any
) -> None:
    with database.write() as tx:
        segments.append(
            tx,
            [
                new_segment(A, 0, policy_digest="1" * 64),
                new_segment(A, 10),
                new_segment(B, 0, tier=Tier.PUBLIC),
                new_segment(C, 0, collection="watch"),
                new_segment(A, 20, visible=False),
            ],
        )
        shown = segments.visible(tx, *TRIPS, after=0, limit=9)
        narrowed = segments.visible(tx, *TRIPS, after=0, limit=9, extra=[tables.segments.c.policy_digest != "1" * 64])
    assert firsts(shown) == [0, 10]
    assert firsts(narrowed) == [10]


def test_hidden_segments_are_revealed_in_the_order_of_capture_behind_what_was_visible(
    database: Database, new_segment: Any
) -> None:
    def at(ms: int) -> HybridTime:
        return HybridTime(ms, 0)

    with database.write() as tx:
        segments.append(tx, [new_segment(A, 20, captured=at(3), visible=False)])
        segments.append(tx, [new_segment(A, 0, captured=at(1), visible=False)])
        segments.append(tx, [new_segment(C, 0, captured=at(1))])
        segments.append(tx, [new_segment(A, 10, captured=at(2), visible=False), new_segment(B, 10, captured=at(0))])
        before = segments.visible(tx, *TRIPS, after=0, limit=9)
        assert segments.reveal(tx, [A]) == 3
        assert segments.reveal(tx, [A]) == 0
        after = segments.visible(tx, *TRIPS, after=before[-1].position or 0, limit=9)
    assert [(s.stream, s.seq_first) for s in before] == [(C, 0), (B, 10)]
    assert [(s.stream, s.seq_first) for s in after] == [(A, 0), (A, 10), (A, 20)]


def test_layers_of_one_batch_are_revealed_from_the_lowest_tier_up(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 0, visible=False), new_segment(B, 0, tier=Tier.PUBLIC, visible=False)])
        segments.reveal(tx, [A, B])
        (private,), (public,) = segments.of_stream(tx, A), segments.of_stream(tx, B)
    assert public.position is not None
    assert private.position == public.position + 1


def test_streams_are_revealed_in_the_order_of_capture_whatever_their_numbers(
    database: Database, new_segment: Any
) -> None:
    late, early = HybridTime(9, 0), HybridTime(8, 0)
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 0, captured=late, visible=False)])
        segments.append(tx, [new_segment(B, 50, captured=early, visible=False)])
        segments.reveal(tx, [A, B])
        shown = segments.visible(tx, *TRIPS, after=0, limit=9)
    assert [s.stream for s in shown] == [B, A]


def test_concealed_segments_are_in_no_view_until_they_are_revealed_again(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 0), new_segment(B, 0), new_segment(A, 10)])
        last = segments.visible(tx, *TRIPS, after=0, limit=9)[-1].position or 0
        assert segments.conceal(tx, [A]) == 2
        assert segments.conceal(tx, [A]) == 0
        concealed = segments.visible(tx, *TRIPS, after=0, limit=9)
        segments.reveal(tx, [A])
        again = segments.visible(tx, *TRIPS, after=last, limit=9)
    assert [s.stream for s in concealed] == [B]
    assert firsts(again) == [0, 10], "a reader that had seen them is past their old positions, not their new ones"


def test_no_id_or_position_comes_back_after_the_segment_that_had_it_is_deleted(
    database: Database, new_segment: Any
) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 0), new_segment(B, 0)])
        (deleted,) = segments.of_stream(tx, B)
        assert segments.delete(tx, [B]) == 1
    with database.write() as tx:
        segments.append(tx, [new_segment(C, 0)])
        seen = segments.visible(tx, *TRIPS, after=deleted.position or 0, limit=9)
        sent = segments.waiting(tx, after_id=deleted.id, limit=9)
    assert [s.stream for s in seen] == [s.stream for s in sent] == [C]


def test_waiting_segments_come_oldest_first_or_newest_first_and_page_by_id(
    database: Database, new_segment: Any
) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 10 * n) for n in range(5)])
        segments.append(tx, [new_segment(B, 0, state=State.LOCAL), new_segment(B, 10, state=State.SAFE)])
        page = segments.waiting(tx, after_id=0, limit=3)
        rest = segments.waiting(tx, after_id=page[-1].id, limit=3)
        newest = segments.waiting(tx, after_id=page[0].id, limit=3, newest=True)
    assert firsts(page) == [0, 10, 20]
    assert firsts(rest) == [30, 40]
    assert firsts(newest) == [40, 30, 20]


def test_marking_moves_only_segments_wholly_inside_a_range_and_in_a_state_to_move_from(
    database: Database, new_segment: Any
) -> None:
    acked = RangeSet.of([(0, 14), (30, 39), (50, 59)])
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 10 * n) for n in range(5)])
        segments.append(tx, [new_segment(A, 50, state=State.LOCAL), new_segment(B, 0)])
        moved = segments.mark(tx, A, acked, State.DURABLE, from_states=[State.WAITING])
        again = segments.mark(tx, A, acked, State.SAFE, from_states=[State.WAITING, State.DURABLE])
        states = {s.seq_first: s.state for s in segments.of_stream(tx, A)}
        (other,) = segments.of_stream(tx, B)
        assert segments.mark(tx, A, RangeSet(), State.SAFE, from_states=State) == 0
    assert (moved, again) == (2, 2)
    left = {10: State.WAITING, 20: State.WAITING, 40: State.WAITING, 50: State.LOCAL}
    assert states == {0: State.SAFE, 30: State.SAFE} | left
    assert other.state is State.WAITING


def test_the_segments_of_a_stream_come_by_sequence_number_and_narrow_to_ranges(
    database: Database, new_segment: Any
) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 10 * n) for n in (3, 0, 1, 2)])
        assert firsts(segments.of_stream(tx, A)) == [0, 10, 20, 30]
        assert firsts(segments.of_stream(tx, A, RangeSet.of([(9, 10), (39, 80)]))) == [0, 10, 30]
        assert segments.of_stream(tx, A, RangeSet()) == []
        assert segments.of_stream(tx, B) == []


def test_partners_are_the_visible_layers_of_the_same_batch_of_the_same_device(
    database: Database, new_segment: Any, new_stream: Any, now: Instant
) -> None:
    stranger, generation = StreamId("e" * 32), StreamId("f" * 32)
    with database.write() as tx:
        for stream in (
            new_stream(A),
            new_stream(B, tier=Tier.PUBLIC),
            new_stream(C, collection="watch", tier=Tier.PUBLIC),
            new_stream(stranger, device="watch-2", tier=Tier.PUBLIC),
            new_stream(generation, tier=Tier.PUBLIC, generation=1),
        ):
            streams.add(tx, stream, now)
        public = {"tier": Tier.PUBLIC}
        segments.append(tx, [new_segment(A, 0), new_segment(A, 10), new_segment(A, 20), new_segment(A, 30)])
        segments.append(tx, [new_segment(B, 0, **public), new_segment(B, 10, visible=False, **public)])
        segments.append(tx, [new_segment(C, 0, collection="watch", **public), new_segment(stranger, 0, **public)])
        segments.append(tx, [new_segment(generation, 20, **public), new_segment(B, 30, seq_last=31, **public)])
        base = segments.visible(tx, *TRIPS, after=0, limit=9)
        found = segments.partners(tx, base, [Tier.PUBLIC])
        none = segments.partners(tx, base, [Tier.USER_PRIVATE])
    first, second, third, fourth = (segment.id for segment in base)
    assert {tier: s.stream for tier, s in found[first].items()} == {Tier.PUBLIC: B}
    assert found[second] == {}, "a partner without a position is not to be seen"
    assert {tier: s.stream for tier, s in found[third].items()} == {Tier.PUBLIC: generation}
    assert found[fourth] == {}, "other sequence numbers are another batch"
    assert none == {segment.id: {} for segment in base}


def test_a_stream_of_no_known_device_has_no_partners(
    database: Database, new_segment: Any, new_stream: Any, now: Instant
) -> None:
    with database.write() as tx:
        streams.add(tx, new_stream(A, device=None), now)
        streams.add(tx, new_stream(B, device=None, tier=Tier.PUBLIC), now)
        segments.append(tx, [new_segment(A, 0), new_segment(B, 0, tier=Tier.PUBLIC)])
        (base,) = segments.of_stream(tx, A)
        assert segments.partners(tx, [base], [Tier.PUBLIC]) == {base.id: {}}
        assert segments.partners(tx, [], [Tier.PUBLIC]) == {}


def test_deleting_streams_deletes_their_bodies_too_and_nothing_else(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 0), new_segment(B, 0), new_segment(A, 10)])
        ids = [s.id for s in segments.of_stream(tx, A)]
        (kept,) = segments.of_stream(tx, B)
        assert segments.delete(tx, [A, C]) == 2
        assert segments.bodies(tx, [*ids, kept.id]) == {kept.id: new_segment(B, 0).body}
        assert list(tx.scalars(select(tables.bodies.c.id))) == [kept.id]


def test_counts_add_up_by_collection_and_tier(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, 0, rows=3, bytes=100), new_segment(A, 10, rows=4, bytes=50, visible=False)])
        segments.append(tx, [new_segment(B, 0, tier=Tier.PUBLIC, bytes=7), new_segment(C, 0, collection="a", bytes=1)])
    with database.read() as tx:
        assert segments.counts(tx) == [
            Count("a", Tier.EDGE_PRIVATE, 1, 10, 1),
            Count("trips", Tier.PUBLIC, 1, 10, 7),
            Count("trips", Tier.EDGE_PRIVATE, 2, 7, 150),
        ]


def test_segments_are_counted_by_state(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        assert segments.count(tx, [State.WAITING]) == 0
        segments.append(tx, [new_segment(A, 0), new_segment(A, 10), new_segment(B, 0, state=State.SAFE)])
        assert segments.count(tx, [State.WAITING, State.DURABLE]) == 2
        assert segments.count(tx, State) == 3


def test_what_signs_a_segment_is_noted_on_those_named(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, number, checkpoint=None) for number in (0, 10, 20)])
        first, second, third = segments.of_stream(tx, A)
        segments.sign(tx, {first.id: 7, third.id: 8})
        assert [each.checkpoint for each in segments.of_stream(tx, A)] == [7, None, 8]
        assert [each.id for each in segments.unsigned(tx, [A], RangeSet.of([(0, 99)]))] == [second.id]
        assert segments.unsigned(tx, [A], RangeSet.of([(0, 9), (11, 99)])) == []


def test_only_what_is_signed_is_revealed(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, number, visible=False, checkpoint=None) for number in (0, 10)])
        segments.sign(tx, {segments.of_stream(tx, A)[1].id: 7})
        assert segments.reveal(tx, [A]) == 1
        assert [each.position is None for each in segments.of_stream(tx, A)] == [True, False]


def test_segments_are_settled_and_shown_in_the_order_given(database: Database, new_segment: Any) -> None:
    with database.write() as tx:
        segments.append(tx, [new_segment(A, n, visible=False, checkpoint=None) for n in (0, 10, 20, 30)])
        one, two, three, four = (each.id for each in segments.of_stream(tx, A))
        settled = [(three, True, State.WAITING), (two, False, State.LOCAL), (one, True, State.LOCAL)]
        segments.settle(tx, [segments.Settled(number, 7, shown, state) for number, shown, state in settled])
        assert [each.id for each in segments.visible(tx, *TRIPS, after=0, limit=9)] == [three, one]
        found = {each.id: (each.checkpoint, each.state) for each in segments.of_stream(tx, A)}
        assert [found[number] for number in (one, two, three)] == [
            (7, State.LOCAL),
            (7, State.LOCAL),
            (7, State.WAITING),
        ]
        assert found[four][0] is None
        begins = [(A, 30), (A, 0), (B, 30)]
        assert [each.id for each in segments.unsigned_at(tx, begins)] == [four]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["append", "hide", "reveal", "conceal", "delete"]), st.sampled_from("abc"))
    )
)
def test_a_reader_that_follows_positions_sees_every_segment_each_time_it_becomes_visible(
    database: Database, new_segment: Any, steps: list[tuple[str, str]]
) -> None:
    """Against a model that is a list of what became visible, in order."""
    model: list[tuple[str, int]] = []
    seen: list[tuple[str, int]] = []
    visible: dict[str, list[int]] = {letter: [] for letter in "abc"}
    hidden: dict[str, list[int]] = {letter: [] for letter in "abc"}
    cursor = 0
    with database.write() as tx:
        segments.delete(tx, [A, B, C])
        cursor = max((s.position or 0 for s in segments.visible(tx, *TRIPS, after=0, limit=99)), default=0)
    for number, (step, letter) in enumerate(steps):
        stream = StreamId(letter * 32)
        with database.write() as tx:
            match step:
                case "append":
                    segments.append(tx, [new_segment(stream, 10 * number)])
                    visible[letter].append(10 * number)
                    model.append((stream, 10 * number))
                case "hide":
                    segments.append(tx, [new_segment(stream, 10 * number, visible=False)])
                    hidden[letter].append(10 * number)
                case "reveal":
                    assert segments.reveal(tx, [stream]) == len(hidden[letter])
                    model += [(stream, first) for first in sorted(hidden[letter])]
                    visible[letter] += hidden[letter]
                    hidden[letter] = []
                case "conceal":
                    assert segments.conceal(tx, [stream]) == len(visible[letter])
                    hidden[letter] += visible[letter]
                    visible[letter] = []
                case _:
                    assert segments.delete(tx, [stream]) == len(visible[letter]) + len(hidden[letter])
                    visible[letter], hidden[letter] = [], []
        with database.read() as tx:
            page = segments.visible(tx, *TRIPS, after=cursor, limit=99)
        seen += [(s.stream, s.seq_first) for s in page]
        cursor = max([cursor, *(s.position or 0 for s in page)])
    assert seen == model
