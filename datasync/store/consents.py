"""Consents: whether the subject of a stream allows a purpose, as the stream's key signed it.

A later stamp wins and at the same stamp a withdrawal, whatever the order of arrival, so statements may be repeated,
reordered and forwarded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, not_, or_, select, update
from sqlalchemy import delete as sql_delete

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.store import registers, tables
from datasync.store.segments import State
from datasync.store.statements import insert

_T = tables.consents
_SAID = "said"
_IN_STATE = (
    select(_T)
    .where(_T.c.state == bindparam("in_state"))
    .order_by(_T.c.stream_id, _T.c.purpose)
    .limit(bindparam("limit"))
)


@dataclass(frozen=True, slots=True)
class Consent:
    """One stream's answer for one purpose; ``statement`` is the signed message, ``state`` its way onward."""

    stream: StreamId
    purpose: str
    given: bool
    stamp: HybridTime
    statement: bytes
    state: State


@dataclass(frozen=True, slots=True)
class Said:
    """What a device's subject said last of one purpose, for all streams of the device and those to come."""

    given: bool
    stamp: HybridTime


def said(tx: Connection) -> dict[str, Said]:
    """Return by purpose what the subject said; only a device knows."""
    kept: dict[str, tuple[bool, int]] = registers.get(tx, _SAID, {})
    return {purpose: Said(given, HybridTime.unpack(stamp)) for purpose, (given, stamp) in kept.items()}


def put_said(tx: Connection, said: Mapping[str, Said]) -> None:
    """Keep what the subject said."""
    registers.put(tx, _SAID, {purpose: (each.given, each.stamp.pack()) for purpose, each in said.items()})


def put(tx: Connection, consent: Consent) -> bool:
    """Store the consent unless the statement that is known wins over it; return whether it was stored."""
    statement = insert(tx.dialect.name, _T).values(
        stream_id=consent.stream,
        purpose=consent.purpose,
        given=consent.given,
        stamp=consent.stamp.pack(),
        statement=consent.statement,
        state=int(consent.state),
    )
    changed = {name: statement.excluded[name] for name in ("given", "stamp", "statement", "state")}
    said = statement.excluded
    wins = or_(said.stamp > _T.c.stamp, and_(said.stamp == _T.c.stamp, _T.c.given, not_(said.given)))
    kept = statement.on_conflict_do_update(index_elements=["stream_id", "purpose"], set_=changed, where=wins)
    return tx.execute(kept.returning(_T.c.stream_id)).first() is not None


def of_streams(tx: Connection, streams: Iterable[StreamId], purpose: str | None = None) -> list[Consent]:
    """Return what is known of the streams, for one purpose or for all."""
    query = select(_T).where(_T.c.stream_id.in_(list(streams)))
    if purpose is not None:
        query = query.where(_T.c.purpose == purpose)
    return [_consent(row) for row in tx.execute(query.order_by(_T.c.stream_id, _T.c.purpose))]


def waiting(tx: Connection, *, limit: int) -> list[Consent]:
    """Return statements still to be sent."""
    return [_consent(row) for row in tx.execute(_IN_STATE, {"in_state": int(State.WAITING), "limit": limit})]


def count(tx: Connection, state: State) -> int:
    """Return how many statements are in a state."""
    return tx.scalar(select(func.count()).select_from(_T).where(_T.c.state == int(state))) or 0


def mark(tx: Connection, consents: Iterable[Consent], state: State) -> None:
    """Move these very statements to ``state``; one that a newer statement replaced meanwhile stays as it is."""
    these = [{"key": c.stream, "for_purpose": c.purpose, "at": c.stamp.pack()} for c in consents]
    if these:
        same = (_T.c.stream_id == bindparam("key"), _T.c.purpose == bindparam("for_purpose"))
        tx.execute(update(_T).where(*same, _T.c.stamp == bindparam("at")).values(state=int(state)), these)


def delete(tx: Connection, streams: Iterable[StreamId]) -> None:
    """Forget the streams' consents."""
    tx.execute(sql_delete(_T).where(_T.c.stream_id.in_(list(streams))))


def _consent(row: Row[Any]) -> Consent:
    stamp = HybridTime.unpack(row.stamp)
    return Consent(row.stream_id, row.purpose, row.given, stamp, row.statement, State(row.state))
