"""Transforms: what they give, what they hide, and where they have no answer."""

import hashlib
import hmac
import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import Instant
from datasync.policy.document import Bucket, Geohash, Hmac, Round, Truncate
from datasync.policy.transforms import Context, fit
from datasync.policy.types import POINT, TIMESTAMP
from tests.unit.policy import oracle

DOWN = {"from": "user-private", "to": "public"}
KEY = b"k" * 32
DAY_MS = 86_400_000


def run(spec, column, now_ms=0, asked=None):
    """Return what a transform makes of a column; the keys that it asks for go to ``asked``."""

    def subject_key(name, period):
        if asked is not None:
            asked.append((name, period))
        return KEY

    step = fit("t", spec, column.type, None)
    result = step.kernel(column, Context(subject_key, Instant(now_ms, 0)))
    assert result.type == step.type
    result.validate(full=True)
    return result


def spec_of(model, **parameters):
    return model.model_validate({"op": model.__name__.lower(), **DOWN, **parameters})


def points(*pairs):
    return pa.array([None if pair is None else {"lat": pair[0], "lon": pair[1]} for pair in pairs], POINT)


def test_a_pseudonym_is_half_an_hmac_in_hex_and_the_same_for_equal_values():
    result = run(spec_of(Hmac, key="subject"), pa.array(["ann", "bob", None, "ann", ""])).to_pylist()

    assert result[0] == hmac.new(KEY, b"ann", hashlib.sha256).hexdigest()[:32] == result[3]
    assert result[2] is None
    assert len({*result} - {None}) == 3


def test_a_pseudonym_of_a_number_is_that_of_its_digits():
    assert run(spec_of(Hmac, key="subject"), pa.array([-7], pa.int64())).to_pylist() == [
        hmac.new(KEY, b"-7", hashlib.sha256).hexdigest()[:32]
    ]


def test_a_key_is_asked_once_for_a_batch_by_transform_and_rotation_period():
    asked = []
    run(spec_of(Hmac, key="subject", rotate="30d"), pa.array(["a", "b"]), now_ms=65 * DAY_MS, asked=asked)
    run(spec_of(Hmac, key="subject"), pa.array(["a", "b"]), now_ms=65 * DAY_MS, asked=asked)

    assert asked == [("t", 2), ("t", 0)]


def test_geohash_gives_the_published_examples():
    result = run(spec_of(Geohash, precision=11), points((57.64911, 10.40744), (-25.382708, -49.265506)))

    assert result.to_pylist() == ["u4pruydqqvj", "6gkzwgjzn82"]


def test_poles_and_date_line_have_cells_and_what_is_no_position_has_none():
    column = points(
        (90, 180), (-90, -180), (0, 0), (math.nan, 0), (0, math.inf), (90.0001, 0), (0, -181), None, (None, 0)
    )

    assert run(spec_of(Geohash, precision=2), column).to_pylist() == ["zz", "00", "s0", *[None] * 6]


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(1, 12))
def test_geohash_is_exact_for_every_point(lat, lon, precision):
    result = run(spec_of(Geohash, precision=precision), points((lat, lon)))

    assert result.to_pylist() == [oracle.geohash({"lat": lat, "lon": lon}, precision)]


@given(st.integers(0, 30), st.integers(0, 1 << 30), st.sampled_from([-math.inf, math.inf, 0]))
def test_geohash_is_exact_beside_the_bounds_of_cells(bits, cell, beside):
    lon = math.nextafter((cell % (1 << bits)) * 360 / (1 << bits) - 180, beside)
    lat = math.nextafter((cell % (1 << bits)) * 180 / (1 << bits) - 90, beside)
    if abs(lat) <= 90 and abs(lon) <= 180:
        expected = oracle.geohash({"lat": lat, "lon": lon}, 12)
        assert run(spec_of(Geohash, precision=12), points((lat, lon))).to_pylist() == [expected]


def test_a_shorter_geohash_is_the_prefix_of_a_longer_one():
    fine = fit("fine", spec_of(Geohash, precision=6), POINT, None)
    coarse = fit("coarse", spec_of(Geohash, precision=4), fine.type, fine)
    context = Context(lambda name, period: KEY, Instant(0, 0))
    cells = fine.kernel(points((-37.8136, 144.9631), None), context)

    assert coarse.kernel(cells, context).to_pylist() == ["r1r0", None]
    assert run(spec_of(Geohash, precision=4), points((-37.8136, 144.9631))).to_pylist() == ["r1r0"]


