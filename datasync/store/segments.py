"""Segments: what a node holds of every stream, as metadata here and as encrypted bodies beside it.

A segment has an ``id`` from the moment it is stored and a ``position`` while it may be seen. Both come from one
counter that never gives a number twice, so a sender's cursor over ids and a view's cursor over positions pass
over nothing, whatever is deleted, concealed or revealed in between. Segments that were pre-copied, frozen or
are held for a device that moved away have no position and are in no view; nor have those that came from elsewhere and
that no verified checkpoint of their stream signs yet.
"""

import enum
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy import delete as sql_delete

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.store import counters, tables

Meta = Mapping[str, str | int | float | bool]

_T = tables.segments
_COUNTER = "segments"
_INSERT = insert(_T)
_INSERT_BODY = insert(tables.bodies)
_IN_STATE = _T.c.state == bindparam("in_state")
_OLDEST_AFTER, _NEWEST_AFTER = (
    select(_T).where(_IN_STATE, _T.c.id > bindparam("after_id")).order_by(order).limit(bindparam("limit"))
    for order in (_T.c.id, _T.c.id.desc())
)
_OLDEST = select(_T.c.id).where(_IN_STATE).order_by(_T.c.id).limit(1)
_BODIES = select(tables.bodies.c.id, tables.bodies.c.body).where(
    tables.bodies.c.id.in_(bindparam("ids", expanding=True))
)
_SETTLE = (
    update(_T)
    .where(_T.c.id == bindparam("of_id"))
    .values(checkpoint=bindparam("by"), position=bindparam("at"), state=bindparam("to"))
)
_SIGN = update(_T).where(_T.c.id == bindparam("of_id")).values(checkpoint=bindparam("to"))
_UNSIGNED = (
    select(_T)
    .where(
        _T.c.stream_id.in_(bindparam("streams", expanding=True)),
        _T.c.seq_first.between(bindparam("first"), bindparam("last")),
        _T.c.checkpoint.is_(None),
    )
    .order_by(_T.c.seq_first)
)
_UNSIGNED_AT = select(_T).where(
    _T.c.stream_id.in_(bindparam("streams", expanding=True)),
    _T.c.seq_first.in_(bindparam("firsts", expanding=True)),
    _T.c.checkpoint.is_(None),
)
_MARK = (
    update(_T)
    .where(
        _T.c.stream_id == bindparam("of_stream"),
        _T.c.seq_first.between(bindparam("first"), bindparam("last")),
        _T.c.seq_last <= bindparam("last"),
        _T.c.state.in_(bindparam("from_states", expanding=True)),
    )
    .values(state=bindparam("to_state"))
)


class State(enum.IntEnum):
    """How far a segment is on its way to where it must be."""

    WAITING = 0
    """To be sent: by a device to its edge, by an edge to the cloud."""
    DURABLE = 1
    """The receiver has it durably; not yet in a second place."""
    SAFE = 2
    """Held wherever it must be; this copy may go."""
    LOCAL = 3
    """Never sent on from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """A stored segment's metadata; ``checkpoint`` is the verified one that signs it, None while none does."""

    id: int
    position: int | None
    stream: StreamId
    collection: str
    tier: Tier
    seq_first: int
    seq_last: int
    rows: int
    bytes: int
    captured: HybridTime
    time_min_ms: int | None
    time_max_ms: int | None
    policy_digest: str
    meta: Meta
    hash: str
    key_id: str
    state: State
    checkpoint: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSegment:
    """A segment to store; ``body`` is what the vault encrypted, ``bytes`` the size to count for it."""

    body: bytes
    visible: bool
    stream: StreamId
    collection: str
    tier: Tier
    seq_first: int
    seq_last: int
    rows: int
    bytes: int
    captured: HybridTime
    time_min_ms: int | None
    time_max_ms: int | None
    policy_digest: str
    meta: Meta
    hash: str
    key_id: str
    state: State
    checkpoint: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of a hidden segment when it turns out whose it is."""

    id: int
    checkpoint: int
    shown: bool
    state: State


@dataclass(frozen=True, slots=True)
class Count:
    """How much there is of one collection at one tier; ``bytes`` are those of the bodies."""

    collection: str
    tier: Tier
    segments: int
    rows: int
    bytes: int


def append(tx: Connection, segments: Sequence[NewSegment]) -> None:
    """Store the segments; visible ones get positions in the order given.

    Raises StoreError, and the transaction is lost, when a stream already has a segment with that ``seq_first``.
    """
    if not segments:
        return
    first = counters.take(tx, _COUNTER, len(segments))
    tx.execute(_INSERT, [_row(number, segment) for number, segment in enumerate(segments, first)])
    tx.execute(_INSERT_BODY, [{"id": number, "body": each.body} for number, each in enumerate(segments, first)])


def reveal(tx: Connection, streams: Iterable[StreamId]) -> int:
    """Give positions to the streams' signed segments that have none, in the order of capture; return how many."""
    hidden = and_(_T.c.stream_id.in_(list(streams)), _T.c.position.is_(None), _T.c.checkpoint.is_not(None))
    count = tx.scalar(select(func.count()).select_from(_T).where(hidden)) or 0
    if not count:
        return 0
    first = counters.take(tx, _COUNTER, count)
    rank = func.row_number().over(order_by=(_T.c.captured, _T.c.seq_first, _T.c.tier, _T.c.id))
    ranked = select(_T.c.id, rank.label("rank")).where(hidden).subquery("ranked")
    tx.execute(update(_T).where(_T.c.id == ranked.c.id).values(position=ranked.c.rank + (first - 1)))
    return count


