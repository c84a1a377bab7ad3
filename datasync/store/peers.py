"""Peers: the other nodes that this node has heard of, with the certificates that they showed."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select
from sqlalchemy import delete as sql_delete

from datasync.store import tables
from datasync.store.statements import upsert

_T = tables.peers


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPeer:
    """A node as it was last heard of; ``nonce`` is its open challenge, ``load`` a share of its capacity."""

    name: str
    role: str
    certificate: bytes
    address: str | None = None
    nonce: str | None = None
    load: float | None = None
    seen_ms: int


def get(tx: Connection, name: str) -> KnownPeer | None:
    """Return the peer with this name."""
    row = tx.execute(select(_T).where(_T.c.name == name)).one_or_none()
    return None if row is None else KnownPeer(**row._mapping)


def put(tx: Connection, peer: KnownPeer) -> None:
    """Store the peer in place of what was known of it."""
    upsert(tx, _T, [asdict(peer)])


def all(tx: Connection, role: str | None = None) -> list[KnownPeer]:  # noqa: A001 - read with its module
    """Return all peers, or those of one role, by name."""
    query = select(_T).order_by(_T.c.name)
    if role is not None:
        query = query.where(_T.c.role == role)
    return [KnownPeer(**row._mapping) for row in tx.execute(query)]


def delete(tx: Connection, name: str) -> None:
    """Forget the peer."""
    tx.execute(sql_delete(_T).where(_T.c.name == name))
