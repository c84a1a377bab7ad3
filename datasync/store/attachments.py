"""Attachments: which edge serves a device, as this node knows it, fenced by (incarnation, epoch).

A device has one row, about itself; an edge and a cloud have one for each device. The states are those of
``handover/states.py``. Secrets (``session_key``) come here wrapped by the vault, never in the clear.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select
from sqlalchemy import delete as sql_delete

from datasync.store import tables
from datasync.store.statements import upsert

_T = tables.attachments
_STATES = select(_T.c.device, _T.c.state).where(_T.c.device.in_(bindparam("devices", expanding=True)))
_GET = select(_T).where(_T.c.device == bindparam("of_device"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One device's attachment; ``since_ms`` is when it got into ``state``. What does not apply is None.

    ``owes`` says that this node has something to send for it, again and again, until it is answered.
    """

    device: str
    state: str
    incarnation: int
    epoch: int
    edge: str | None = None
    previous: str | None = None
    handover: str | None = None
    nonce: str | None = None
    mode: str | None = None
    token: bytes | None = None
    session_key: bytes | None = None
    certificate: bytes | None = None
    owes: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)
    since_ms: int
    updated_ms: int


def get(tx: Connection, device: str) -> Attachment | None:
    """Return the device's attachment."""
    row = tx.execute(_GET, {"of_device": device}).one_or_none()
    return None if row is None else _attachment(row)


def put(tx: Connection, attachment: Attachment) -> None:
    """Store the attachment in place of the device's former one."""
    upsert(tx, _T, [asdict(attachment) | {"detail": json.dumps(attachment.detail, separators=(",", ":"))}])


def all(tx: Connection, states: Iterable[str] | None = None) -> list[Attachment]:  # noqa: A001 - read with its module
    """Return all attachments, or those in the given states, by device."""
    query = select(_T).order_by(_T.c.device)
    if states is not None:
        query = query.where(_T.c.state.in_(list(states)))
    return [_attachment(row) for row in tx.execute(query)]


def states(tx: Connection, devices: Iterable[str]) -> dict[str, str]:
    """Return by device in what state its attachment is."""
    return {row.device: row.state for row in tx.execute(_STATES, {"devices": list(devices)})}


def owing(tx: Connection) -> list[Attachment]:
    """Return the attachments for which this node owes somebody something, by device."""
    return [_attachment(row) for row in tx.execute(select(_T).where(_T.c.owes).order_by(_T.c.device))]


def with_streams(tx: Connection, states: Iterable[str]) -> list[str]:
    """Return the devices in the given states of which this node knows a stream."""
    streams = tables.streams
    query = select(_T.c.device).join(streams, streams.c.device == _T.c.device).where(_T.c.state.in_(list(states)))
    return list(tx.scalars(query.distinct().order_by(_T.c.device)))


def delete(tx: Connection, device: str) -> None:
    """Forget the device's attachment."""
    tx.execute(sql_delete(_T).where(_T.c.device == device))


def _attachment(row: Row[Any]) -> Attachment:
    values = dict(row._mapping)
    return Attachment(**values | {"detail": json.loads(row.detail)})
