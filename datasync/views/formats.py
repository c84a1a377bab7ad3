"""The formats in which a view leaves the process: Arrow IPC stream, JSON lines and CSV.

A writer turns batches into bytes as they come and keeps nothing back. A reader of the Arrow stream can tell a whole
stream from a torn one by its end marker; with the other two that is up to the transport (HTTP's last chunk).
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from datasync.views.text import base64_text, json_objects, json_text, timestamp_text


class Writer(Protocol):
    """Turns the batches of one view into bytes; what precedes the first batch comes with it."""

    def batch(self, batch: pa.RecordBatch) -> bytes:
        """Return the bytes of one batch."""
        ...

    def end(self) -> bytes:
        """Return what closes the format, with what would have preceded a batch if there was none."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """One format: its name in ``format=``, its content type, and how to begin writing it."""

    name: str
    content_type: str
    writer: Callable[[pa.Schema], Writer]


class ArrowWriter:
    """Arrow IPC stream."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        self._stream = pa.ipc.new_stream(self._sink, schema)

    def batch(self, batch: pa.RecordBatch) -> bytes:
        """Return one record batch message, the first time after the schema message."""
        self._stream.write_batch(batch)
        return self._sink.take()

    def end(self) -> bytes:
        """Return the end-of-stream marker."""
        self._stream.close()
        return self._sink.take()


class JsonLinesWriter:
    """One JSON object for each row on a line of its own; :mod:`datasync.views.text` says how values are written."""

    def __init__(self, schema: pa.Schema) -> None:
        self._names = schema.names

    def batch(self, batch: pa.RecordBatch) -> bytes:
        """Return the rows of one batch as lines."""
        lines = json_objects(self._names, batch.columns, end="\n")
        whole = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
        text: bytes = pc.binary_join(whole, "")[0].as_buffer().to_pybytes()
        return text

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class CsvWriter:
    """RFC 4180 with a header line.

    A point is two columns, such as ``gps.lat`` and ``gps.lon``; a list or vector is JSON text, and binary values are
    base64. A null is empty, an empty string ``""``.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        self._stream = pacsv.CSVWriter(self._sink, _flat(pa.RecordBatch.from_pylist([], schema)).schema)

    def batch(self, batch: pa.RecordBatch) -> bytes:
        """Return the rows of one batch as lines, the first time after the header."""
        self._stream.write_batch(_flat(batch))
        return self._sink.take()

    def end(self) -> bytes:
        """Return the header if no batch came."""
        self._stream.close()
        return self._sink.take()


ARROW = Format("arrow", "application/vnd.apache.arrow.stream", ArrowWriter)
JSON_LINES = Format("jsonl", "application/x-ndjson", JsonLinesWriter)
CSV = Format("csv", "text/csv", CsvWriter)
FORMATS = (ARROW, JSON_LINES, CSV)
"""The most preferred first."""


class _Sink(io.RawIOBase):
    """What Arrow's writers write into; ``take`` empties it."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        part = bytes(data)
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = dict(_flat_columns(batch))
    return pa.record_batch(list(columns.values()), names=list(columns))


def _flat_columns(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.Array]]:
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_struct(field.type):
            yield from zip((f"{field.name}.{part.name}" for part in field.type), column.flatten(), strict=True)
        elif pa.types.is_timestamp(field.type):
            yield field.name, timestamp_text(column)
        elif pa.types.is_binary(field.type):
            yield field.name, base64_text(column)
        elif pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            yield field.name, json_text(column)
        else:
            yield field.name, column
