import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.errors import SegmentInvalid
from datasync.domain.limits import NAME_CHARACTERS_MAX, SEGMENT_BYTES_MAX, SEGMENT_DECODED_BYTES_MAX
from datasync.protocol import columns

POINT = pa.struct([("lat", pa.float64()), ("lon", pa.float64())])
MOMENT = pa.timestamp("us", "UTC")
YEAR_10000 = pa.array([253_402_300_800_000_000], MOMENT)
BAD_TEXT = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff"))
FLOATS = pa.RecordBatch.from_pydict({"a": pa.array([1.0, 2.0, 3.0], pa.float32())})

SCALARS = {
    "bool": (pa.bool_(), st.booleans()),
    "int32": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float32": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "float64": (pa.float64(), st.floats(allow_nan=False)),
    "string": (pa.string(), st.text(max_size=20)),
    "binary": (pa.binary(), st.binary(max_size=20)),
    "timestamp": (MOMENT, st.datetimes(timezones=st.just(datetime.UTC))),
}
KINDS = {
    **SCALARS,
    **{f"list of {name}": (pa.list_(kind), st.lists(values, max_size=3)) for name, (kind, values) in SCALARS.items()},
    "point": (POINT, st.fixed_dictionaries({"lat": st.floats(-90, 90), "lon": st.floats(-180, 180)})),
    "vector": (pa.list_(pa.float32(), 3), st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3)),
}


def raw(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    """The batch's IPC message without the schema's, as pyarrow's own stream writer writes it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    reader = pa.BufferReader(sink.getvalue())
    pa.ipc.read_message(reader)
    message: bytes = pa.ipc.read_message(reader).serialize().to_pybytes()
    return message


def unpack_raw(batch: pa.RecordBatch, message: bytes) -> pa.RecordBatch:
    """Read ``message`` as if it were the batch's."""
    return columns.unpack(columns.pack(batch)[0], len(message), message, batch.num_rows)


@given(st.data())
def test_every_type_and_null_comes_back(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=6, unique=True))
    rows = data.draw(st.integers(0, 5))
    arrays = []
    for name in names:
        kind, values = KINDS[name]
        arrays.append(pa.array(data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind))
    batch = pa.RecordBatch.from_arrays(arrays, names=names)
    found = columns.unpack(*columns.pack(batch), batch.num_rows)
    assert found.schema == batch.schema
    assert found.to_pylist() == batch.to_pylist()


def test_a_slice_of_a_batch_carries_its_own_rows_alone() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [f"text {row}" for row in range(1000)], "b": list(range(1000))})
    piece = batch.slice(300, 7)
    listed, size, body = columns.pack(piece)
    assert size < 1000
    assert columns.unpack(listed, size, body, 7).equals(piece)


def test_bytes_are_compressed_when_that_makes_them_fewer() -> None:
    _, size, body = columns.pack(pa.RecordBatch.from_pydict({"a": [0.0] * 1000}))
    assert len(body) < size / 10
    noise = pa.RecordBatch.from_pydict({"a": [np.random.default_rng(1).bytes(4 << 20)]})
    listed, size, body = columns.pack(noise)
    assert len(body) == size
    assert columns.unpack(listed, size, body, 1).equals(noise)


