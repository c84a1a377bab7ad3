"""The decision log: who opened a view of what, for which purpose, under which policy and rules, and what was read.

The entries are a chain of hashes (:mod:`store.chain`). What administrators do is in :mod:`store.audit`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from datasync.store import tables
from datasync.store.chain import Chain, Link

_T = tables.decisions
_PAGE = 1_000

CHAIN = Chain("decisions", "datasync/decision/1", _T)


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
    head = CHAIN.append(tx, _content(decision))
    row = asdict(decision) | {"rules": json.dumps(decision.rules), "fields": json.dumps(decision.fields)}
    tx.execute(insert(_T), row | {"number": head.number, "hash": head.hash})
    return Entry(head.number, decision, head.hash)


def page(tx: Connection, *, after: int = 0, limit: int = _PAGE) -> list[Entry]:
    """Return entries in their order, those with numbers above ``after``."""
    query = select(_T).where(_T.c.number > after).order_by(_T.c.number).limit(limit)
    return [_entry(row) for row in tx.execute(query)]


def verify(tx: Connection) -> str | None:
    """Walk the whole log; return what is wrong with it first, None when nothing is."""
    return CHAIN.verify(tx, (Link(each.number, _content(each.decision), each.hash) for each in _all(tx)))


def _all(tx: Connection) -> Iterator[Entry]:
    after = 0
    while entries := page(tx, after=after):
        yield from entries
        after = entries[-1].number


def _content(decision: Decision) -> dict[str, Any]:
    return asdict(decision) | {"rules": list(decision.rules), "fields": list(decision.fields)}


def _entry(row: Row[Any]) -> Entry:
    values = dict(row._mapping)
    number, digest = values.pop("number"), values.pop("hash")
    lists = {name: tuple(json.loads(values[name])) for name in ("rules", "fields")}
    return Entry(number, Decision(**values | lists), digest)
