"""Terms: on which conditions an edge holds a *derived* stream, one that another edge made of an original one.

A derived stream stands for an original stream and has the same sequence numbers, so what is held of the original, or of
another stream that stands for it, is not held a second time. A row is kept for as long as its time of capture and the
terms allow, whatever became of the edge in between.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select
from sqlalchemy import delete as sql_delete

from datasync.domain.ids import StreamId
from datasync.store import tables

_T, _S = tables.terms, tables.segments
PAGE_SEGMENTS = 1_000
"""Segments that are looked at in one transaction."""

_CAPTURED_MS = _S.c.captured // (1 << 16)
"""A packed hybrid time has its counter in the lower 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of one derived stream.

    ``purposes`` None: for all. ``retain_ms`` is from the time of capture; None: for ever. Only if ``onward`` may it be
    given on. ``operator`` gave it, by ``rule`` of its policy's ``revision`` (None: by none).
    """

    stream: StreamId
    stands_for: StreamId
    purposes: frozenset[str] | None
    retain_ms: int | None
    onward: bool
    operator: str
    rule: str | None
    revision: int


def add(tx: Connection, terms: Terms) -> None:
    """Keep the terms of a stream that has none yet. Raises StoreError for one that has."""
    row = {
        "stream_id": terms.stream,
        "stands_for": terms.stands_for,
        "purposes": None if terms.purposes is None else _lines(terms.purposes),
        "retain_ms": terms.retain_ms,
        "onward": terms.onward,
        "operator": terms.operator,
        "rule": terms.rule,
        "revision": terms.revision,
    }
    tx.execute(insert(_T), row)


def of_device(tx: Connection, device: str) -> dict[StreamId, Terms]:
    """Return the terms of the device's derived streams."""
    mine = tables.streams
    found = tx.execute(
        select(_T).join_from(mine, _T, _T.c.stream_id == mine.c.stream_id).where(mine.c.device == device)
    )
    return {row.stream_id: _terms(row) for row in found}


def standing_for(tx: Connection, originals: Iterable[StreamId]) -> dict[StreamId, Terms]:
    """Return the terms of every stream that stands for one of these."""
    found = tx.execute(select(_T).where(_T.c.stands_for.in_(list(originals))))
    return {row.stream_id: _terms(row) for row in found}


def originals(tx: Connection, streams: Iterable[StreamId]) -> dict[StreamId, StreamId]:
    """Return what the derived ones among these streams stand for, by derived stream."""
    found = tx.execute(select(_T.c.stream_id, _T.c.stands_for).where(_T.c.stream_id.in_(list(streams))))
    return {StreamId(derived): StreamId(original) for derived, original in found}


def delete(tx: Connection, streams: Iterable[StreamId]) -> None:
    """Forget the terms of streams that are forgotten."""
    tx.execute(sql_delete(_T).where(_T.c.stream_id.in_(list(streams))))


def expired(tx: Connection, now_ms: int) -> list[tuple[StreamId, int]]:
    """Return segments whose time is over at this wall time, as stream and id; some of them, when there are many."""
    joined = select(_S.c.stream_id, _S.c.id).join_from(_T, _S, _S.c.stream_id == _T.c.stream_id)
    return [(row.stream_id, row.id) for row in tx.execute(joined.where(~_is_kept(now_ms)).limit(PAGE_SEGMENTS))]


def next_expiry_ms(tx: Connection) -> int | None:
    """Return the wall time at which the next segment expires."""
    ends = func.min(_CAPTURED_MS + _T.c.retain_ms)
    limited = _T.c.retain_ms.is_not(None)
    first = tx.scalar(select(ends).join_from(_T, _S, _S.c.stream_id == _T.c.stream_id).where(limited))
    return None if first is None else int(first) + 1


def allows(purpose: str, now_ms: int) -> ColumnElement[bool]:
    """Return the condition on ``tables.segments`` that its stream's terms, if any, allow this purpose at this time."""
    # REPLACE, as it finds a text on every database and tells capitals apart.
    listed = func.replace(_T.c.purposes, _lines({purpose}), "") != _T.c.purposes
    fits = (_T.c.purposes.is_(None) | listed) & _is_kept(now_ms)
    return ~select(_T.c.stream_id).where(_T.c.stream_id == _S.c.stream_id, ~fits).correlate(_S).exists()


def _is_kept(now_ms: int) -> ColumnElement[bool]:
    return _T.c.retain_ms.is_(None) | (_CAPTURED_MS + _T.c.retain_ms >= now_ms)


def _lines(purposes: Iterable[str]) -> str:
    """Return the purposes as lines, each between two line ends: no name has a line end in it."""
    return "\n".join(["", *sorted(purposes), ""])


def _terms(row: Row[Any]) -> Terms:
    return Terms(
        stream=row.stream_id,
        stands_for=row.stands_for,
        purposes=None if row.purposes is None else frozenset(filter(None, row.purposes.split("\n"))),
        retain_ms=row.retain_ms,
        onward=row.onward,
        operator=row.operator,
        rule=row.rule,
        revision=row.revision,
    )
