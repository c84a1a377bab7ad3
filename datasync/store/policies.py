"""Policies: every revision that was received, and which one is active. At most one is; none means deny all.

What was refused is not kept, but for why the last was.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from datasync.domain.errors import NotFound
from datasync.store import registers, tables

_T = tables.policies
_REFUSED = "policy_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """One revision: ``source`` is the file as written, ``bundle`` the signed message that carries it."""

    revision: int
    digest: str
    source: bytes
    bundle: bytes
    received_ms: int
    active: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a policy was not taken: the error's code, what it said, and when."""

    code: str
    detail: str
    at_ms: int


def add(tx: Connection, policy: StoredPolicy) -> None:
    """Store a revision that is not known yet, inactive; :func:`activate` makes it the active one."""
    row = {
        "revision": policy.revision,
        "digest": policy.digest,
        "source": policy.source,
        "bundle": policy.bundle,
        "received_ms": policy.received_ms,
        "active": False,
    }
    tx.execute(insert(_T), row)


def activate(tx: Connection, revision: int) -> None:
    """Make this revision the active one, and no other. Raises NotFound for an unknown revision."""
    if tx.execute(update(_T).where(_T.c.revision == revision).values(active=True)).rowcount == 0:
        raise NotFound(f"there is no policy revision {revision} here")
    tx.execute(update(_T).where(_T.c.revision != revision, _T.c.active).values(active=False))


def active(tx: Connection) -> StoredPolicy | None:
    """Return the active revision."""
    row = tx.execute(select(_T).where(_T.c.active)).one_or_none()
    return None if row is None else _policy(row)


def get(tx: Connection, revision: int) -> StoredPolicy | None:
    """Return this revision."""
    row = tx.execute(select(_T).where(_T.c.revision == revision)).one_or_none()
    return None if row is None else _policy(row)


def all(tx: Connection) -> list[StoredPolicy]:  # noqa: A001 - read with its module
    """Return all revisions, the newest first."""
    return [_policy(row) for row in tx.execute(select(_T).order_by(_T.c.revision.desc()))]


def refuse(tx: Connection, refusal: Refusal) -> None:
    """Keep this as the last refusal."""
    registers.put(tx, _REFUSED, asdict(refusal))


def last_refusal(tx: Connection) -> Refusal | None:
    """Return the last refusal; None when every policy was taken."""
    kept = registers.get(tx, _REFUSED)
    return None if kept is None else Refusal(**kept)


def _policy(row: Row[Any]) -> StoredPolicy:
    return StoredPolicy(**row._mapping)