@pytest.mark.parametrize(
    ("unit", "moment", "floor"),
    [
        ("1h", datetime(2024, 5, 1, 13, 59, 59, tzinfo=UTC), datetime(2024, 5, 1, 13, tzinfo=UTC)),
        ("1d", datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)),
        ("1s", datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("1h", datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)),
        ("1h", datetime(1, 1, 1, 0, 30, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
        ("1y", datetime(1, 1, 1, tzinfo=UTC), None),  # its multiple lies in a year that no reader can express
    ],
)
def test_truncate_goes_down_also_before_1970(unit, moment, floor):
    assert run(spec_of(Truncate, unit=unit), pa.array([moment, None], TIMESTAMP)).to_pylist() == [floor, None]


def test_truncate_does_not_wrap_around_at_the_least_integer():
    column = pa.array([-(2**63), 2**63 - 1], pa.int64()).view(TIMESTAMP)

    assert run(spec_of(Truncate, unit="1d"), column).is_null().to_pylist() == [True, False]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_round_leaves_neither_the_sign_of_a_zero_nor_the_bits_of_a_nan(kind):
    strange = np.array([0x7FF8_0000_DEAD_BEEF], np.uint64).view(np.float64).astype(kind.to_pandas_dtype())[0]
    result = run(spec_of(Round, decimals=1), pa.array([-0.04, strange, -math.inf, None], kind))

    assert [str(value) for value in result.to_pylist()] == ["0.0", "nan", "-inf", "None"]
    canonical = np.array([math.nan], kind.to_pandas_dtype()).tobytes()
    assert result.to_numpy(zero_copy_only=False)[1:2].tobytes() == canonical


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9))
def test_a_rounded_number_is_near_and_has_no_more_digits(value, decimals):
    (result,) = run(spec_of(Round, decimals=decimals), pa.array([value], pa.float64())).to_pylist()

    assert math.isfinite(result)
    assert abs(result - value) <= 0.5 * 10.0**-decimals * (1 + 1e-9) + abs(value) * 1e-15
    if abs(value) < 1e15:  # beyond it, float64 has no digits to round
        digits = result * 10.0**decimals
        assert math.isclose(digits, round(digits), rel_tol=1e-9)


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.float32(), pa.float64()])
def test_a_bucket_includes_its_lower_edge(kind):
    column = pa.array([-1, 0, 9, 10, 59, 60, None], kind)
    result = run(spec_of(Bucket, edges=[0, 10, 60]), column).to_pylist()

    assert result == ["<0", "0-10", "0-10", "10-60", "10-60", ">=60", None]


def test_buckets_of_integers_compare_exactly_and_edges_may_be_fractions():
    column = pa.array([2**53 - 1, 2**53, 2**63 - 1, 0, 1], pa.int64())
    result = run(spec_of(Bucket, edges=[0.5, 2**53]), column).to_pylist()

    assert result == [f"0.5-{2**53}", f">={2**53}", f">={2**53}", "<0.5", f"0.5-{2**53}"]


def test_nan_has_no_bucket_and_infinity_has_one():
    column = pa.array([math.nan, math.inf, -math.inf], pa.float64())

    assert run(spec_of(Bucket, edges=[0]), column).to_pylist() == [None, ">=0", "<0"]


@pytest.mark.parametrize(
    ("spec", "column"),
    [
        (spec_of(Hmac, key="subject"), pa.array([], pa.string())),
        (spec_of(Geohash, precision=6), pa.array([], POINT)),
        (spec_of(Truncate, unit="1h"), pa.array([], TIMESTAMP)),
        (spec_of(Round, decimals=1), pa.array([], pa.float32())),
        (spec_of(Bucket, edges=[0]), pa.array([], pa.int32())),
    ],
)
def test_no_rows_give_no_rows_and_only_nulls_give_only_nulls(spec, column):
    assert len(run(spec, column)) == 0
    assert run(spec, pa.nulls(3, column.type)).to_pylist() == [None] * 3


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (spec_of(Hmac, key="subject"), pa.float64()),
        (spec_of(Geohash, precision=6), pa.string()),
        (spec_of(Truncate, unit="1h"), pa.int64()),
        (spec_of(Round, decimals=1), pa.int32()),
        (spec_of(Bucket, edges=[0]), TIMESTAMP),
    ],
)
def test_a_transform_takes_only_its_types(spec, kind):
    with pytest.raises(ValueError, match="does not take"):
        fit("t", spec, kind, None)