def settle(tx: Connection, settled: Sequence[Settled]) -> None:
    """Note what signs these segments and what state they are in; give positions to those that are shown, in order."""
    if not settled:
        return
    shown = sum(each.shown for each in settled)
    position = counters.take(tx, _COUNTER, shown) if shown else 0
    rows = []
    for each in settled:
        rows.append({"of_id": each.id, "by": each.checkpoint, "at": position if each.shown else None, "to": each.state})
        position += each.shown
    tx.execute(_SETTLE, rows)


def conceal(tx: Connection, streams: Iterable[StreamId]) -> int:
    """Take the positions of the streams' segments away, so that no view shows them; return how many."""
    shown = and_(_T.c.stream_id.in_(list(streams)), _T.c.position.is_not(None))
    return tx.execute(update(_T).where(shown).values(position=None)).rowcount


def waiting(tx: Connection, *, after_id: int = 0, limit: int, newest: bool = False) -> list[StoredSegment]:
    """Return segments still to be sent, ids above ``after_id``, the oldest first or the newest first."""
    wanted = {"in_state": int(State.WAITING), "after_id": after_id, "limit": limit}
    return _stored(tx, _NEWEST_AFTER if newest else _OLDEST_AFTER, wanted)


def oldest(tx: Connection, state: State) -> int | None:
    """Return the id of the oldest segment in a state."""
    return tx.scalar(_OLDEST, {"in_state": int(state)})


def page(tx: Connection, *, after_id: int, limit: int) -> list[StoredSegment]:
    """Return segments by id, those above ``after_id``, whatever their state."""
    return _stored(tx, select(_T).where(_T.c.id > after_id).order_by(_T.c.id).limit(limit))


def get(tx: Connection, number: int) -> StoredSegment | None:
    """Return the segment with this id."""
    return next(iter(_stored(tx, select(_T).where(_T.c.id == number))), None)


def of_stream(tx: Connection, stream: StreamId, within: RangeSet | None = None) -> list[StoredSegment]:
    """Return the stream's segments by ``seq_first``; with ``within``, those that touch it."""
    query = select(_T).where(_T.c.stream_id == stream).order_by(_T.c.seq_first)
    if within is None:
        return _stored(tx, query)
    touching = [and_(_T.c.seq_first <= last, _T.c.seq_last >= first) for first, last in within]
    return _stored(tx, query.where(or_(*touching))) if touching else []


def bodies(tx: Connection, ids: Iterable[int]) -> dict[int, bytes]:
    """Return the encrypted bodies by id."""
    return {row.id: row.body for row in tx.execute(_BODIES, {"ids": list(ids)})}


