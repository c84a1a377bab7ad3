import hashlib
from dataclasses import replace
from typing import Any

import cbor2
import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import HybridTime
from datasync.domain.errors import MessageTooLarge, SegmentInvalid
from datasync.domain.ids import StreamId, stream_id
from datasync.domain.limits import (
    META_ENTRIES_MAX,
    META_TEXT_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    SEGMENT_BYTES_MAX,
    SEGMENT_ROWS_MAX,
    SEQUENCE_MAX,
)
from datasync.domain.tiers import Tier
from datasync.protocol import cbor, columns, segment
from datasync.protocol.segment import Header, Segment

FIRST = 1000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
SALT = bytes(range(16))


def header(rows: int, *, span: int | None = None, **changes: Any) -> Header:
    base = Header(
        stream=stream_id(PUBLIC),
        public_key=PUBLIC,
        collection="trips",
        tier=Tier.EDGE_PRIVATE,
        seq_first=FIRST,
        seq_last=FIRST + (rows if span is None else span) - 1,
        rows=rows,
        captured=HybridTime(1_750_000_000_000, 3),
        time_min_ms=1_749_999_999_000,
        time_max_ms=1_750_000_000_000,
        policy_digest="ab" * 32,
        meta={"region": "cbd", "hz": 50, "scale": 0.5, "calibrated": True},
        previous="",
    )
    return replace(base, **changes)


def batch(rows: int) -> pa.RecordBatch:
    """What a layer of the demo looks like: three strings, a timestamp and six float32."""
    draw = np.random.default_rng(1)
    data: dict[str, pa.Array] = {
        "user_id": pa.array(["9f86d081884c7d659a2feaa0c55ad015"] * rows, pa.string()),
        "mode": pa.array(["external-rotation"] * rows, pa.string()),
        "gps": pa.array(["r1r0f"] * rows, pa.string()),
        "started": pa.array([1_750_000_000_000_000 + 20_000 * row for row in range(rows)], pa.timestamp("us", "UTC")),
    }
    for name in ("ax", "ay", "az", "gx", "gy", "gz"):
        data[name] = pa.array(draw.normal(size=rows).astype(np.float32))
    return pa.RecordBatch.from_pydict(data)


def content(data: bytes) -> list[Any]:
    items: list[Any] = cbor2.loads(data)
    return items


def changed(made: Segment, **items: object) -> bytes:
    """The segment with some items of its content exchanged."""
    names = ("version", "public_key", "collection", "tier", "seq_first", "seq_last", "rows", "captured", "time_min_ms",
             "time_max_ms", "policy_digest", "meta", "previous", "salt", "columns", "size", "body")  # fmt: skip
    listed = content(made.data)
    assert len(names) == len(listed)
    return cbor.dumps([items.get(name, item) for name, item in zip(names, listed, strict=True)])


# What goes in comes out


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_rows_and_header_come_back(rows: int) -> None:
    made = segment.encode(header(rows), batch(rows), None, SALT)
    parsed = segment.parse(made.data)
    assert parsed == made
    assert parsed.header == header(rows)
    assert parsed.hash == hashlib.sha256(made.data).hexdigest()
    found, numbers = segment.rows(parsed)
    assert found.equals(batch(rows))
    assert numbers.dtype == np.int64
    assert numbers.tolist() == list(range(FIRST, FIRST + rows))


@given(st.sets(st.integers(0, 49)), st.integers(0, 5))
def test_gaps_come_back(positions: set[int], beyond: int) -> None:
    numbers = np.array(sorted(positions), dtype=np.int64)
    span = int(numbers[-1]) + 1 + beyond if len(numbers) else 1 + beyond
    made = segment.encode(header(len(numbers), span=span), batch(len(numbers)), numbers, SALT)
    found, absolute = segment.rows(segment.parse(made.data))
    assert found.equals(batch(len(numbers)))
    assert absolute.tolist() == [FIRST + position for position in sorted(positions)]


