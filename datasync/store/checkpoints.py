"""Checkpoints: the signatures that this node has, of the streams it captures and of those that it was given.

One that arrives is stored at once and verified afterwards; one that is made here is owed to whoever takes the stream's
segments until that one said that it has it. A segment names the verified one that signs it, so that the two go on
together.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, insert, select, update
from sqlalchemy import delete as sql_delete

from datasync.domain.ids import StreamId
from datasync.domain.limits import SEQUENCE_MAX
from datasync.domain.ranges import RangeSet
from datasync.protocol import checkpoint
from datasync.protocol.checkpoint import Checkpoint
from datasync.store import counters, tables
from datasync.store.segments import State
from datasync.store.statements import Insert
from datasync.store.statements import insert as insert_or
from datasync.store.streams import Stream

_T = tables.checkpoints
_S = tables.segments
_COUNTER = "checkpoints"
_IN_STATE = select(_T).where(_T.c.state == bindparam("in_state")).order_by(_T.c.id).limit(bindparam("limit"))
_GET = select(_T).where(_T.c.id.in_(bindparam("ids", expanding=True)))


_SIGNING = (
    select(_T)
    .where(_T.c.id.in_(select(_S.c.checkpoint).where(_S.c.id.in_(bindparam("ids", expanding=True)))))
    .order_by(_T.c.id)
)
_HERE = select(_T.c.id, _T.c.stream_id, _T.c.seq_last, _T.c.seq_first).where(
    _T.c.stream_id.in_(bindparam("streams", expanding=True)), _T.c.seq_last.in_(bindparam("lasts", expanding=True))
)
_INSERT = insert(_T)


class Standing(enum.IntEnum):
    """How far a checkpoint is."""

    PENDING = 0
    """It arrived; its signature was not verified yet."""
    OWED = 1
    """Made here, and not yet known to be where the segments go."""
    KNOWN = 2
    """Verified, or made here and wherever it must be."""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as it is kept; ``numbers`` run from ``seq_first`` to ``seq_last``, perhaps with gaps."""

    id: int
    stream: StreamId
    seq_first: int
    seq_last: int
    standing: Standing
    body: bytes


def arrive(tx: Connection, arrived: Iterable[Checkpoint], known: Mapping[StreamId, Stream]) -> dict[StreamId, RangeSet]:
    """Store checkpoints of the known streams to be verified; return the numbers of those that were verified before.

    Those of other streams are left out; they come again.
    """
    new, before = [], dict[StreamId, RangeSet]()
    for each in arrived:
        if each.stream not in known:
            continue
        if each.numbers - known[each.stream].signed:
            new.append(each)
        else:
            before[each.stream] = before.get(each.stream, RangeSet()) | each.numbers
    if new:
        first = counters.take(tx, _COUNTER, len(new))
        rows = [_row(number, each, Standing.PENDING) for number, each in enumerate(new, first)]
        tx.execute(_insert_new(tx.dialect.name), rows)
    return before


def verify_again(tx: Connection, stream: Stream, first: int, last: int) -> None:
    """Let the checkpoints that are here of these numbers be verified once more: what they sign has come after them."""
    if stream.signed.touches(first, last):
        again(tx, stream.stream, RangeSet.of([(first, last)]), Standing.PENDING)


def add(tx: Connection, checkpoints: Sequence[Checkpoint], standing: Standing) -> list[int]:
    """Store those of the checkpoints that are not here yet; return the ids of all, in the order given."""
    if not checkpoints:
        return []
    spans = {_span(each): each for each in checkpoints}
    apart = {"streams": sorted({span[0] for span in spans}), "lasts": sorted({span[1] for span in spans})}
    ids = {(row.stream_id, row.seq_last, row.seq_first): row.id for row in tx.execute(_HERE, apart)}
    new = [each for span, each in spans.items() if span not in ids]
    ids |= {_span(each): number for each, number in zip(new, add_new(tx, [(n, standing) for n in new]), strict=True)}
    return [ids[_span(each)] for each in checkpoints]


def add_new(tx: Connection, made: Sequence[tuple[Checkpoint, Standing]]) -> list[int]:
    """Store checkpoints that cannot be here yet; return their ids. Raises StoreError, and all is lost, if one is."""
    if not made:
        return []
    first = counters.take(tx, _COUNTER, len(made))
    tx.execute(_INSERT, [_row(number, each, standing) for number, (each, standing) in enumerate(made, first)])
    return list(range(first, first + len(made)))


def in_standing(tx: Connection, standing: Standing, *, limit: int) -> list[StoredCheckpoint]:
    """Return the oldest checkpoints of a standing."""
    return _stored(tx, _IN_STATE, {"in_state": int(standing), "limit": limit})


def last(tx: Connection) -> int:
    """Return the id of the newest checkpoint that was ever stored, 0 before the first."""
    return counters.last(tx, _COUNTER)


def pending_of(tx: Connection, streams: Iterable[StreamId]) -> list[StoredCheckpoint]:
    """Return those of the streams' checkpoints that are not verified yet."""
    pending = and_(_T.c.stream_id.in_(list(streams)), _T.c.state == int(Standing.PENDING))
    return _stored(tx, select(_T).where(pending).order_by(_T.c.id))


