"""Formats: what a writer writes, an ordinary reader of the format reads back."""

import csv
import io
import json
import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasync.views.formats import ARROW, CSV, FORMATS, JSON_LINES
from datasync.views.text import json_text

POINT = pa.struct([("lat", pa.float64()), ("lon", pa.float64())])
SCHEMA = pa.schema(
    [
        ("flag", pa.bool_()),
        ("count", pa.int64()),
        ("level", pa.float64()),
        ("name", pa.string()),
        ("blob", pa.binary()),
        ("at", pa.timestamp("us", "UTC")),
        ("gps", POINT),
        ("tags", pa.list_(pa.string())),
        ("embedding", pa.list_(pa.float32(), 2)),
    ]
)
FULL = {
    "flag": True,
    "count": -3,
    "level": 0.1,
    "name": 'a "quoted"\n\\ \x00 naïve',
    "blob": b"\x00\xff",
    "at": datetime(2026, 1, 31, 23, 59, 59, 250_000, tzinfo=UTC),
    "gps": {"lat": -37.8, "lon": 144.9},
    "tags": ["x", None, ""],
    "embedding": [0.5, -1.0],
}
EMPTY = dict.fromkeys(FULL)


def batch(rows):
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def written(kind, *batches):
    writer = kind.writer(SCHEMA)
    return b"".join([*(writer.batch(each) for each in batches), writer.end()])


def test_json_lines_hold_every_type_and_null():
    first, second = (json.loads(line) for line in written(JSON_LINES, batch([FULL]), batch([EMPTY])).splitlines())
    assert first == {
        **FULL,
        "blob": "AP8=",
        "at": "2026-01-31T23:59:59.250000Z",
    }
    assert second == EMPTY


def test_json_has_null_for_numbers_that_json_lacks():
    values = pa.array([math.nan, math.inf, -math.inf, 1.0])
    assert json_text(values).to_pylist() == [None, None, None, "1"]


def test_json_refuses_a_type_that_no_policy_has():
    with pytest.raises(TypeError, match="duration"):
        json_text(pa.array([1], pa.duration("s")))


texts = st.none() | st.text()
points = st.none() | st.fixed_dictionaries({"lat": st.none() | st.floats(), "lon": st.none() | st.floats()})
rows = st.fixed_dictionaries(
    {
        "flag": st.none() | st.booleans(),
        "count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "level": st.none() | st.floats(),
        "name": texts,
        "blob": st.none() | st.binary(max_size=5),
        "at": st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
        "gps": points,
        "tags": st.none() | st.lists(texts, max_size=3),
        "embedding": st.none() | st.lists(st.none() | st.floats(width=32), min_size=2, max_size=2),
    }
)


def plain(value):
    """The value as JSON would hold it."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case bytes():
            return value.decode("latin-1")
    return value


def single(values):
    """The values in single precision, which is all that text of a float32 tells."""
    return values and [value if value is None else float(np.float32(value)) for value in values]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(rows, max_size=4), st.integers(0, 2))
def test_json_lines_equal_the_rows_whatever_is_in_them(generated, skipped):
    kept = generated[skipped:]
    text = written(JSON_LINES, batch(generated).slice(skipped)).decode()
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    for line, row in zip(lines, kept, strict=True):
        for name in ("flag", "count", "level", "name", "gps", "tags"):
            assert line[name] == plain(row[name])
        assert single(line["embedding"]) == single(plain(row["embedding"]))
        assert (line["at"] and datetime.fromisoformat(line["at"])) == row["at"]


def test_csv_spreads_a_point_and_tells_null_from_empty():
    text = written(CSV, batch([FULL, {**EMPTY, "name": ""}])).decode()
    header, full, empty = csv.reader(io.StringIO(text, newline=""))
    assert header == ["flag", "count", "level", "name", "blob", "at", "gps.lat", "gps.lon", "tags", "embedding"]
    assert full[:4] == ["true", "-3", "0.1", FULL["name"]]
    assert full[4:8] == ["AP8=", "2026-01-31T23:59:59.250000Z", "-37.8", "144.9"]
    assert json.loads(full[8]) == FULL["tags"]
    assert empty == [""] * 10
    assert text.endswith(',,,"",,,,,,\n')


def test_an_arrow_stream_reads_back_with_its_schema_and_metadata():
    schema = SCHEMA.with_metadata({b"k": b"v"})
    writer = ARROW.writer(schema)
    data = writer.batch(batch([FULL, EMPTY])) + writer.batch(batch([FULL])) + writer.end()
    with pa.ipc.open_stream(data) as reader:
        assert reader.schema.equals(schema, check_metadata=True)
        assert reader.read_all().to_pylist() == [FULL, EMPTY, FULL]


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_a_view_without_rows_is_still_a_whole_document(kind):
    data = written(kind)
    match kind.name:
        case "arrow":
            assert pa.ipc.open_stream(data).read_all().num_rows == 0
        case "csv":
            assert data.startswith(b'"flag","count"')
        case "jsonl":
            assert data == b""
    assert data == written(kind, batch([])) or kind is ARROW