def test_a_layer_without_rows_keeps_its_columns() -> None:
    made = segment.encode(header(0, span=50), batch(0), np.array([], dtype=np.int64), SALT)
    found, numbers = segment.rows(segment.parse(made.data))
    assert found.schema == batch(0).schema
    assert (found.num_rows, len(numbers)) == (0, 0)


def test_a_layer_without_columns_keeps_its_header() -> None:
    nothing = pa.RecordBatch.from_pydict({})
    made = segment.encode(header(0, span=3), nothing, np.array([], dtype=np.int64), SALT)
    assert segment.rows(segment.parse(made.data))[0].num_columns == 0


def test_segments_of_a_stream_form_a_chain() -> None:
    first = segment.encode(header(1), batch(1), None, SALT)
    second = segment.encode(
        header(1, seq_first=FIRST + 1, seq_last=FIRST + 1, previous=first.hash), batch(1), None, SALT
    )
    assert segment.parse(second.data).header.previous == first.hash


def test_the_same_rows_make_the_same_segment() -> None:
    assert segment.encode(header(9), batch(9), None, SALT) == segment.encode(header(9), batch(9), None, SALT)


def test_small_segments_stay_small_and_large_ones_are_compressed() -> None:
    assert len(segment.encode(header(1), batch(1), None, SALT).data) < 800
    assert len(segment.encode(header(1000), batch(1000), None, SALT).data) < 0.6 * batch(1000).nbytes


# What does not fit together is not made


@pytest.mark.parametrize(
    ("positions", "rows", "span", "why"),
    [
        (None, 2, 3, "need positions"),
        ([0, 0], 2, 3, "do not increase"),
        ([1, 0], 2, 3, "do not increase"),
        ([0, 3], 2, 3, "outside"),
        ([-1, 1], 2, 3, "outside"),
        ([0], 2, 3, "1 sequence numbers for 2 rows"),
        ([0, 1, 2], 2, 3, "3 sequence numbers for 2 rows"),
        ([0, 1, 2], 3, 2, "more rows than sequence numbers"),
    ],
)
def test_positions_that_do_not_fit_are_refused(positions: list[int] | None, rows: int, span: int, why: str) -> None:
    given_positions = None if positions is None else np.array(positions, dtype=np.int64)
    with pytest.raises(SegmentInvalid, match=why):
        segment.encode(header(rows, span=span), batch(rows), given_positions, SALT)


def test_a_batch_of_another_length_or_with_the_reserved_column_is_refused() -> None:
    with pytest.raises(SegmentInvalid, match="the header says 2"):
        segment.encode(header(2), batch(3), None, SALT)
    reserved = pa.RecordBatch.from_pydict({"_seq": [1, 2]})
    with pytest.raises(SegmentInvalid, match="reserved"):
        segment.encode(header(2), reserved, None, SALT)


def test_a_segment_over_the_size_limit_is_not_made_and_not_parsed() -> None:
    noise = np.random.default_rng(1).bytes(SEGMENT_BYTES_MAX)
    with pytest.raises(MessageTooLarge):
        segment.encode(header(1), pa.RecordBatch.from_pydict({"a": pa.array([noise])}), None, SALT)
    with pytest.raises(MessageTooLarge):
        segment.parse(bytes(SEGMENT_BYTES_MAX + 1))


BAD_HEADERS: list[dict[str, Any]] = [
    {"collection": ""},
    {"collection": "x" * (NAME_CHARACTERS_MAX + 1)},
    {"seq_first": -1},
    {"seq_last": FIRST - 1},
    {"seq_first": SEQUENCE_MAX + 1, "seq_last": SEQUENCE_MAX + 1},
    {"seq_last": FIRST + SEGMENT_ROWS_MAX},
    {"rows": -1},
    {"rows": 2},
    {"time_min_ms": None},
    {"time_max_ms": None},
    {"time_min_ms": 2_000_000_000_000},
    {"time_max_ms": SEQUENCE_MAX + 1},
    {"meta": {str(number): 1 for number in range(META_ENTRIES_MAX + 1)}},
    {"meta": {"": 1}},
    {"meta": {"x" * (NAME_CHARACTERS_MAX + 1): 1}},
    {"meta": {"a": "x" * (META_TEXT_CHARACTERS_MAX + 1)}},
    {"meta": {"a": SEQUENCE_MAX + 1}},
    {"meta": {"a": float("nan")}},
    {"meta": {"a": float("inf")}},
    {"meta": {"a": None}},
    {"meta": {"a": [1]}},
    {"meta": {1: "a"}},
]


