"""Range sets behave as sets of numbers, and equal sets are equal values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.ranges import RangeSet

PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1])), max_size=8)
PAIR = PAIRS.filter(bool).map(lambda pairs: pairs[0])


def numbers(pairs: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in pairs for number in range(first, last + 1)}


def canonical(of: set[int]) -> RangeSet:
    """The set's only right form, made the slow way."""
    starts = sorted(n for n in of if n - 1 not in of)
    ends = sorted(n for n in of if n + 1 not in of)
    return RangeSet(tuple(zip(starts, ends, strict=True)))


@given(PAIRS)
def test_a_range_set_has_one_form_whatever_it_was_built_from(pairs: list[tuple[int, int]]) -> None:
    assert RangeSet.of(pairs) == canonical(numbers(pairs))


@given(PAIRS, PAIRS)
def test_union_difference_and_intersection_are_those_of_sets(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> None:
    one, two = RangeSet.of(left), RangeSet.of(right)
    assert one | two == canonical(numbers(left) | numbers(right))
    assert one - two == canonical(numbers(left) - numbers(right))
    assert one & two == canonical(numbers(left) & numbers(right))


@given(PAIRS, PAIR)
def test_adding_a_range_is_a_union(pairs: list[tuple[int, int]], added: tuple[int, int]) -> None:
    assert RangeSet.of(pairs).add(*added) == canonical(numbers(pairs) | numbers([added]))


@given(PAIRS, PAIR)
def test_covering_and_touching_are_containing_all_and_any(pairs: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    ranges, held, wanted = RangeSet.of(pairs), numbers(pairs), numbers([asked])
    assert ranges.covers(*asked) is (wanted <= held)
    assert ranges.touches(*asked) is bool(wanted & held)


@given(PAIRS)
def test_size_truth_membership_and_end_are_those_of_the_set(pairs: list[tuple[int, int]]) -> None:
    ranges, held = RangeSet.of(pairs), numbers(pairs)
    assert len(ranges) == len(held)
    assert bool(ranges) is bool(held)
    assert {n for n in range(80) if n in ranges} == held
    assert ranges.next == max(held, default=-1) + 1
    assert numbers(list(ranges)) == held


@given(PAIRS)
def test_a_list_of_bounds_round_trips(pairs: list[tuple[int, int]]) -> None:
    ranges = RangeSet.of(pairs)
    assert RangeSet.from_list(ranges.to_list()) == ranges


@pytest.mark.parametrize("pair", [(5, 4), (-1, 3), (-3, -1)])
def test_a_reversed_or_negative_range_is_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is no range"):
        RangeSet.of([pair])
    with pytest.raises(ValueError, match="is no range"):
        RangeSet.from_list(list(pair))
    with pytest.raises(ValueError, match="is no range"):
        RangeSet.of([(0, pair[0] - 1)] if pair[0] > 0 else []).add(*pair)


def test_a_list_with_an_odd_number_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="even number"):
        RangeSet.from_list([0, 1, 2])


def test_extending_a_long_set_at_its_end_keeps_its_other_ranges_as_they_are() -> None:
    gaps = RangeSet.of((n, n) for n in range(0, 10_000, 2))
    longer = gaps.add(9_999, 10_050)
    assert longer.ranges[:-1] == gaps.ranges[:-1]
    assert longer.ranges[-1] == (9_998, 10_050)
