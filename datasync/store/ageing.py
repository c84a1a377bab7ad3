"""Ageing: which segments are old, and which of those somebody still waits for.

Old segments are looked at in the order of their capture, a page at a time, so a look costs what the page costs,
whatever else is stored. Views join the layers of a batch and the changes of a document, so neither is taken apart: a
batch is owed while one of its layers is, and a document's changes live while the last of them does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, and_, func, or_, select, tuple_
from sqlalchemy import delete as sql_delete

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.store import tables
from datasync.store.segments import State

OWED = (State.WAITING, State.DURABLE)
"""The states of a segment that is not yet wherever it must be."""

_S = tables.segments
_MINE = tables.streams.alias("mine")
_OTHER = tables.streams.alias("other")
_LAYER = tables.segments.alias("layer")
_IS_OWED = _LAYER.c.state.in_([int(state) for state in OWED])


@dataclass(frozen=True, slots=True)
class Aged:
    """What there is to know of a segment that may go; ``device`` is None where it is not known."""

    id: int
    stream: StreamId
    device: str | None
    rows: int
    seq_first: int
    captured: HybridTime


@dataclass(frozen=True, slots=True)
class Named:
    """A stream, whose it is where that is known, and of what."""

    stream: StreamId
    device: str | None
    collection: str


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of some streams."""

    segments: int
    rows: int


def captured_before(
    tx: Connection, collection: str, before: HybridTime, *, after: Aged | None, limit: int
) -> list[Aged]:
    """Return the collection's segments that were captured earlier, the oldest first, behind ``after``."""
    query = _aged().where(_S.c.collection == collection, _S.c.captured < before.pack())
    if after is not None:
        query = query.where(tuple_(_S.c.captured, _S.c.id) > tuple_(after.captured.pack(), after.id))
    return _found(tx, query.order_by(_S.c.captured, _S.c.id).limit(limit))


def streams_after(tx: Connection, stream: StreamId | None, limit: int) -> list[Named]:
    """Return the streams of all devices by id, those behind ``stream``."""
    query = select(_MINE.c.stream_id, _MINE.c.device, _MINE.c.collection).order_by(_MINE.c.stream_id).limit(limit)
    if stream is not None:
        query = query.where(_MINE.c.stream_id > stream)
    return [Named(row.stream_id, row.device, row.collection) for row in tx.execute(query)]


def of_stream(tx: Connection, stream: StreamId, *, after_seq: int, limit: int) -> list[Aged]:
    """Return the stream's segments above a sequence number, whatever their age, by number."""
    query = _aged().where(_S.c.stream_id == stream, _S.c.seq_first > after_seq)
    return _found(tx, query.order_by(_S.c.seq_first).limit(limit))


def whole_batches(tx: Connection, aged: Iterable[Aged]) -> list[Aged]:
    """Return the segments with all layers of their batches, but nothing of a batch of which a layer is owed."""
    same_batch = and_(_LAYER.c.stream_id == _OTHER.c.stream_id, _LAYER.c.seq_first == _S.c.seq_first)
    columns = (_LAYER.c.id, _LAYER.c.stream_id, _OTHER.c.device, _LAYER.c.rows, _LAYER.c.seq_first, _LAYER.c.captured)
    query = _family(select(_S.c.id.label("of"), _LAYER.c.state, *columns)).join(_LAYER, same_batch)
    found = tx.execute(query.where(_S.c.id.in_([each.id for each in aged]))).all()
    owed = {row.of for row in found if row.state in OWED}
    return list({row.id: _row(row) for row in found if row.of not in owed}.values())


def owed_streams(tx: Connection, streams: Iterable[StreamId]) -> set[StreamId]:
    """Return those of the streams of which, or of whose other layers, anything is still owed."""
    query = select(_MINE.c.stream_id).join(_OTHER, together(_MINE, _OTHER))
    query = query.join(_LAYER, _LAYER.c.stream_id == _OTHER.c.stream_id)
    return set(tx.scalars(query.where(_MINE.c.stream_id.in_(list(streams)), _IS_OWED).distinct()))


def living(tx: Connection, aged: Iterable[Aged], since: HybridTime) -> set[int]:
    """Return the ids of those segments whose stream, or one of its other layers, was last captured ``since`` or later.

    A stream is captured in the order of its numbers, so its last segment tells.
    """
    last = select(_LAYER.c.captured).where(_LAYER.c.stream_id == _OTHER.c.stream_id).correlate(_OTHER)
    newest = last.order_by(_LAYER.c.seq_first.desc()).limit(1).scalar_subquery()
    query = _family(select(_S.c.id)).where(_S.c.id.in_([each.id for each in aged]), newest >= since.pack())
    return set(tx.scalars(query))


def layers(tx: Connection, stream: StreamId) -> list[StreamId]:
    """Return the stream and its other layers."""
    query = select(_OTHER.c.stream_id).join_from(_MINE, _OTHER, together(_MINE, _OTHER))
    return list(tx.scalars(query.where(_MINE.c.stream_id == stream)))


def size(tx: Connection, streams: Iterable[StreamId]) -> Size:
    """Return how much there is of the streams."""
    sums = select(func.count(), func.coalesce(func.sum(_S.c.rows), 0))
    found = tx.execute(sums.where(_S.c.stream_id.in_(list(streams)))).one()
    return Size(int(found[0]), int(found[1]))


def delete(tx: Connection, aged: Iterable[Aged]) -> None:
    """Delete segments with their bodies. That they were here stays in their streams' ranges."""
    tx.execute(sql_delete(_S).where(_S.c.id.in_([each.id for each in aged])))


def together(mine: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the condition on two streams that they are layers of the same rows; every stream is one of its own."""
    siblings = and_(other.c.device == mine.c.device, other.c.collection == mine.c.collection)
    return or_(other.c.stream_id == mine.c.stream_id, siblings)


def _family(query: Select[Any]) -> Select[Any]:
    return query.join_from(_S, _MINE, _MINE.c.stream_id == _S.c.stream_id).join(_OTHER, together(_MINE, _OTHER))


def _aged() -> Select[Any]:
    columns = (_S.c.id, _S.c.stream_id, _MINE.c.device, _S.c.rows, _S.c.seq_first, _S.c.captured)
    return select(*columns).join_from(_S, _MINE, _MINE.c.stream_id == _S.c.stream_id)


def _found(tx: Connection, query: Select[Any]) -> list[Aged]:
    return [_row(row) for row in tx.execute(query)]


def _row(row: Row[Any]) -> Aged:
    return Aged(row.id, row.stream_id, row.device, row.rows, row.seq_first, HybridTime.unpack(row.captured))