def wire(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: bytes.fromhex(value) if name in ("policy_digest", "previous") else value
        for name, value in changes.items()
    }


@pytest.mark.parametrize("changes", BAD_HEADERS, ids=str)
def test_a_header_beyond_the_limits_is_neither_made_nor_parsed(changes: dict[str, Any]) -> None:
    with pytest.raises(SegmentInvalid):
        segment.encode(replace(header(1), **changes), batch(1), None, SALT)
    made = segment.encode(header(1), batch(1), None, SALT)
    with pytest.raises(SegmentInvalid):
        segment.parse(changed(made, **wire(changes)))


@pytest.mark.parametrize(
    "changes",
    [{"policy_digest": "ab"}, {"policy_digest": "zz" * 32}, {"policy_digest": "AB" * 32}, {"previous": "ab"},
     {"stream": StreamId("0" * 32)}, {"public_key": bytes(31)}],
    ids=str,
)  # fmt: skip
def test_a_header_that_cannot_be_written_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(SegmentInvalid):
        segment.encode(replace(header(1), **changes), batch(1), None, SALT)


@pytest.mark.parametrize(
    "items",
    [
        {"version": 1},
        {"version": True},
        {"public_key": bytes(31)},
        {"public_key": "text"},
        {"collection": b"trips"},
        {"tier": 3},
        {"tier": -1},
        {"tier": True},
        {"seq_first": 1.0},
        {"rows": True},
        {"captured": -1},
        {"captured": 1 << 63},
        {"time_min_ms": "1"},
        {"policy_digest": bytes(31)},
        {"policy_digest": "ab" * 32},
        {"previous": bytes(31)},
        {"previous": None},
        {"salt": bytes(15)},
        {"salt": "text"},
        {"meta": []},
        {"meta": {b"a": 1}},
    ],
    ids=str,
)
def test_a_malformed_header_is_refused(items: dict[str, object]) -> None:
    made = segment.encode(header(1), batch(1), None, SALT)
    with pytest.raises(SegmentInvalid):
        segment.parse(changed(made, **items))


def test_a_segment_of_another_shape_is_refused() -> None:
    listed = content(segment.encode(header(1), batch(1), None, SALT).data)
    for payload in (listed[:-1], [*listed, 0], [], {}, 1, {"a": listed}):
        with pytest.raises(SegmentInvalid):
            segment.parse(cbor.dumps(payload))


# What stands for a segment


def test_the_salt_is_the_streams_secret_and_differs_from_segment_to_segment() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    one, later = header(1), header(1, seq_first=FIRST + 1, seq_last=FIRST + 1)
    recaptured = replace(one, captured=HybridTime(one.captured.wall_ms + 1, 0))
    salts = [segment.salt_of(each, KEY) for each in (one, later, recaptured)] + [segment.salt_of(one, stranger)]
    assert len({*salts}) == 4
    assert {len(each) for each in salts} == {segment.SALT_BYTES}
    assert segment.salt_of(header(1), KEY) == salts[0]


def test_the_same_rows_with_another_salt_have_another_hash() -> None:
    one, other = (segment.encode(header(1), batch(1), None, bytes([each]) * 16) for each in (1, 2))
    assert one.hash != other.hash
    assert segment.rows(one)[0].equals(segment.rows(other)[0])


# Damage


def test_every_truncation_is_refused() -> None:
    data = segment.encode(header(1), batch(1), None, SALT).data
    for length in range(len(data)):
        with pytest.raises(SegmentInvalid):
            segment.parse(data[:length])


