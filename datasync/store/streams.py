"""Streams: one (device, collection, tier) each, with the range sets of what is here and what is safe elsewhere.

``have`` is what this node holds durably, ``safe`` what a second place is known to hold, ``signed`` what the stream's
verified checkpoints are over. Where the device of a stream is not known (in the cloud) it is None. Range sets are
packed as a CBOR list of bounds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cbor2
from sqlalchemy import Connection, Row, Update, bindparam, insert, select, update
from sqlalchemy import delete as sql_delete

from datasync.domain.clock import Instant
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.store import tables

_T = tables.streams
_GET = select(_T).where(_T.c.stream_id.in_(bindparam("ids", expanding=True)))
_OF_DEVICE = (
    select(_T).where(_T.c.device == bindparam("of_device")).order_by(_T.c.collection, _T.c.tier, _T.c.generation)
)
_PUT_HAVE, _PUT_SAFE, _PUT_SIGNED = (
    update(_T).where(_T.c.stream_id == bindparam("of_stream")).values({column: bindparam("packed")})
    for column in ("have", "safe", "signed")
)


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream as a node knows it; ``generation`` counts the keys that the (device, collection, tier) has had."""

    stream: StreamId
    public_key: bytes
    device: str | None
    collection: str
    tier: Tier
    generation: int = 0
    have: RangeSet = field(default_factory=RangeSet)
    safe: RangeSet = field(default_factory=RangeSet)
    signed: RangeSet = field(default_factory=RangeSet)


def add(tx: Connection, stream: Stream, now: Instant) -> None:
    """Add a stream that is not known yet. Raises StoreError for one that is."""
    row = {
        "stream_id": stream.stream,
        "public_key": stream.public_key,
        "device": stream.device,
        "collection": stream.collection,
        "tier": int(stream.tier),
        "generation": stream.generation,
        "have": _pack(stream.have),
        "safe": _pack(stream.safe),
        "signed": _pack(stream.signed),
        "created_ms": now.wall_ms,
    }
    tx.execute(insert(_T), row)


def get(tx: Connection, ids: Iterable[StreamId]) -> dict[StreamId, Stream]:
    """Return those of the streams that are known."""
    wanted = list(ids)
    found = map(_stream, tx.execute(_GET, {"ids": wanted})) if wanted else ()
    return {stream.stream: stream for stream in found}


def of_device(tx: Connection, device: str) -> list[Stream]:
    """Return the device's streams by collection, tier and generation."""
    return [_stream(row) for row in tx.execute(_OF_DEVICE, {"of_device": device})]


def put_have(tx: Connection, ranges: Mapping[StreamId, RangeSet]) -> None:
    """Replace the range sets of what is held here."""
    _put(tx, _PUT_HAVE, ranges)


def put_safe(tx: Connection, ranges: Mapping[StreamId, RangeSet]) -> None:
    """Replace the range sets of what is safe elsewhere."""
    _put(tx, _PUT_SAFE, ranges)


def put_signed(tx: Connection, ranges: Mapping[StreamId, RangeSet]) -> None:
    """Replace the range sets of what is signed."""
    _put(tx, _PUT_SIGNED, ranges)


def delete(tx: Connection, ids: Iterable[StreamId]) -> None:
    """Forget the streams; their segments are deleted by :func:`datasync.store.segments.delete`."""
    tx.execute(sql_delete(_T).where(_T.c.stream_id.in_(list(ids))))


def _put(tx: Connection, statement: Update, ranges: Mapping[StreamId, RangeSet]) -> None:
    if ranges:
        tx.execute(statement, [{"of_stream": stream, "packed": _pack(held)} for stream, held in ranges.items()])


def _pack(ranges: RangeSet) -> bytes:
    return cbor2.dumps(ranges.to_list())


def _unpack(packed: bytes) -> RangeSet:
    bounds: Sequence[int] = cbor2.loads(packed)
    return RangeSet(tuple(zip(bounds[::2], bounds[1::2], strict=True)))


def _stream(row: Row[Any]) -> Stream:
    return Stream(
        stream=row.stream_id,
        public_key=row.public_key,
        device=row.device,
        collection=row.collection,
        tier=Tier(row.tier),
        generation=row.generation,
        have=_unpack(row.have),
        safe=_unpack(row.safe),
        signed=_unpack(row.signed),
    )
