"""A record batch as bytes, and back from bytes that may be hostile.

The bytes are one Arrow IPC record batch message without the schema message, which would be most of a single row: the
columns' names and types stand beside it as short text, with the letters of Arrow's C data interface. Only plain types
have a letter, so there is no way to say dictionary, extension or view. The message is compressed as a whole with
LZ4: Arrow's own compression, buffer by buffer, is larger and slower on batches of this size, and it would allocate
whatever each buffer claims. The size before compression is stated, bounded and enforced.
"""

import re
import struct
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from datasync.domain.errors import SegmentInvalid
from datasync.domain.limits import (
    NAME_CHARACTERS_MAX,
    SEGMENT_COLUMNS_MAX,
    SEGMENT_DECODED_BYTES_MAX,
    VECTOR_LENGTH_MAX,
)

POINT = pa.struct([("lat", pa.float64()), ("lon", pa.float64())])

_CODEC = "lz4"
_LIST, _MOMENT = "+l", "tsu:UTC"
_SCALARS = {
    "b": pa.bool_(),
    "i": pa.int32(),
    "l": pa.int64(),
    "f": pa.float32(),
    "g": pa.float64(),
    "u": pa.string(),
    "z": pa.binary(),
    _MOMENT: pa.timestamp("us", "UTC"),
}
_VECTOR_CODE = re.compile(r"\+w:([1-9][0-9]{0,7})")
_BY_CODE = {
    **_SCALARS,
    **{_LIST + code: pa.list_(scalar) for code, scalar in _SCALARS.items()},
    "point": POINT,
}
_BY_TYPE = {kind: code for code, kind in _BY_CODE.items()}
_BUFFERS_MAX = 5
"""Buffers of one column: a list of strings has two for the list and three for the strings."""

_MOMENT_MIN_US, _MOMENT_MAX_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_HEADER_OF_MESSAGE, _COMPRESSION_OF_BATCH = 2, 3
"""Field numbers in Arrow's Message.fbs."""


def pack(batch: pa.RecordBatch) -> tuple[list[str], int, bytes]:
    """Return a batch's columns (name, type, name, type, ...), its size before compression, and its bytes.

    Without rows there are no bytes. Raises SegmentInvalid for a type without a letter, a value that :func:`unpack`
    would refuse, or more than the limits allow.
    """
    columns = [text for field in batch.schema for text in (field.name, _code(field.name, field.type))]
    _check_columns(columns)
    if not batch.num_rows:
        return columns, 0, b""
    _check_values(batch, columns)
    message = batch.serialize()
    if message.size > SEGMENT_DECODED_BYTES_MAX:
        raise SegmentInvalid(f"the batch takes {message.size} bytes, more than {SEGMENT_DECODED_BYTES_MAX}")
    compressed = pa.Codec(_CODEC).compress(message)
    pays = compressed.size < message.size
    return columns, message.size, (compressed if pays else message).to_pybytes()


def unpack(columns: Sequence[object], size: int, body: bytes, rows: int) -> pa.RecordBatch:
    """Return the batch of ``rows`` rows that :func:`pack` packed. Raises SegmentInvalid for anything else."""
    schema = pa.schema(_fields(columns))
    if not rows:
        # Made here, not read: Arrow does not check the offsets of an empty list, and its kernels abort on bad ones.
        if size or body:
            raise SegmentInvalid("there are columns, but no rows")
        return pa.RecordBatch.from_pylist([], schema)
    message = _decompress(body, size)
    try:
        batch = _read(message, schema)
        batch.validate()
    except (pa.ArrowException, OSError, EOFError, ValueError, struct.error) as error:
        raise SegmentInvalid(f"the columns cannot be read: {error}") from error
    # Buffers may share bytes of the message, so the columns can claim more than its size; nbytes is slow, so only then.
    if _BUFFERS_MAX * len(schema) * size > SEGMENT_DECODED_BYTES_MAX and batch.nbytes > SEGMENT_DECODED_BYTES_MAX:
        raise SegmentInvalid(f"the columns take more than {SEGMENT_DECODED_BYTES_MAX} bytes")
    if batch.num_rows != rows:
        raise SegmentInvalid(f"the columns have {batch.num_rows} rows, the header says {rows}")
    _check_values(batch, columns)
    return batch


