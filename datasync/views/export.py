"""An export: everything that a device holds of its subject, as one ZIP archive that is made as it is read.

It is no view: the rows are the subject's own, so no rule hides any of them, and every layer is given as it was signed,
with its sequence numbers and the time of its capture. A file has the rows of one stream; one more begins where a new
policy gave the collection other columns. The manifest, which comes last, says what is in which file, what the subject
consented to, and what was erased.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.errors import BodyDamaged, KeyUnavailable, SegmentInvalid
from datasync.security.vault import Vault
from datasync.store import segments
from datasync.store.opening import open_layer
from datasync.store.segments import StoredSegment
from datasync.store.streams import Stream

Kind = Literal["parquet", "arrow"]
Read = Callable[[Callable[[Connection], Any]], Any]
"""Runs a query in a read transaction of its own."""

PAGE_SEGMENTS = 64
SEQUENCE, CAPTURED = "_sequence", "_captured"
"""The columns that an export adds to every file: a row's number in its stream, and when it was captured."""


@dataclass(slots=True)
class _Listed:
    """What the manifest says of one stream."""

    stream: Stream
    files: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0

    def as_dict(self) -> dict[str, Any]:
        each = self.stream
        return {
            "stream": each.stream,
            "collection": each.collection,
            "tier": each.tier.label,
            "generation": each.generation,
            "rows": sum(file["rows"] for file in self.files),
            "files": self.files,
            "unreadable_segments": self.unreadable,
        }


class Export:
    """One export. ``about`` is what its maker knows besides, for the manifest."""

    def __init__(self, vault: Vault, streams: list[Stream], kind: Kind, about: Mapping[str, Any], now: Instant) -> None:
        self._vault = vault
        self._streams = streams
        self._kind = kind
        self._about = about
        self._now = now

    def pieces(self, read: Read) -> Iterator[bytes]:
        """Yield the archive's bytes, each part as soon as it is read."""
        outlet = _Outlet()
        listed = [_Listed(stream) for stream in self._streams]
        with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
            for each in listed:
                for _ in self._write(archive, each, read):
                    yield outlet.take()
            manifest = {
                "format": "datasync.export/v1",
                "exported_ms": self._now.wall_ms,
                **self._about,
                "streams": [each.as_dict() for each in listed],
            }
            archive.writestr("manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False))
        yield outlet.take()

    def _write(self, archive: zipfile.ZipFile, listed: _Listed, read: Read) -> Iterator[None]:
        """Write the files of one stream, giving way after each page."""
        file: _File | None = None
        for page in self._pages(listed, read):
            for batch in page:
                if file is None or file.schema != batch.schema:
                    if file is not None:
                        file.close()
                    file = _File(archive, listed, self._kind, batch.schema)
                file.write(batch)
            yield
        if file is not None:
            file.close()

    def _pages(self, listed: _Listed, read: Read) -> Iterator[list[pa.RecordBatch]]:
        """Yield the rows of a stream, by number, those of a few segments at one time."""
        stored: list[StoredSegment] = read(partial(segments.of_stream, stream=listed.stream.stream))
        for start in range(0, len(stored), PAGE_SEGMENTS):
            page = stored[start : start + PAGE_SEGMENTS]
            bodies = read(partial(segments.bodies, ids=[each.id for each in page]))
            rows = []
            for each in page:
                with suppress(KeyUnavailable, BodyDamaged, SegmentInvalid):
                    rows.append(self._opened(each, bodies.get(each.id, b"")))
            listed.unreadable += len(page) - len(rows)
            yield rows

    def _opened(self, each: StoredSegment, body: bytes) -> pa.RecordBatch:
        layer = open_layer(self._vault, each, body)
        batch, numbers = layer.batch, layer.numbers
        captured = pa.array(np.full(batch.num_rows, each.captured.wall_ms), pa.timestamp("ms", "UTC"))
        arrays = [pa.array(numbers, pa.int64()), captured, *batch.columns]
        return pa.RecordBatch.from_arrays(arrays, names=[SEQUENCE, CAPTURED, *batch.schema.names])


class _File:
    """A file of the archive that is being written."""

    def __init__(self, archive: zipfile.ZipFile, listed: _Listed, kind: Kind, schema: pa.Schema) -> None:
        stream, number = listed.stream, len(listed.files)
        name = f"{stream.collection}/{stream.tier.label}-{stream.generation}-{number}.{kind}"
        self.schema = schema
        self._entry: dict[str, Any] = {"name": name, "rows": 0}
        listed.files.append(self._entry)
        self._zipped = archive.open(name, "w", force_zip64=True)
        self._sink = pa.PythonFile(self._zipped, mode="w")
        new_writer = pq.ParquetWriter if kind == "parquet" else pa.ipc.new_file
        self._writer = new_writer(self._sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self._entry["rows"] += batch.num_rows

    def close(self) -> None:
        self._writer.close()
        if not self._sink.closed:
            self._sink.close()
        self._zipped.close()


class _Outlet(io.RawIOBase):
    """Where the archive is written to, and taken from in pieces; it cannot be gone back in."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._written)
        self._written.clear()
        return taken