def mark(tx: Connection, stream: StreamId, ranges: RangeSet, state: State, *, from_states: Iterable[State]) -> int:
    """Move the stream's segments that lie wholly inside one of the ranges to ``state``; return how many.

    The cost is that of the segments in the ranges: pass what is new in an acknowledgement, not all of it.
    """
    moving = {"of_stream": stream, "from_states": [int(each) for each in from_states], "to_state": int(state)}
    return sum(tx.execute(_MARK, moving | {"first": first, "last": last}).rowcount for first, last in ranges)


def mark_these(tx: Connection, ids: Iterable[int], state: State, *, from_states: Iterable[State]) -> None:
    """Move these segments to ``state``."""
    moving = and_(_T.c.id.in_(list(ids)), _T.c.state.in_([int(each) for each in from_states]))
    tx.execute(update(_T).where(moving).values(state=int(state)))


def unsigned(tx: Connection, streams: Iterable[StreamId], numbers: RangeSet) -> list[StoredSegment]:
    """Return by number the streams' segments that begin within ``numbers`` and that no checkpoint signs."""
    of = list(streams)
    found = (_stored(tx, _UNSIGNED, {"streams": of, "first": first, "last": last}) for first, last in numbers)
    return [each for within in found for each in within]


def unsigned_at(tx: Connection, begins: Collection[tuple[StreamId, int]]) -> list[StoredSegment]:
    """Return the segments that no checkpoint signs and that begin there, by stream and first sequence number."""
    if not begins:
        return []
    # SQLite finds no index for pairs; streams that were written together begin at the same numbers, mostly
    apart = {"streams": sorted({stream for stream, _ in begins}), "firsts": sorted({first for _, first in begins})}
    wanted = set(begins)
    return [each for each in _stored(tx, _UNSIGNED_AT, apart) if (each.stream, each.seq_first) in wanted]


def sign(tx: Connection, checkpoints: Mapping[int, int]) -> None:
    """Note the checkpoint that signs each of these segments, both by id."""
    if checkpoints:
        tx.execute(_SIGN, [{"of_id": number, "to": checkpoint} for number, checkpoint in checkpoints.items()])


def visible(
    tx: Connection, collection: str, tier: Tier, *, after: int, limit: int, extra: Iterable[ColumnElement[bool]] = ()
) -> list[StoredSegment]:
    """Return the layer's visible segments with positions above ``after``, by position.

    ``extra`` are conditions on the columns of ``tables.segments``.
    """
    query = select(_T).where(_T.c.collection == collection, _T.c.tier == int(tier), _T.c.position > after, *extra)
    return _stored(tx, query.order_by(_T.c.position).limit(limit))


def visible_of_stream(
    tx: Connection, stream: StreamId, *, after_seq: int, until: int, limit: int
) -> list[StoredSegment]:
    """Return the stream's visible segments above a number and with positions up to ``until``, by number."""
    query = select(_T).where(_T.c.stream_id == stream, _T.c.seq_first > after_seq, _T.c.position <= until)
    return _stored(tx, query.order_by(_T.c.seq_first).limit(limit))


def partners(
    tx: Connection, segments: Sequence[StoredSegment], tiers: Iterable[Tier]
) -> dict[int, dict[Tier, StoredSegment]]:
    """Return, by the id of each given segment, the visible segments of the same batch at the given tiers.

    Layers of one batch share their device, collection, sequence numbers and time of capture. A stream without a
    known device has no partners.
    """
    mine, other, partner = tables.streams.alias("mine"), tables.streams.alias("other"), _T.alias("partner")
    siblings = and_(other.c.device == mine.c.device, other.c.collection == mine.c.collection)
    batch = and_(*(partner.c[name] == _T.c[name] for name in ("seq_first", "seq_last", "captured")))
    query = (
        select(_T.c.id.label("base"), *partner.c)
        .join_from(_T, mine, mine.c.stream_id == _T.c.stream_id)
        .join(other, and_(siblings, other.c.tier.in_([int(tier) for tier in tiers])))
        .join(partner, and_(partner.c.stream_id == other.c.stream_id, batch))
        .where(_T.c.id.in_([segment.id for segment in segments]), partner.c.position.is_not(None))
    )
    found: dict[int, dict[Tier, StoredSegment]] = {segment.id: {} for segment in segments}
    for row in tx.execute(query):
        found[row.base][Tier(row.tier)] = _segment(row)
    return found