def get(tx: Connection, ids: Iterable[int]) -> list[StoredCheckpoint]:
    """Return those of the checkpoints that are here, by id."""
    wanted = sorted(set(ids))
    return sorted(_stored(tx, _GET, {"ids": wanted}), key=lambda each: each.id) if wanted else []


def of_segments(tx: Connection, ids: Iterable[int]) -> list[StoredCheckpoint]:
    """Return the checkpoints that sign these segments, by id."""
    return _stored(tx, _SIGNING, {"ids": list(ids)})


def owed_of_sent(tx: Connection, *, limit: int) -> list[StoredCheckpoint]:
    """Return the oldest that are owed and whose segments wait no longer to be sent, so that they go by themselves."""
    unsent = and_(_S.c.stream_id == _T.c.stream_id, _S.c.seq_first == _T.c.seq_first, _S.c.state == int(State.WAITING))
    owed = and_(_T.c.state == int(Standing.OWED), ~exists().where(unsent))
    return _stored(tx, select(_T).where(owed).order_by(_T.c.id).limit(limit))


def newest_beyond(tx: Connection, has: Mapping[StreamId, RangeSet], *, limit: int) -> list[bytes]:
    """Return those of the streams' newest checkpoints that sign other segments than these numbers have."""
    query = select(_T).where(_T.c.stream_id.in_(list(has))).order_by(_T.c.id.desc()).limit(limit)
    newest = [checkpoint.parse(each.body) for each in reversed(_stored(tx, query))]
    return [each.data for each in newest if each.numbers - has[each.stream]]


def settle(tx: Connection, ids: Iterable[int], standing: Standing) -> None:
    """Note how far these checkpoints are."""
    tx.execute(update(_T).where(_T.c.id.in_(list(ids))).values(state=int(standing)))


def acknowledge(tx: Connection, signed: Mapping[StreamId, RangeSet]) -> list[StoredCheckpoint]:
    """Note that nobody is owed the streams' checkpoints within these numbers any more; return them."""
    owed = and_(_T.c.stream_id.in_(list(signed)), _T.c.state == int(Standing.OWED))
    found = _stored(tx, select(_T).where(owed))
    done = [each for each in found if not checkpoint.parse(each.body).numbers - signed[each.stream]]
    if done:
        settle(tx, [each.id for each in done], Standing.KNOWN)
    return done


def again(tx: Connection, stream: StreamId, numbers: RangeSet, standing: Standing) -> None:
    """Let the stream's known checkpoints that touch these numbers be of another standing once more."""
    for first, last in numbers:
        touching = and_(_T.c.stream_id == stream, _T.c.seq_last >= first, _T.c.seq_first <= last)
        known = and_(touching, _T.c.state == int(Standing.KNOWN))
        tx.execute(update(_T).where(known).values(state=int(standing)))


def delete(tx: Connection, streams: Iterable[StreamId]) -> None:
    """Delete the streams' checkpoints."""
    tx.execute(sql_delete(_T).where(_T.c.stream_id.in_(list(streams))))


def delete_these(tx: Connection, ids: Iterable[int]) -> None:
    """Delete the checkpoints with these ids."""
    tx.execute(sql_delete(_T).where(_T.c.id.in_(list(ids))))


def delete_idle(tx: Connection, stream: StreamId, first: int = 0, last: int = SEQUENCE_MAX) -> None:
    """Delete the stream's checkpoints that end within these numbers, sign nothing here, and that nobody waits for."""
    ends = and_(_T.c.stream_id == stream, _T.c.seq_last.between(first, last), _T.c.state == int(Standing.KNOWN))
    within = and_(_S.c.stream_id == _T.c.stream_id, _S.c.seq_first.between(_T.c.seq_first, _T.c.seq_last))
    tx.execute(sql_delete(_T).where(ends, ~exists().where(within)))


@cache
def _insert_new(dialect: str) -> Insert:
    return insert_or(dialect, _T).on_conflict_do_nothing(index_elements=["stream_id", "seq_last", "seq_first"])


def _span(each: Checkpoint) -> tuple[StreamId, int, int]:
    return each.stream, each.entries[-1].seq_last, each.entries[0].seq_first


def _row(number: int, each: Checkpoint, standing: Standing) -> dict[str, object]:
    stream, seq_last, seq_first = _span(each)
    return {
        "id": number,
        "stream_id": stream,
        "seq_first": seq_first,
        "seq_last": seq_last,
        "state": int(standing),
        "body": each.data,
    }


def _stored(tx: Connection, query: Select[Any], wanted: Mapping[str, Any] | None = None) -> list[StoredCheckpoint]:
    return [_checkpoint(row) for row in tx.execute(query, wanted)]


def _checkpoint(row: Row[Any]) -> StoredCheckpoint:
    return StoredCheckpoint(row.id, row.stream_id, row.seq_first, row.seq_last, Standing(row.state), row.body)
