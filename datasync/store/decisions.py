"""The decision log: who opened a view of what, for which purpose, under which policy and rules, and what was read.

Each entry's hash covers the entry and the hash before it, and the head of the chain is kept apart, so an entry that
was edited, inserted or deleted is found, at the end of the log too, unless whoever did it also rewrote all that
follows and the head. (That is not prevented here: a second place must hold heads.)
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from datasync.protocol import cbor
from datasync.store import counters, registers, tables

_T = tables.decisions
_COUNTER = "decisions"
_HEAD = "decisions head"
_PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One event of one view: ``event`` is opened, refused, or read, with what was shown until its end or breaking off.

    ``code`` is ALLOW or why not; ``rules`` are the ids of those that decided, ``fields`` the columns shown.
    """

    at_ms: int
    event: str
    worker: str
    collection: str
    purpose: str
    revision: int
    digest: str
    code: str
    rules: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision in the log, with its number (from 1 on, without gaps) and its hash (64 hexadecimal digits)."""

    number: int
    decision: Decision
    hash: str

    def to_json(self) -> str:
        """Return the entry as one line of JSON."""
        return json.dumps({"number": self.number} | asdict(self.decision) | {"hash": self.hash})


def append(tx: Connection, decision: Decision) -> Entry:
    """Add a decision at the end of the log."""
    number = counters.take(tx, _COUNTER, 1)
    digest = _hash(_head(tx)[1], number, decision)
    row = asdict(decision) | {"rules": json.dumps(decision.rules), "fields": json.dumps(decision.fields)}
    tx.execute(insert(_T), row | {"number": number, "hash": digest})
    registers.put(tx, _HEAD, [number, digest])
    return Entry(number, decision, digest)


def page(tx: Connection, *, after: int = 0, limit: int = _PAGE) -> list[Entry]:
    """Return entries in their order, those with numbers above ``after``."""
    query = select(_T).where(_T.c.number > after).order_by(_T.c.number).limit(limit)
    return [_entry(row) for row in tx.execute(query)]


def count(tx: Connection) -> int:
    """Return how many entries the log should have."""
    return _head(tx)[0]


def verify(tx: Connection) -> str | None:
    """Walk the whole log; return what is wrong with it first, None when nothing is."""
    number, digest = 0, ""
    for entry in _all(tx):
        if entry.number != number + 1:
            return f"entry {number + 1} is missing"
        number = entry.number
        if entry.hash != _hash(digest, number, entry.decision):
            return f"entry {number} was changed, or an entry before it"
        digest = entry.hash
    head = _head(tx)
    if head != (number, digest):
        return f"the log ends with entry {number}, and its head says {head[0]}"
    return None


def _all(tx: Connection) -> Iterator[Entry]:
    after = 0
    while entries := page(tx, after=after):
        yield from entries
        after = entries[-1].number


def _head(tx: Connection) -> tuple[int, str]:
    number, digest = registers.get(tx, _HEAD, [0, ""])
    return int(number), str(digest)


def _hash(before: str, number: int, decision: Decision) -> str:
    plain: dict[str, Any] = asdict(decision) | {"rules": list(decision.rules), "fields": list(decision.fields)}
    return hashlib.sha256(cbor.dumps(["datasync/decision/1", before, number, plain])).hexdigest()


def _entry(row: Row[Any]) -> Entry:
    values = dict(row._mapping)
    number, digest = values.pop("number"), values.pop("hash")
    lists = {name: tuple(json.loads(values[name])) for name in ("rules", "fields")}
    return Entry(number, Decision(**values | lists), digest)
