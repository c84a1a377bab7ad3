"""Handovers: what moved, between whom, how far it got and how long each part of it took.

The rows stay after the handover ends: they are what ``handover list`` and the admin API show, and the figures
that the interruption is computed from.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy import delete as sql_delete

from datasync.store import tables
from datasync.store.statements import upsert

VERDICTS = "verdicts"
"""Where a handover's detail says what became of each collection."""

_T = tables.handovers


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """One handover as this node takes part in it; a time is None until that point is reached."""

    handover: str
    device: str
    role: str
    peer: str | None
    phase: str
    incarnation: int
    epoch: int
    planned: bool
    started_ms: int
    frozen_ms: int | None = None
    active_ms: int | None = None
    finished_ms: int | None = None
    segments: int = 0
    rows: int = 0
    bytes: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)


def get(tx: Connection, handover: str) -> Handover | None:
    """Return the handover with this id."""
    row = tx.execute(select(_T).where(_T.c.handover == handover)).one_or_none()
    return None if row is None else _handover(row)


def put(tx: Connection, handover: Handover) -> None:
    """Store the handover in place of what was known of it."""
    upsert(tx, _T, [asdict(handover) | {"detail": json.dumps(handover.detail, separators=(",", ":"))}])


def all(  # noqa: A001 - read with its module
    tx: Connection, *, phases: Iterable[str] | None = None, device: str | None = None, limit: int | None = None
) -> list[Handover]:
    """Return the handovers, the newest first; of the given phases, of one device, at most ``limit``."""
    query = select(_T).order_by(_T.c.started_ms.desc(), _T.c.handover).limit(limit)
    if phases is not None:
        query = query.where(_T.c.phase.in_(list(phases)))
    if device is not None:
        query = query.where(_T.c.device == device)
    return [_handover(row) for row in tx.execute(query)]


def delete(tx: Connection, handover: str) -> None:
    """Forget the handover."""
    tx.execute(sql_delete(_T).where(_T.c.handover == handover))


def _handover(row: Row[Any]) -> Handover:
    values = dict(row._mapping)
    return Handover(**values | {"detail": json.loads(row.detail)})
