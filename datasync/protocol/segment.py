"""Segments: immutable batches of one stream's rows, which the stream's checkpoints sign.

A segment is a CBOR list: a small header that says which rows these are, and the rows as Arrow columns
(:mod:`columns`). The stream's id is its key's fingerprint and the key is in the header; ``previous`` is the hash of the
stream's segment before, so the segments form a chain. A segment bears no signature: its hash is listed in a signed
:mod:`checkpoint <datasync.protocol.checkpoint>`, and whoever holds the two can check the one by the other, without
learning whose stream it is.

The hash is over a salt too, which only who may read the segment has: so it can be shown to those that may not, and
they cannot find out what is in the segment by trying.

A layer without gaps has a row for every number in ``seq_first..seq_last``; one with gaps carries the numbers in the
column ``_seq``. What :func:`rows` returns was checked in full: it is safe to compute on.
"""

import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from datasync.domain.clock import HybridTime
from datasync.domain.errors import MessageError, MessageTooLarge, SegmentInvalid
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
from datasync.protocol import cbor, columns

SALT_BYTES = 16
SEQUENCE_COLUMN = "_seq"

Meta = Mapping[str, str | int | float | bool]
Sequence = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Header:
    """Which rows a segment holds.

    ``captured`` is when the batch was closed, ``time_*_ms`` the bounds of the collection's time column in the layer
    (None without one), ``policy_digest`` the policy that split the batch (64 hexadecimal digits), ``meta`` the
    device's constants, ``previous`` the hash of the stream's segment before (empty for the first).
    """

    stream: StreamId
    public_key: bytes
    collection: str
    tier: Tier
    seq_first: int
    seq_last: int
    rows: int
    captured: HybridTime
    time_min_ms: int | None
    time_max_ms: int | None
    policy_digest: str
    meta: Meta
    previous: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment: its header, all of its bytes, and their SHA-256 as 64 hexadecimal digits."""

    header: Header
    data: bytes
    hash: str


def salt_of(header: Header, key: Ed25519PrivateKey) -> bytes:
    """Return the salt of a segment: its stream's key alone gives it, and gives it again."""
    about = f"datasync/segment-salt/1/{header.seq_first}/{header.captured.pack()}"
    return hmac.digest(key.private_bytes_raw(), about.encode(), "sha256")[:SALT_BYTES]


def encode(header: Header, batch: pa.RecordBatch, positions: Sequence | None, salt: bytes) -> Segment:
    """Return the segment of these rows.

    ``positions`` are the rows' offsets from ``seq_first``, increasing; None when there is a row for every number.
    ``salt`` has ``SALT_BYTES`` bytes that nobody can guess. Raises SegmentInvalid when header, rows and positions do
    not fit together or a limit is exceeded, and MessageTooLarge when the segment would be larger than
    ``SEGMENT_BYTES_MAX``.
    """
    _check(header)
    _require(len(salt) == SALT_BYTES, f"the salt has not {SALT_BYTES} bytes")
    if SEQUENCE_COLUMN in batch.schema.names:
        raise SegmentInvalid(f"the column name {SEQUENCE_COLUMN!r} is reserved")
    if batch.num_rows != header.rows:
        raise SegmentInvalid(f"the batch has {batch.num_rows} rows, the header says {header.rows}")
    if positions is not None:
        numbers = header.seq_first + np.asarray(positions, dtype=np.int64)
        _check_numbers(numbers, header)
        if 0 < header.rows < _span(header):
            batch = batch.append_column(SEQUENCE_COLUMN, pa.array(numbers))
    elif header.rows != _span(header):
        raise SegmentInvalid(f"{header.rows} rows for {_span(header)} sequence numbers need positions")
    data = cbor.dumps([*_to_list(header), salt, *columns.pack(batch)])
    _check_size(data)
    return Segment(header, data, hashlib.sha256(data).hexdigest())


def parse(data: bytes) -> Segment:
    """Return a segment with a checked header; its columns are checked by :func:`rows`.

    Whether it is its stream's, a checkpoint says. Raises MessageTooLarge or SegmentInvalid.
    """
    _check_size(data)
    header = _from_list(_content(data)[:_HEADER_ITEMS])
    _check(header)
    return Segment(header, data, hashlib.sha256(data).hexdigest())


def rows(segment: Segment) -> tuple[pa.RecordBatch, Sequence]:
    """Return a segment's rows and their sequence numbers. Raises SegmentInvalid."""
    header = segment.header
    names, size, body = _content(segment.data)[-_COLUMN_ITEMS:]
    if not (isinstance(names, list) and type(size) is int and isinstance(body, bytes)):
        raise SegmentInvalid("the columns are malformed")
    batch = columns.unpack(names, size, body, header.rows)
    if batch.schema.names[-1:] != [SEQUENCE_COLUMN]:
        if header.rows not in (0, _span(header)):
            raise SegmentInvalid("the segment has gaps, but does not say where")
        return batch, np.arange(header.seq_first, header.seq_first + header.rows, dtype=np.int64)
    column = batch.column(batch.num_columns - 1)
    if column.type != pa.int64() or column.null_count:
        raise SegmentInvalid("the sequence numbers are no whole numbers")
    numbers = column.to_numpy(zero_copy_only=True)
    _check_numbers(numbers, header)
    return batch.select(range(batch.num_columns - 1)), numbers


