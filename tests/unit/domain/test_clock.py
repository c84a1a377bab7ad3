"""The hybrid clock never goes back, follows causes, and is not dragged away by a wrong clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import COUNTER_MAX, DRIFT_MS_MAX, HybridTime, Instant

WALLS = st.integers(0, (1 << 47) - 1)
TIMES = st.builds(HybridTime, WALLS, st.integers(0, COUNTER_MAX))


@given(TIMES, WALLS)
def test_a_tick_is_later_whatever_the_wall_clock_says(last: HybridTime, wall_ms: int) -> None:
    following = last.tick(Instant(wall_ms, 0))
    assert following > last
    assert following.wall_ms >= wall_ms


@given(TIMES, TIMES, WALLS)
def test_what_is_observed_comes_before_what_follows(mine: HybridTime, theirs: HybridTime, wall_ms: int) -> None:
    now = Instant(max(wall_ms, theirs.wall_ms - DRIFT_MS_MAX), 0)
    following = mine.observe(theirs, now)
    assert following > mine
    assert following > theirs
    assert following.wall_ms >= now.wall_ms
    assert following.counter <= COUNTER_MAX


def test_the_counter_starts_again_when_the_wall_clock_moves_and_counts_when_it_stands() -> None:
    first = HybridTime(100, 7)
    assert first.tick(Instant(101, 0)) == HybridTime(101, 0)
    assert first.tick(Instant(100, 0)) == HybridTime(100, 8)
    assert first.tick(Instant(1, 0)) == HybridTime(100, 8)


def test_a_full_counter_carries_into_the_wall_part() -> None:
    assert HybridTime(100, COUNTER_MAX).tick(Instant(100, 0)) == HybridTime(101, 0)


def test_a_time_too_far_ahead_is_refused_and_one_at_the_bound_is_not() -> None:
    now = Instant(1_000_000, 0)
    at_bound = HybridTime(now.wall_ms + DRIFT_MS_MAX, 0)
    assert HybridTime(0, 0).observe(at_bound, now) > at_bound
    with pytest.raises(ValueError, match="ahead of this node's clock"):
        HybridTime(0, 0).observe(HybridTime(now.wall_ms + DRIFT_MS_MAX + 1, 0), now)


@given(TIMES, TIMES)
def test_packed_times_sort_as_times_do_and_unpack_to_the_same(one: HybridTime, two: HybridTime) -> None:
    assert HybridTime.unpack(one.pack()) == one
    assert (one.pack() < two.pack()) is (one < two)
    assert one.pack() < 1 << 63


@pytest.mark.parametrize("packed", [-1, 1 << 63])
def test_a_number_that_was_never_packed_is_refused(packed: int) -> None:
    with pytest.raises(ValueError, match="no packed hybrid time"):
        HybridTime.unpack(packed)