@pytest.mark.parametrize(
    "kind",
    [
        pa.dictionary(pa.int32(), pa.string()),
        pa.large_string(),
        pa.string_view(),
        pa.timestamp("ns", "UTC"),
        pa.timestamp("us"),
        pa.int8(),
        pa.null(),
        pa.decimal128(9),
        pa.map_(pa.string(), pa.string()),
        pa.list_(pa.list_(pa.string())),
        pa.list_(pa.float64(), 3),
        pa.struct([("lat", pa.float64())]),
        pa.run_end_encoded(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_types_without_a_letter_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(SegmentInvalid, match="which segments do not carry"):
        columns.pack(pa.RecordBatch.from_pylist([], pa.schema({"a": kind})))


@pytest.mark.parametrize(
    "values",
    [YEAR_10000, pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), YEAR_10000), BAD_TEXT],
    ids=["moment", "moment in a list", "text"],
)
def test_values_that_a_receiver_would_refuse_are_not_packed(values: pa.Array) -> None:
    with pytest.raises(SegmentInvalid):
        columns.pack(pa.RecordBatch.from_pydict({"a": values}))


def test_invalid_text_and_moments_are_refused() -> None:
    text = pa.RecordBatch.from_pydict({"a": ["\u00e9" * 50]})
    with pytest.raises(SegmentInvalid, match="not sound"):
        unpack_raw(text, raw(text).replace("\u00e9".encode(), b"\xe9\xe9"))
    moments = pa.RecordBatch.from_pydict({"a": pa.array([7], MOMENT)})
    with pytest.raises(SegmentInvalid, match="years 1 to 9999"):
        unpack_raw(moments, raw(moments)[:-8] + (2**62).to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        (["a"], "no list"),
        (["a", "f", "a", "f"], "same name"),
        (["", "f"], "no text of 1 to"),
        (["x" * (NAME_CHARACTERS_MAX + 1), "f"], "no text of 1 to"),
        ([1, "f"], "no text of 1 to"),
        (["a", "q"], "no type"),
        (["a", 1], "no type"),
        (["a", "+w:0"], "no type"),
        (["a", "+w:65537"], "no type"),
        (["a", "+w:99999999999"], "no type"),
        (["a", "+w:\u0663"], "no type"),
        (["a", "+l+lf"], "no type"),
        (["a", "g"], "Buffer"),
        (["a", "f", "b", "f"], "cannot be read"),
        ([text for number in range(300) for text in (str(number), "f")], "no list"),
    ],
)
def test_columns_that_are_not_the_messages_are_refused(listed: list[object], why: str) -> None:
    message = raw(FLOATS)
    with pytest.raises(SegmentInvalid, match=why):
        columns.unpack(listed, len(message), message, 3)


def test_rows_that_are_not_the_messages_are_refused() -> None:
    listed, size, body = columns.pack(FLOATS)
    for rows in (1, 2, 4):
        with pytest.raises(SegmentInvalid, match=f"the header says {rows}"):
            columns.unpack(listed, size, body, rows)
    with pytest.raises(SegmentInvalid, match="no rows"):
        columns.unpack(listed, size, body, 0)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_message_with_buffers_that_are_compressed_themselves_is_refused(codec: str) -> None:
    zeros = pa.RecordBatch.from_pydict({"a": pa.array(np.zeros(1000))})
    with pytest.raises(SegmentInvalid, match="compressed one by one"):
        unpack_raw(zeros, raw(zeros, pa.ipc.IpcWriteOptions(compression=codec)))
    assert unpack_raw(zeros, raw(zeros)).equals(zeros)