_VERSION = 2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEADER_TYPES: tuple[tuple[type, ...], ...] = (
    (int,),  # version
    (bytes,),  # public key
    (str,),  # collection
    (int,),  # tier
    (int,),  # first sequence number
    (int,),  # last sequence number
    (int,),  # rows
    (int,),  # captured
    (int, type(None)),  # earliest time
    (int, type(None)),  # latest time
    (bytes,),  # policy digest
    (dict,),  # meta
    (bytes,),  # previous
)
_HEADER_ITEMS = len(_HEADER_TYPES)
_COLUMN_ITEMS = 3
_ITEMS = _HEADER_ITEMS + 1 + _COLUMN_ITEMS


def _to_list(header: Header) -> list[object]:
    return [
        _VERSION,
        header.public_key,
        header.collection,
        int(header.tier),
        header.seq_first,
        header.seq_last,
        header.rows,
        header.captured.pack(),
        header.time_min_ms,
        header.time_max_ms,
        bytes.fromhex(header.policy_digest),
        dict(header.meta),
        bytes.fromhex(header.previous),
    ]


def _from_list(items: list[Any]) -> Header:
    if not all(type(item) in types for item, types in zip(items, _HEADER_TYPES, strict=True)):
        raise SegmentInvalid("the header is malformed")
    version, public_key, collection, tier, first, last, count, captured, time_min, time_max, digest, meta, previous = (
        items
    )
    if version != _VERSION:
        raise SegmentInvalid(f"segments of version {version} are not known here")
    try:
        stream, known_tier, stamp = stream_id(public_key), Tier(tier), HybridTime.unpack(captured)
    except ValueError as error:
        raise SegmentInvalid(f"the header is malformed: {error}") from error
    return Header(
        stream, public_key, collection, known_tier, first, last, count, stamp, time_min, time_max,
        digest.hex(), meta, previous.hex(),
    )  # fmt: skip


def _content(data: bytes) -> list[Any]:
    try:
        items = cbor.loads(data)
    except MessageError as error:
        raise SegmentInvalid(error.detail) from error
    if not isinstance(items, list) or len(items) != _ITEMS:
        raise SegmentInvalid(f"a segment is a list of {_ITEMS} items")
    salt = items[_HEADER_ITEMS]
    if not isinstance(salt, bytes) or len(salt) != SALT_BYTES:
        raise SegmentInvalid(f"the salt has not {SALT_BYTES} bytes")
    return items


def _span(header: Header) -> int:
    return header.seq_last - header.seq_first + 1


def _check(header: Header) -> None:
    """Raise SegmentInvalid unless the header is consistent and within the limits."""
    _require(len(header.public_key) == 32, "the stream's key has not 32 bytes")
    _require(header.stream == stream_id(header.public_key), "the stream's id is not its key's fingerprint")
    _require(0 < len(header.collection) <= NAME_CHARACTERS_MAX, "the collection's name is empty or too long")
    _require(header.collection.isprintable(), "the collection's name has control characters")
    _require(0 <= header.seq_first <= header.seq_last <= SEQUENCE_MAX, "the sequence numbers are out of bounds")
    _require(_span(header) <= SEGMENT_ROWS_MAX, f"it spans more than {SEGMENT_ROWS_MAX} sequence numbers")
    _require(0 <= header.rows <= _span(header), "it has more rows than sequence numbers")
    times = (header.time_min_ms, header.time_max_ms)
    if header.time_min_ms is not None and header.time_max_ms is not None:
        _require(
            -SEQUENCE_MAX <= header.time_min_ms <= header.time_max_ms <= SEQUENCE_MAX, "the times are out of bounds"
        )
    else:
        _require(times == (None, None), "only one of the times is given")
    _require(bool(_DIGEST.fullmatch(header.policy_digest)), "the policy's digest has not 64 hexadecimal digits")
    chained = header.previous == "" or bool(_DIGEST.fullmatch(header.previous))
    _require(chained, "the hash of the segment before has not 64 hexadecimal digits")
    _check_meta(header.meta)


def _check_meta(meta: Meta) -> None:
    _require(len(meta) <= META_ENTRIES_MAX, f"it has more than {META_ENTRIES_MAX} constants")
    for name, value in meta.items():
        _require(isinstance(name, str) and 0 < len(name) <= NAME_CHARACTERS_MAX, "a constant's name is malformed")
        match value:
            case bool():
                fits = True
            case str():
                fits = len(value) <= META_TEXT_CHARACTERS_MAX
            case int():
                fits = abs(value) <= SEQUENCE_MAX
            case float():
                fits = math.isfinite(value)
            case _:
                fits = False
        _require(fits, f"the constant {name!r} is no text, number or boolean within the limits")


def _check_numbers(numbers: Sequence, header: Header) -> None:
    _require(len(numbers) == header.rows, f"{len(numbers)} sequence numbers for {header.rows} rows")
    if len(numbers):
        _require(bool(np.all(numbers[1:] > numbers[:-1])), "the sequence numbers do not increase")
        inside = header.seq_first <= numbers[0] and numbers[-1] <= header.seq_last
        _require(bool(inside), "a sequence number is outside of the segment's")


def _check_size(data: bytes) -> None:
    if len(data) > SEGMENT_BYTES_MAX:
        raise MessageTooLarge(f"the segment has {len(data)} bytes, more than {SEGMENT_BYTES_MAX}")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SegmentInvalid(otherwise)
