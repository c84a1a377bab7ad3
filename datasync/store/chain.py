"""Chains of hashes: a log in which nothing changes unseen.

Each entry's hash covers the entry and the hash before it, and the head of the chain (its last number and hash) is kept
apart, so an entry that was edited, inserted or deleted is found, at the end of the log too, unless whoever did it also
rewrote all that follows and the head. Against that a second place holds heads: a log whose head was countersigned there
must still have the entry of that number with that hash.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, select

from datasync.protocol import cbor
from datasync.store import counters, registers


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends: its last entry's number (0: there is none) and hash (64 hexadecimal digits)."""

    number: int = 0
    hash: str = ""


class Link(NamedTuple):
    """An entry as the chain sees it: its number, what it says (as CBOR can say it), and the hash that it has."""

    number: int
    content: Any
    hash: str


@dataclass(frozen=True, slots=True)
class Chain:
    """One log's chain: the name under which its head is kept, what its hashes begin with, and its entries' table."""

    name: str
    tag: str
    table: Table

    def append(self, tx: Connection, content: Any) -> Head:
        """Take the next number and hash for an entry; the caller stores it in the same transaction."""
        number = counters.take(tx, self.name, 1)
        head = Head(number, self._hash(self.head(tx).hash, number, content))
        registers.put(tx, self._register, [head.number, head.hash])
        return head

    def head(self, tx: Connection) -> Head:
        """Return where the log ends."""
        number, digest = registers.get(tx, self._register, [0, ""])
        return Head(int(number), str(digest))

    def hash_at(self, tx: Connection, number: int) -> str | None:
        """Return the hash of the entry with a number, None when there is none."""
        return tx.scalar(select(self.table.c.hash).where(self.table.c.number == number))

    def verify(self, tx: Connection, links: Iterable[Link]) -> str | None:
        """Walk the whole log; return what is wrong with it first, None when nothing is."""
        end = Head()
        for link in links:
            if link.number != end.number + 1:
                return f"entry {end.number + 1} is missing"
            if link.hash != self._hash(end.hash, link.number, link.content):
                return f"entry {link.number} was changed, or an entry before it"
            end = Head(link.number, link.hash)
        head = self.head(tx)
        return None if head == end else f"the log ends with entry {end.number}, and its head says {head.number}"

    @property
    def _register(self) -> str:
        return f"{self.name} head"

    def _hash(self, before: str, number: int, content: Any) -> str:
        return hashlib.sha256(cbor.dumps([self.tag, before, number, content])).hexdigest()
