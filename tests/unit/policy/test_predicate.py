"""Conditions: what they mean on nulls, NaN, zeros, widths and times."""

import math

import numpy as np
import pyarrow as pa
import pytest

from datasync.domain.clock import Instant
from datasync.policy.predicate import BindError, Scope, bind, bind_all
from datasync.policy.types import POINT, TIMESTAMP

NOW = Instant(1_700_000_000_000, 0)
NOW_US = NOW.wall_ms * 1_000
KINDS = {"i": pa.int32(), "l": pa.int64(), "f": pa.float32(), "g": pa.float64(), "s": pa.string(), "b": pa.bool_()}


def holds(clause, values, kind, *, unknown=False):
    """Return for each value of the column ``x`` whether the condition holds."""
    column = pa.array(values, pa.int64()).view(TIMESTAMP) if kind == TIMESTAMP else pa.array(values, kind)
    predicate = bind_all([["x", *clause]], Scope({"x": kind}))
    held = predicate.holds(pa.record_batch({"x": column}), {}, NOW, unknown=unknown)
    return np.broadcast_to(held, len(values)).tolist()


@pytest.mark.parametrize(
    ("op", "expected"),
    [("eq", "010"), ("ne", "101"), ("lt", "100"), ("le", "110"), ("gt", "001"), ("ge", "011")],
)
@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.float32(), pa.float64()])
def test_numbers_compare_as_numbers(op, expected, kind):
    assert holds([op, 5], [4, 5, 6], kind) == [each == "1" for each in expected]


def test_text_compares_by_code_point():
    assert holds(["lt", "a"], ["Z", "a", "ä", ""], pa.string()) == [True, False, False, True]
    assert holds(["gt", "\uffff"], ["\U0001f600"], pa.string()) == [True]


@pytest.mark.parametrize("clause", [["eq", 1], ["ne", 1], ["lt", 1], ["ge", 1], ["in", [1]], ["not_in", [1]]])
def test_null_compares_to_nothing_and_counts_as_the_caller_says(clause):
    assert holds(clause, [None], pa.int64(), unknown=False) == [False]
    assert holds(clause, [None], pa.int64(), unknown=True) == [True]


def test_exists_is_never_unknown():
    for unknown in (False, True):
        assert holds(["exists", True], [1, None], pa.int64(), unknown=unknown) == [True, False]
        assert holds(["exists", False], [1, None], pa.int64(), unknown=unknown) == [False, True]


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        (["eq", 1], False),
        (["ne", 1], True),
        (["lt", 1], False),
        (["le", 1], False),
        (["gt", 1], False),
        (["ge", 1], False),
        (["in", [1]], False),
        (["not_in", [1]], True),
        (["exists", True], True),
    ],
)
@pytest.mark.parametrize("unknown", [False, True])
def test_nan_compares_as_in_ieee_754_and_is_not_null(clause, expected, unknown):
    assert holds(clause, [math.nan], pa.float64(), unknown=unknown) == [expected]


def test_zero_equals_minus_zero_in_comparisons_and_in_lists():
    for zero in (0, -0.0):
        assert holds(["eq", zero], [0.0, -0.0], pa.float64()) == [True, True]
        assert holds(["in", [zero]], [0.0, -0.0], pa.float32()) == [True, True]
        assert holds(["not_in", [zero]], [0.0, -0.0], pa.float64()) == [False, False]


def test_a_literal_is_a_value_of_the_column_s_type():
    assert holds(["eq", 0.1], [0.1], pa.float32()) == [True]
    assert holds(["eq", 2**53 + 1], [2**53, 2**53 + 1], pa.int64()) == [False, True]