def test_a_decompression_bomb_is_refused() -> None:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        for _ in range(256):
            stream.write(bytes(SEGMENT_DECODED_BYTES_MAX // 64))
    bomb = sink.getvalue().to_pybytes()
    assert len(bomb) < SEGMENT_BYTES_MAX
    peak = pa.default_memory_pool().max_memory()
    with pytest.raises(SegmentInvalid, match="cannot have had"):
        columns.unpack(["a", "f"], 4 * SEGMENT_DECODED_BYTES_MAX, bomb, 1)
    with pytest.raises(SegmentInvalid, match="not the stated one"):
        columns.unpack(["a", "f"], SEGMENT_DECODED_BYTES_MAX, bomb, 1)
    assert pa.default_memory_pool().max_memory() - peak < 2 * SEGMENT_DECODED_BYTES_MAX


@pytest.mark.parametrize("off", [-1, 1, 64, 100_000])
def test_a_size_before_compression_that_lies_is_refused_and_shows_no_memory(off: int) -> None:
    listed, size, body = columns.pack(pa.RecordBatch.from_pydict({"a": ["same"] * 1000}))
    assert len(body) < size + off
    with pytest.raises(SegmentInvalid, match="not the stated one"):
        columns.unpack(listed, size + off, body, 1000)


@pytest.mark.parametrize("size", [-1, 0, 1, SEGMENT_DECODED_BYTES_MAX + 1, 2**62])
def test_an_impossible_size_is_refused(size: int) -> None:
    listed, _, body = columns.pack(FLOATS)
    with pytest.raises(SegmentInvalid, match="cannot have had"):
        columns.unpack(listed, size, body, 3)


def test_columns_that_share_bytes_to_claim_more_than_the_limit_are_refused() -> None:
    """Two hundred columns of half a megabyte each, all the same half megabyte of the message."""
    one = pa.array(np.zeros(1 << 16))
    wide = pa.RecordBatch.from_arrays([one] * 200, names=[f"c{number}" for number in range(200)])
    message = raw(wide)
    metadata = np.frombuffer(message[: len(message) - wide.nbytes], np.int64).copy()
    metadata[metadata == wide.nbytes] = one.nbytes  # the length of the body
    buffers = next(at for at in range(len(metadata)) if metadata[at : at + 4].tolist() == [0, 0, 0, one.nbytes])
    metadata[buffers : buffers + 2 * 2 * 200 : 2] = 0  # the offset of each buffer
    shared = metadata.tobytes() + one.buffers()[1].to_pybytes()

    def read(count: int) -> pa.RecordBatch:
        listed = [text for name in wide.schema.names[:count] for text in (name, "g")]
        return columns.unpack(listed, len(shared), shared, wide.num_rows)

    assert read(100).num_columns == 100
    with pytest.raises(SegmentInvalid, match=f"more than {SEGMENT_DECODED_BYTES_MAX}"):
        read(200)


@pytest.mark.parametrize("message", [b"", b"\xff" * 8, FLOATS.schema.serialize().to_pybytes(), b"\xff" * 64, bytes(64)])
def test_messages_of_another_kind_are_refused(message: bytes) -> None:
    with pytest.raises(SegmentInvalid):
        unpack_raw(FLOATS, message)


def nested(rows: int) -> pa.RecordBatch:
    """Every kind of buffer that a column can have."""
    fields = {
        "text": pa.array([None if row % 3 == 1 else "x" * row for row in range(rows)], pa.string()),
        "flag": pa.array([row % 2 == 0 for row in range(rows)]),
        "at": pa.array(range(rows), MOMENT),
        "gps": pa.array([{"lat": 1.0, "lon": 2.0} if row % 2 else None for row in range(rows)], POINT),
        "tags": pa.array([["a", "bb"] if row % 2 else None for row in range(rows)], pa.list_(pa.string())),
        "vector": pa.array([[1.0, 2.0]] * rows, pa.list_(pa.float32(), 2)),
    }
    return pa.RecordBatch.from_pydict(fields)


PATCHES = [
    b"\xff",
    b"\x00",
    b"\x7f",
    b"\x01",
    b"\xff" * 8,
    (2**31 - 1).to_bytes(4, "little"),
    (2**62).to_bytes(8, "little"),
]


@given(st.integers(1, 5), st.data())
def test_a_message_with_any_changed_bytes_is_refused_or_sound(rows: int, data: st.DataObject) -> None:
    message = bytearray(raw(nested(rows)))
    for _ in range(data.draw(st.integers(1, 3))):
        at, patch = data.draw(st.integers(0, len(message) - 1)), data.draw(st.sampled_from(PATCHES))
        message[at : at + len(patch)] = patch
    try:
        found = unpack_raw(nested(rows), bytes(message))
    except SegmentInvalid:
        return
    assert len(found.to_pylist()) == rows
    assert found.take(pa.array([rows - 1])).num_rows == 1
    assert pa.Table.from_batches([found, found]).combine_chunks().num_rows == 2 * rows
