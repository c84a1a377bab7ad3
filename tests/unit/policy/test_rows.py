"""Rows of a user's program: what fits is taken exactly, what does not is named by row and field."""

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from datasync.domain.errors import RecordError
from datasync.policy.projection import to_batch
from tests.unit.policy.city import city

TYPES = """fields:
      bool_: {type: bool}
      int32_: {type: int32}
      int64_: {type: int64}
      float32_: {type: float32}
      float64_: {type: float64}
      bytes_: {type: bytes}
      tags: {type: [string]}
      times: {type: [timestamp]}
      vector_: {type: vector(3)}
"""


@pytest.fixture(scope="module")
def trips():
    return city(("fields:\n", TYPES)).collections["trips"]


def value(batch, name, row=0):
    return batch.column(name)[row].as_py()


def test_a_batch_has_the_input_schema_and_missing_fields_are_null(trips):
    batch = to_batch(trips, [{"mode": "bike"}, {}])

    assert batch.schema == trips.input_schema
    assert batch.column("mode").to_pylist() == ["bike", None]
    assert batch.column("gps").null_count == 2
    assert to_batch(trips, []).num_rows == 0


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("bool_", True, True),
        ("bool_", np.True_, True),
        ("int32_", -(2**31), -(2**31)),
        ("int64_", np.int16(7), 7),
        ("float32_", 1, 1.0),
        ("float64_", np.float32(0.5), 0.5),
        ("float32_", float("-inf"), float("-inf")),
        ("mode", "ü\u0000😀", "ü\u0000😀"),
        ("bytes_", b"\xff", b"\xff"),
        ("tags", ["a", "b"], ["a", "b"]),
        ("tags", [], []),
        ("times", ["2024-05-01T12:00:00Z"], [datetime(2024, 5, 1, 12, tzinfo=UTC)]),
        ("vector_", [1, 2.5, 3], [1.0, 2.5, 3.0]),
        ("vector_", np.array([1, 2, 3], np.float32), [1.0, 2.0, 3.0]),
        ("gps", {"lat": 1, "lon": 2.5}, {"lat": 1.0, "lon": 2.5}),
        ("started", "2024-05-01T14:00:00.000001+02:00", datetime(2024, 5, 1, 12, 0, 0, 1, tzinfo=UTC)),
        ("started", datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)),
        (
            "started",
            datetime(2024, 5, 1, 14, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 5, 1, 12, tzinfo=UTC),
        ),
        ("started", pd.Timestamp("2024-05-01T12:00:00Z"), datetime(2024, 5, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_value_of_the_field_s_kind_is_kept(trips, name, given, kept):
    assert value(to_batch(trips, [{name: given}]), name) == kept


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("bool_", 1),
        ("int32_", 2**31),
        ("int32_", True),
        ("int32_", 1.0),
        ("int64_", "1"),
        ("int64_", 2**63),
        ("float32_", True),
        ("float32_", "1.5"),
        ("float32_", 1e39),
        ("float64_", 2**60 + 1),
        ("mode", b"bike"),
        ("mode", 5),
        ("mode", "\ud800"),
        ("bytes_", "text"),
        ("tags", "ab"),
        ("tags", ["a", None]),
        ("tags", ["a", 1]),
        ("vector_", [1, 2]),
        ("vector_", "123"),
        ("vector_", [1, "2", 3]),
        ("gps", (1, 2)),
        ("gps", {"lat": 1}),
        ("gps", {"lat": 1, "lon": 2, "alt": 3}),
        ("gps", {"lat": 1, "lon": None}),
        ("gps", {"lat": "1", "lon": 2}),
        ("started", 1_700_000_000),
        ("started", datetime(2024, 5, 1)),  # noqa: DTZ001
        ("started", date(2024, 5, 1)),
        ("started", "2024-05-01T12:00:00"),
        ("started", "yesterday"),
        ("started", "0001-01-01T00:00:00+01:00"),
    ],
)
def test_a_value_of_another_kind_is_named_by_row_and_field(trips, name, given):
    with pytest.raises(RecordError, match=f"row 2, field {name}: .* is no ") as caught:
        to_batch(trips, [{}, {name: None}, {name: given}, {}])
    assert caught.value.fix


def test_an_unknown_field_is_an_error_that_names_the_nearest(trips):
    with pytest.raises(RecordError, match="row 1: trips has no field mood") as caught:
        to_batch(trips, [{}, {"mood": "x"}])
    assert "mode" in caught.value.fix