def count(tx: Connection, states: Iterable[State]) -> int:
    """Return how many segments are in these states."""
    wanted = _T.c.state.in_([int(state) for state in states])
    return tx.scalar(select(func.count()).select_from(_T).where(wanted)) or 0


def key_ids(tx: Connection, stream: StreamId) -> list[str]:
    """Return the data keys that the stream's segments are encrypted under."""
    return list(tx.scalars(select(_T.c.key_id).where(_T.c.stream_id == stream).distinct().order_by(_T.c.key_id)))


def delete_under(tx: Connection, stream: StreamId, key_id: str) -> RangeSet:
    """Delete the stream's segments that are encrypted under a data key; return their sequence numbers."""
    these = and_(_T.c.stream_id == stream, _T.c.key_id == key_id)
    numbers = tx.execute(select(_T.c.seq_first, _T.c.seq_last).where(these))
    gone = RangeSet.of((row.seq_first, row.seq_last) for row in numbers)
    tx.execute(sql_delete(_T).where(these))
    return gone


def delete(tx: Connection, streams: Iterable[StreamId]) -> int:
    """Delete the streams' segments with their bodies; return how many."""
    return tx.execute(sql_delete(_T).where(_T.c.stream_id.in_(list(streams)))).rowcount


def delete_these(tx: Connection, ids: Iterable[int]) -> int:
    """Delete the segments with these ids with their bodies; return how many there were."""
    return tx.execute(sql_delete(_T).where(_T.c.id.in_(list(ids)))).rowcount


def waiting_streams(tx: Connection, streams: Iterable[StreamId]) -> set[StreamId]:
    """Return those of the streams that have segments still to be sent."""
    waits = and_(_T.c.stream_id.in_(list(streams)), _T.c.state == int(State.WAITING))
    return set(tx.scalars(select(_T.c.stream_id).where(waits).distinct()))


def counts(tx: Connection) -> list[Count]:
    """Return what there is, by collection and tier. Reads all metadata: for status pages, not for each message."""
    sums = (func.count(), func.sum(_T.c.rows), func.sum(_T.c.bytes))
    query = select(_T.c.collection, _T.c.tier, *sums).group_by(_T.c.collection, _T.c.tier)
    return [
        Count(collection, Tier(tier), int(segments), int(rows), int(size))
        for collection, tier, segments, rows, size in tx.execute(query.order_by(_T.c.collection, _T.c.tier))
    ]


def _row(number: int, segment: NewSegment) -> dict[str, Any]:
    return {
        "id": number,
        "position": number if segment.visible else None,
        "stream_id": segment.stream,
        "collection": segment.collection,
        "tier": int(segment.tier),
        "seq_first": segment.seq_first,
        "seq_last": segment.seq_last,
        "rows": segment.rows,
        "bytes": segment.bytes,
        "captured": segment.captured.pack(),
        "time_min_ms": segment.time_min_ms,
        "time_max_ms": segment.time_max_ms,
        "policy_digest": segment.policy_digest,
        "meta": json.dumps(dict(segment.meta), separators=(",", ":")),
        "hash": segment.hash,
        "key_id": segment.key_id,
        "state": int(segment.state),
        "checkpoint": segment.checkpoint,
    }


def _stored(tx: Connection, query: Select[Any], wanted: Mapping[str, Any] | None = None) -> list[StoredSegment]:
    return [_segment(row) for row in tx.execute(query, wanted)]


def _segment(row: Row[Any]) -> StoredSegment:
    return StoredSegment(
        id=row.id,
        position=row.position,
        stream=row.stream_id,
        collection=row.collection,
        tier=Tier(row.tier),
        seq_first=row.seq_first,
        seq_last=row.seq_last,
        rows=row.rows,
        bytes=row.bytes,
        captured=HybridTime.unpack(row.captured),
        time_min_ms=row.time_min_ms,
        time_max_ms=row.time_max_ms,
        policy_digest=row.policy_digest,
        meta=json.loads(row.meta),
        hash=row.hash,
        key_id=row.key_id,
        state=State(row.state),
        checkpoint=row.checkpoint,
    )
