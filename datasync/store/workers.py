"""Workers: who opens views here, by token or certificate.

Only a token's hash is stored, so a copy of the database opens nothing.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, or_, select
from sqlalchemy import delete as sql_delete

from datasync.domain.clock import Instant
from datasync.store import tables
from datasync.store.statements import upsert

_T = tables.workers


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerToken:
    """A worker's registration; what the worker may do is in the policy.

    Without ``expires_ms`` it does not end; with ``purposes`` it opens views for these alone.
    """

    worker_id: str
    token_hash: str
    created_ms: int
    expires_ms: int | None = None
    purposes: tuple[str, ...] | None = None


def token_hash(token: str) -> str:
    """Return what is stored of a token: SHA-256 as 64 hexadecimal digits (tokens are random, so no salt)."""
    return hashlib.sha256(token.encode()).hexdigest()


def put(tx: Connection, token: WorkerToken) -> None:
    """Store the worker's token in place of its former one."""
    purposes = None if token.purposes is None else json.dumps(token.purposes)
    upsert(tx, _T, [asdict(token) | {"purposes": purposes}])


def get(tx: Connection, worker_id: str) -> WorkerToken | None:
    """Return the worker's registration."""
    row = tx.execute(select(_T).where(_T.c.worker_id == worker_id)).one_or_none()
    return None if row is None else _token(row)


def by_token(tx: Connection, hashed: str, now: Instant) -> WorkerToken | None:
    """Return the registration that this token's hash belongs to, unless it has expired."""
    row = tx.execute(select(_T).where(_T.c.token_hash == hashed, _unexpired(now))).one_or_none()
    return None if row is None else _token(row)


def valid(tx: Connection, worker_id: str, now: Instant) -> WorkerToken | None:
    """Return the worker's registration, unless it has expired."""
    row = tx.execute(select(_T).where(_T.c.worker_id == worker_id, _unexpired(now))).one_or_none()
    return None if row is None else _token(row)


def all(tx: Connection) -> list[WorkerToken]:  # noqa: A001 - read with its module
    """Return all registrations by worker."""
    return [_token(row) for row in tx.execute(select(_T).order_by(_T.c.worker_id))]


def delete(tx: Connection, worker_id: str) -> bool:
    """Revoke the worker's token; return whether there was one."""
    return tx.execute(sql_delete(_T).where(_T.c.worker_id == worker_id)).rowcount > 0


def _unexpired(now: Instant) -> ColumnElement[bool]:
    return or_(_T.c.expires_ms.is_(None), _T.c.expires_ms > now.wall_ms)


def _token(row: Row[Any]) -> WorkerToken:
    purposes = None if row.purposes is None else tuple(json.loads(row.purposes))
    return WorkerToken(**dict(row._mapping) | {"purposes": purposes})