def test_a_row_that_is_no_mapping_is_an_error(trips):
    with pytest.raises(RecordError, match="row 0 is no mapping"):
        to_batch(trips, [["bike"]])


@pytest.mark.parametrize(
    ("name", "column", "kept"),
    [
        ("int32_", pa.array([1, None], pa.int64()), [1, None]),
        ("int64_", pa.array([1], pa.uint64()), [1]),
        ("float32_", pa.array([0.5], pa.float64()), [0.5]),
        ("float64_", pa.array([1], pa.int32()), [1.0]),
        ("mode", pa.array(["a"], pa.large_string()), ["a"]),
        ("mode", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("mode", pa.nulls(2), [None, None]),
        ("gps", pa.array([{"lon": 2, "lat": 1}]), [{"lat": 1.0, "lon": 2.0}]),
        ("vector_", pa.array([[1.0, 2.0, 3.0]]), [[1.0, 2.0, 3.0]]),
        ("tags", pa.array([["a"]], pa.large_list(pa.string())), [["a"]]),
        ("started", pa.array([-1], pa.timestamp("ns", "UTC")), [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)]),
        ("started", pa.array([1], pa.timestamp("s", "Europe/Vienna")), [datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)]),
    ],
)
def test_an_arrow_column_of_another_width_is_taken_when_every_value_fits(trips, name, column, kept):
    for rows in (pa.record_batch({name: column}), pa.table({name: column})):
        assert to_batch(trips, rows).column(name).to_pylist() == kept


@pytest.mark.parametrize(
    ("name", "column", "row"),
    [
        ("int32_", pa.array([1, 2**31]), 1),
        ("int32_", pa.array([1.0, 2.0]), 0),
        ("int32_", pa.array(["1"]), 0),
        ("float32_", pa.array([1.0, 1e39]), 1),
        ("float64_", pa.array([1, 2**60 + 1]), 1),
        ("mode", pa.array([1]), 0),
        ("bool_", pa.array([1]), 0),
        ("bytes_", pa.array(["a"]), 0),
        ("started", pa.array([1], pa.timestamp("us")), 0),
        ("started", pa.array([1]), 0),
        ("started", pa.array([0, 2**62], pa.timestamp("us", "UTC")), 1),
        ("gps", pa.array([{"lat": 1.0}]), 0),
        ("vector_", pa.array([[1.0, 2.0, 3.0], [1.0]]), 1),
    ],
)
def test_an_arrow_value_that_does_not_fit_is_named_by_row_and_field(trips, name, column, row):
    with pytest.raises(RecordError, match=f"row {row}, field {name}: .* is no "):
        to_batch(trips, pa.record_batch({name: column}))


def test_text_that_is_not_utf_8_does_not_pass(trips):
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff"))

    with pytest.raises(RecordError, match="field mode"):
        to_batch(trips, pa.record_batch({"mode": bad}))


def test_what_arrow_keeps_beside_the_values_does_not_pass(trips):
    hidden = pa.array(np.array([1, 0x5EC2E7]), mask=np.array([False, True]))
    schema = pa.schema([pa.field("int64_", pa.int64(), metadata={"secret": "1"})], metadata={"secret": "2"})
    batch = to_batch(trips, pa.record_batch([hidden], schema=schema))

    assert batch.schema.metadata is None
    assert batch.schema.field("int64_").metadata is None
    assert np.int64(0x5EC2E7).tobytes() not in batch.column("int64_").buffers()[1].to_pybytes()


def test_unknown_and_double_columns_are_errors(trips):
    column = pa.array(["a"])
    with pytest.raises(RecordError, match="no field mood"):
        to_batch(trips, pa.record_batch({"mood": column}))
    with pytest.raises(RecordError, match="same name"):
        to_batch(trips, pa.RecordBatch.from_arrays([column, column], names=["mode", "mode"]))


def test_a_pandas_frame_is_taken_without_its_index_and_nan_is_null(trips):
    frame = pd.DataFrame(
        {
            "mode": ["bike", None],
            "float32_": [1.5, np.nan],
            "int32_": [1, 2],
            "started": pd.to_datetime(["2024-05-01T12:00:00.000000999Z", "1960-01-01T00:00:00.5Z"]),
        },
        index=[7, 9],
    )
    batch = to_batch(trips, frame)

    assert batch.schema == trips.input_schema
    assert batch.column("float32_").to_pylist() == [1.5, None]
    assert value(batch, "started") == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert to_batch(trips, frame.iloc[:0]).num_rows == 0
    assert to_batch(trips, pd.DataFrame({"int32_": pd.Series([], dtype=object)})).num_rows == 0