def _code(name: str, kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32():
        return f"+w:{kind.list_size}"
    code = _BY_TYPE.get(pa.list_(kind.value_type) if pa.types.is_list(kind) else kind)
    if code is None:
        raise SegmentInvalid(f"the column {name!r} has the type {kind}, which segments do not carry")
    return code


def _fields(columns: Sequence[object]) -> list[pa.Field]:
    _check_columns(columns)
    return [pa.field(str(name), _type(code)) for name, code in zip(columns[::2], columns[1::2], strict=True)]


def _check_columns(columns: Sequence[object]) -> None:
    names = columns[::2]
    if len(columns) % 2 or len(names) > SEGMENT_COLUMNS_MAX:
        raise SegmentInvalid(f"the columns are no list of at most {SEGMENT_COLUMNS_MAX} names and types")
    if not all(isinstance(name, str) and 0 < len(name) <= NAME_CHARACTERS_MAX for name in names):
        raise SegmentInvalid(f"a column's name is no text of 1 to {NAME_CHARACTERS_MAX} characters")
    if len(set(names)) != len(names):
        raise SegmentInvalid("two columns have the same name")


def _check_values(batch: pa.RecordBatch, columns: Sequence[object]) -> None:
    """Raise SegmentInvalid unless every value is in its buffers, valid UTF-8, and a moment that Python can express."""
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise SegmentInvalid(f"the columns are not sound: {error}") from error
    for index, code in enumerate(columns[1::2]):
        if code == _MOMENT:
            _check_moments(batch.column(index))
        elif code == _LIST + _MOMENT:
            _check_moments(batch.column(index).flatten())


def _check_moments(moments: pa.TimestampArray) -> None:
    bounds = pc.min_max(moments)
    first, last = bounds["min"].value, bounds["max"].value
    if first is not None and not _MOMENT_MIN_US <= first <= last <= _MOMENT_MAX_US:
        raise SegmentInvalid("a timestamp is outside of the years 1 to 9999")


def _type(code: object) -> pa.DataType:
    if isinstance(code, str):
        if code in _BY_CODE:
            return _BY_CODE[code]
        vector = _VECTOR_CODE.fullmatch(code)
        if vector and int(vector[1]) <= VECTOR_LENGTH_MAX:
            return pa.list_(pa.float32(), int(vector[1]))
    raise SegmentInvalid(f"there is no type {code!r}")


def _decompress(body: bytes, size: int) -> pa.Buffer:
    if not len(body) <= size <= SEGMENT_DECODED_BYTES_MAX:
        raise SegmentInvalid(f"{len(body)} bytes of columns cannot have had {size} before compression")
    if len(body) == size:
        return pa.py_buffer(body)
    # Not Codec.decompress: given too large a size, it returns uninitialised memory after the content.
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), _CODEC) as stream:
            message = stream.read_buffer(size + 1)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SegmentInvalid(f"the columns cannot be decompressed: {error}") from error
    if message.size != size:
        raise SegmentInvalid("the columns' size before compression is not the stated one")
    return message


def _read(message: pa.Buffer, schema: pa.Schema) -> pa.RecordBatch:
    parsed = pa.ipc.read_message(message)
    # pyarrow has no option to refuse compressed buffers, so the flag is looked up in the FlatBuffers table.
    metadata = parsed.metadata.to_pybytes()
    table = _target(metadata, _slot(metadata, _target(metadata, 0), _HEADER_OF_MESSAGE))
    if _slot(metadata, table, _COMPRESSION_OF_BATCH):
        raise SegmentInvalid("the columns' buffers are compressed one by one")
    return pa.ipc.read_record_batch(parsed, schema)


def _target(metadata: bytes, position: int) -> int:
    """Return where a FlatBuffers offset points."""
    return int(position + struct.unpack_from("<I", metadata, position)[0])


def _slot(metadata: bytes, table: int, field: int) -> int:
    """Return the position of a field in a FlatBuffers table, or 0 when the table leaves it out."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if not 0 <= vtable < len(metadata):
        raise ValueError("an offset points outside of the message")
    entry = 4 + 2 * field
    if entry >= struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", metadata, vtable + entry)[0]
    return table + offset if offset else 0