def test_damage_is_refused_or_harmless() -> None:
    """What a stream's own, hostile device could make: never another error, and never rows that are not sound."""
    made = segment.encode(header(2, span=4), batch(2), np.array([1, 3]), SALT)
    for damaged in damages(made.data):
        if read_or_refused(damaged):
            assert segment.parse(damaged).hash != made.hash


def damages(data: bytes) -> list[bytes]:
    cut = [data[:length] for length in range(len(data))]
    flipped = [
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :] for bit in range(8 * len(data))
    ]
    return cut + flipped


def read_or_refused(data: bytes) -> bool:
    try:
        parsed = segment.parse(data)
        found, numbers = segment.rows(parsed)
    except (SegmentInvalid, MessageTooLarge):
        return False
    assert found.num_rows == len(numbers) == parsed.header.rows == len(found.to_pylist())
    return True


# Sequence numbers


def refused_rows(made: Segment, why: str) -> None:
    with pytest.raises(SegmentInvalid, match=why):
        segment.rows(made)


def numbered(numbers: pa.Array, *, rows: int, span: int) -> Segment:
    """A segment whose ``_seq`` column is whatever its device says."""
    with_numbers = pa.RecordBatch.from_arrays([pa.array([1.0] * rows), numbers], names=["a", "_seq"])
    listed, size, body = columns.pack(with_numbers)
    made = segment.encode(header(0, span=span), batch(0), np.zeros(0, np.int64), SALT)
    return segment.parse(changed(made, rows=rows, columns=listed, size=size, body=body))


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        (pa.array([FIRST, FIRST]), "do not increase"),
        (pa.array([FIRST + 1, FIRST]), "do not increase"),
        (pa.array([FIRST - 1, FIRST]), "outside"),
        (pa.array([FIRST, FIRST + 5]), "outside"),
        (pa.array([-(2**63), 2**63 - 1]), "outside"),
        (pa.array([2**63 - 1, -(2**63)]), "do not increase"),
        (pa.array([FIRST, None]), "no whole numbers"),
        (pa.array([float(FIRST), FIRST + 1.0]), "no whole numbers"),
        (pa.array([FIRST, FIRST + 1], pa.int32()), "no whole numbers"),
    ],
)
def test_sequence_numbers_that_do_not_fit_are_refused(numbers: pa.Array, why: str) -> None:
    refused_rows(numbered(numbers, rows=2, span=5), why)


def test_rows_that_do_not_match_the_header_are_refused() -> None:
    made = segment.encode(header(3), batch(3), None, SALT)
    refused_rows(segment.parse(changed(made, rows=2)), "the header says 2")
    refused_rows(segment.parse(changed(made, rows=0)), "no rows")
    refused_rows(segment.parse(changed(made, seq_last=FIRST + 7)), "does not say where")


@pytest.mark.parametrize("items", [{"columns": {"a": "f"}}, {"size": "1"}, {"size": True}, {"body": "text"}], ids=str)
def test_malformed_columns_are_refused(items: dict[str, object]) -> None:
    made = segment.encode(header(1), batch(1), None, SALT)
    refused_rows(segment.parse(changed(made, **items)), "malformed")


# Whatever the bytes


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xd2\x84\x43\xa1\x01\x27\xa0"]))
def test_arbitrary_bytes_are_no_segment(data: bytes, start: bytes) -> None:
    with pytest.raises(SegmentInvalid):
        segment.parse(start + data)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(PLAIN, max_size=20), st.data())
def test_any_content_is_read_or_refused(items: list[object], data: st.DataObject) -> None:
    read_or_refused(cbor.dumps(items))
    listed = content(segment.encode(header(2), batch(2), None, SALT).data)
    for _ in range(data.draw(st.integers(1, 3))):
        listed[data.draw(st.integers(0, len(listed) - 1))] = data.draw(PLAIN)
    read_or_refused(cbor.dumps(listed))