@pytest.mark.parametrize(
    ("clause", "kind"),
    [
        (["eq", 1.5], pa.int64()),
        (["eq", 2**31], pa.int32()),
        (["eq", True], pa.int64()),
        (["eq", 1], pa.bool_()),
        (["eq", 1], pa.string()),
        (["eq", "1"], pa.int64()),
        (["eq", 1e39], pa.float32()),
        (["lt", True], pa.bool_()),
        (["eq", 1], TIMESTAMP),
        (["in", ["now-1d"]], TIMESTAMP),
        (["in", list(range(1001))], pa.int64()),
        (["eq", "x"], POINT),
        (["in", ["x", 1]], pa.string()),
        (["eq", None], pa.string()),
        (["eq", "x"], pa.list_(pa.string())),
        (["eq", "x"], pa.binary()),
    ],
)
def test_a_value_of_another_type_is_refused(clause, kind):
    with pytest.raises(BindError):
        bind(["x", *clause], Scope({"x": kind}))


def test_whether_a_point_exists_can_be_asked():
    assert holds(["exists", True], [{"lat": 1, "lon": 2}, None], POINT) == [True, False]


def test_times_compare_with_moments_and_with_now():
    hour, day = 3_600_000_000, 86_400_000_000
    values = [NOW_US - day - 1, NOW_US - day, NOW_US, NOW_US + hour]

    assert holds(["ge", "now-1d"], values, TIMESTAMP) == [False, True, True, True]
    assert holds(["gt", "now"], values, TIMESTAMP) == [False, False, False, True]
    assert holds(["lt", "now+1h"], values, TIMESTAMP) == [True, True, True, False]
    assert holds(["eq", "1970-01-01T01:00:00+01:00"], [0, 1], TIMESTAMP) == [True, False]
    assert holds(["in", ["1970-01-01T00:00:00Z"]], [0, 1], TIMESTAMP) == [True, False]


def test_a_worker_s_attribute_stands_for_its_value():
    scope = Scope({"x": pa.string()}, attributes={"region": "cbd"})
    predicate = bind_all([["x", "eq", "$worker.region"], ["x", "in", ["$worker.region"]]], scope)

    assert predicate.holds(pa.record_batch({"x": ["cbd", "docks"]}), {}, NOW, unknown=False).tolist() == [True, False]


@pytest.mark.parametrize(
    ("clause", "constant", "expected"),
    [
        (["eq", "cbd"], "cbd", True),
        (["ne", "cbd"], "cbd", False),
        (["in", ["a", "cbd"]], "cbd", True),
        (["not_in", ["a"]], "cbd", True),
        (["lt", 5], 4, True),
        (["eq", 5], 5.0, True),
        (["exists", True], "x", True),
        (["exists", False], None, True),
        (["eq", "5"], 5, None),
        (["eq", True], 1, None),
        (["in", ["5", True]], 5, None),
        (["eq", "cbd"], None, None),
        (["eq", 5], None, None),
        (["lt", 5], None, None),
    ],
)
def test_a_constant_of_the_device_decides_for_all_rows(clause, constant, expected):
    """None as the expectation: it is unknown, and counts as the caller says."""
    predicate = bind_all([["region", *clause]], Scope({}, meta={"region"}))
    meta = {} if constant is None else {"region": constant}
    for unknown in (False, True):
        held = predicate.holds(pa.record_batch({"x": [1, 2]}), meta, NOW, unknown=unknown)
        assert held is (unknown if expected is None else expected)


def test_all_conditions_must_hold_and_an_unknown_does_not_outweigh_a_false():
    scope = Scope({"x": pa.int64(), "y": pa.int64()})
    predicate = bind_all([["x", "exists", True], ["x", "eq", 1], ["y", "gt", 0]], scope)
    batch = pa.record_batch(
        {"x": pa.array([1, 1, None, 2, 1], pa.int64()), "y": pa.array([1, 0, 1, 1, None], pa.int64())}
    )

    assert predicate.holds(batch, {}, NOW, unknown=True).tolist() == [True, False, False, False, True]
    assert predicate.holds(batch, {}, NOW, unknown=False).tolist() == [True, False, False, False, False]


def test_without_conditions_every_row_matches():
    assert bind_all([], Scope({})).holds(pa.record_batch({"x": [1]}), {}, NOW, unknown=False) is True
