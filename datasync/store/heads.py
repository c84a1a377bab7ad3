"""Heads of logs, held in a second place: what edges said to the cloud, and what the cloud countersigned for an edge.

Whoever has an edge's database can rewrite a log with all its hashes. But not what the cloud was told: a head that is
not above the last one, or is another one of the same number, contradicts it.
"""

import enum
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select, update

from datasync.store import audit, decisions, registers, tables
from datasync.store.chain import Chain, Head
from datasync.store.statements import upsert

_T = tables.heads
_COUNTERSIGNED = "countersigned"


@dataclass(frozen=True, slots=True)
class Log:
    """One of a node's logs."""

    chain: Chain
    verify: Callable[[Connection], str | None]


LOGS = {each.chain.name: each for each in (Log(decisions.CHAIN, decisions.verify), Log(audit.CHAIN, audit.verify))}
"""By name."""


class Verdict(enum.Enum):
    """What a node's word on a log's head is to what it said before."""

    NEWER = enum.auto()
    OUTDATED = enum.auto()
    CONTRADICTING = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The newest head of a node's log that was taken, and when one first contradicted what was taken before."""

    node: str
    log: str
    number: int
    hash: str
    said_ms: int
    contradicted_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Countersignature:
    """The cloud's signed statement, as it came, and when that was."""

    statement: bytes
    taken_ms: int


def take(tx: Connection, node: str, log: str, head: Head, said_ms: int) -> Verdict:
    """Take a node's word on where a log of its ends, unless it is older than another or contradicts it."""
    known = get(tx, node, log)
    if known is not None and said_ms < known.said_ms:
        return Verdict.OUTDATED
    if known is not None and (head.number < known.number or (head.number == known.number and head.hash != known.hash)):
        return Verdict.CONTRADICTING
    contradicted_ms = None if known is None else known.contradicted_ms
    said = Said(
        node=node, log=log, number=head.number, hash=head.hash, said_ms=said_ms, contradicted_ms=contradicted_ms
    )
    upsert(tx, _T, [asdict(said)])
    return Verdict.NEWER


def contradict(tx: Connection, node: str, log: str, now_ms: int) -> bool:
    """Note that a node contradicted itself; return whether this is the first time."""
    mine = (_T.c.node == node, _T.c.log == log, _T.c.contradicted_ms.is_(None))
    return tx.execute(update(_T).where(*mine).values(contradicted_ms=now_ms)).rowcount > 0


def get(tx: Connection, node: str, log: str) -> Said | None:
    """Return what a node said of a log."""
    row = tx.execute(select(_T).where(_T.c.node == node, _T.c.log == log)).one_or_none()
    return None if row is None else Said(**row._mapping)


def all(tx: Connection) -> list[Said]:  # noqa: A001 - read with its module
    """Return what all nodes said, by node and log."""
    return [Said(**row._mapping) for row in tx.execute(select(_T).order_by(_T.c.node, _T.c.log))]


def put_countersignature(tx: Connection, taken: Countersignature) -> None:
    """Keep the cloud's newest countersignature of this node's own heads."""
    registers.put(tx, _COUNTERSIGNED, {"statement": taken.statement.hex(), "taken_ms": taken.taken_ms})


def countersignature(tx: Connection) -> Countersignature | None:
    """Return the cloud's newest countersignature of this node's own heads."""
    said = registers.get(tx, _COUNTERSIGNED)
    return None if said is None else Countersignature(bytes.fromhex(said["statement"]), said["taken_ms"])
