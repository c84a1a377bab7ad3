"""The audit log of administration: who changed what at this node, and who tried; views are in :mod:`store.decisions`.

``append(tx, event, actor, subject, detail, at_ms)`` adds one entry in the transaction that makes the change, so that
neither is ever there without the other. ``actor`` is who wanted it (``administrator``, a node's name), ``subject`` what
it was done to (a worker, a device, a stream's id, a policy's digest: never a person's data), ``detail`` a few JSON
values besides. The entries are a chain of hashes (:mod:`store.chain`).
"""

import enum
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from datasync.domain.limits import AUDIT_DETAIL_BYTES_MAX, AUDIT_NAME_CHARACTERS_MAX
from datasync.store import tables
from datasync.store.chain import Chain, Link

_T = tables.audit
_PAGE = 1_000

CHAIN = Chain("audit", "datasync/audit/1", _T)
ADMINISTRATOR, ERASURE = "administrator", "erasure"
"""Actors that are no nodes."""


class Event(enum.StrEnum):
    """What can be in the log."""

    WORKER_ENROLLED = "worker-enrolled"
    WORKER_REVOKED = "worker-revoked"
    NODE_REVOKED = "node-revoked"
    POLICY_ACTIVATED = "policy-activated"
    POLICY_REFUSED = "policy-refused"
    CONSENT_SAID = "consent-said"
    EXPORT = "export"
    ERASURE = "erasure"
    HANDOVER_STARTED = "handover-started"
    SIGN_IN_REFUSED = "sign-in-refused"
    CHANGE_ASKED = "change-asked"
    """An administrator whom a certificate names asked for a change; what came of it follows, without the name."""

    KEY_ROTATED = "key-rotated"
    LOG_CONTRADICTED = "log-contradicted"
    MODEL_REGISTERED = "model-registered"
    MODEL_READ = "model-read"
    MODEL_DELETED = "model-deleted"
    MODEL_TOUCHED = "model-touched"
    """Something that it was trained on was erased, and it is kept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, with its number (from 1 on, without gaps) and its hash (64 hexadecimal digits)."""

    number: int
    at_ms: int
    event: str
    actor: str
    subject: str
    detail: Mapping[str, Any]
    hash: str

    def to_json(self) -> str:
        """Return the entry as one line of JSON."""
        return json.dumps(asdict(self))


def append(tx: Connection, event: Event, actor: str, subject: str, detail: Mapping[str, Any], at_ms: int) -> Entry:
    """Add an entry at the end of the log; names that are too long are cut.

    Raises ValueError for a detail that is no JSON, or a large one.
    """
    text = json.dumps(detail, sort_keys=True, allow_nan=False)
    if len(text) > AUDIT_DETAIL_BYTES_MAX:
        raise ValueError(f"the detail has {len(text)} bytes as JSON, more than {AUDIT_DETAIL_BYTES_MAX}")
    actor, subject = actor[:AUDIT_NAME_CHARACTERS_MAX], subject[:AUDIT_NAME_CHARACTERS_MAX]
    row = {"at_ms": at_ms, "event": str(event), "actor": actor, "subject": subject, "detail": text}
    head = CHAIN.append(tx, row)
    tx.execute(insert(_T), row | {"number": head.number, "hash": head.hash})
    return Entry(head.number, at_ms, str(event), actor, subject, json.loads(text), head.hash)


def page(tx: Connection, *, after: int = 0, limit: int = _PAGE, event: str | None = None) -> list[Entry]:
    """Return entries in their order, those with numbers above ``after``, of one kind if ``event`` says it."""
    query = select(_T).where(_T.c.number > after).order_by(_T.c.number).limit(limit)
    if event is not None:
        query = query.where(_T.c.event == event)
    return [_entry(row) for row in tx.execute(query)]


def verify(tx: Connection) -> str | None:
    """Walk the whole log; return what is wrong with it first, None when nothing is."""
    return CHAIN.verify(tx, _links(tx))


def _links(tx: Connection) -> Iterator[Link]:
    after = 0
    query = select(_T).order_by(_T.c.number).limit(_PAGE)
    while rows := tx.execute(query.where(_T.c.number > after)).all():
        for row in rows:
            values = dict(row._mapping)
            after, digest = values.pop("number"), values.pop("hash")
            yield Link(after, values, digest)


def _entry(row: Row[Any]) -> Entry:
    return Entry(**dict(row._mapping) | {"detail": json.loads(row.detail)})
