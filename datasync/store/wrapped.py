"""What is wrapped by the node's key, and which key that is: data keys on the shelf, session keys with attachments.

A rotation of the node's key replaces all of it, page by page, and never touches what the data keys encrypt. The
register of the key database says which node key is in use and, while a rotation is under way, where the next one is:
that is all that is needed to go on after a crash.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Row, Table, bindparam, select, update

from datasync.domain.errors import KeyUnavailable
from datasync.security.wrapping import OWN_SESSION_LABEL, Wrapping, data_key_label, session_label
from datasync.store import registers, tables
from datasync.store.database import Database

_REGISTER = "node key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A rotation under way: from which address to which, the next key's name, whether it takes the old one's place."""

    former: str
    address: str
    name: str
    in_place: bool


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The node key in use: its public name, its address after a rotation to another one, the rotation under way."""

    name: str
    address: str | None = None
    rotation: Rotation | None = None


class Wrapped(NamedTuple):
    """A wrapped secret, and the labels that it may have."""

    id: str
    wrapped: bytes
    labels: tuple[str, ...]

    def unwrap(self, key: Wrapping) -> tuple[bytes, str] | None:
        """Return the secret and its label, None when it is not under this key."""
        for label in self.labels:
            try:
                return key.unwrap(self.wrapped, label), label
            except KeyUnavailable:
                continue
        return None


@dataclass(frozen=True, slots=True)
class Place:
    """A column of wrapped secrets."""

    table: Table
    id: Column[Any]
    column: Column[Any]
    labels: Callable[[Row[Any]], tuple[str, ...]]

    def pages(self, database: Database, limit: int) -> Iterator[list[Wrapped]]:
        """Yield all secrets by id, page by page, each read in a transaction of its own."""
        page: list[Wrapped] = []
        while not page or len(page) == limit:
            with database.read() as tx:
                page = self.page(tx, page[-1].id if page else "", limit)
            yield page
            if not page:
                return

    def page(self, tx: Connection, after: str, limit: int) -> list[Wrapped]:
        """Return at most ``limit`` secrets by id, those after one."""
        query = select(self.table).where(self.id > after, self.column.is_not(None)).order_by(self.id).limit(limit)
        rows = [(row, row._mapping) for row in tx.execute(query)]
        return [Wrapped(values[self.id], values[self.column], self.labels(row)) for row, values in rows]

    def replace(self, tx: Connection, wrapped: Mapping[str, bytes]) -> None:
        """Put other wrapped secrets in the place of those with these ids."""
        if wrapped:
            change = update(self.table).where(self.id == bindparam("of_id")).values({self.column: bindparam("to")})
            tx.execute(change, [{"of_id": each, "to": to} for each, to in wrapped.items()])


DATA_KEYS = Place(
    tables.data_keys,
    tables.data_keys.c.key_id,
    tables.data_keys.c.wrapped,
    lambda row: (data_key_label(row.stream_id, row.key_id),),
)
"""In the key database."""

SESSION_KEYS = Place(
    tables.attachments,
    tables.attachments.c.device,
    tables.attachments.c.session_key,
    lambda row: (session_label(row.device), OWN_SESSION_LABEL),
)
"""In the node's database: an edge's, and a device's own."""


def is_key_of(tx: Connection, key: Wrapping) -> bool:
    """Whether the key database is under this node key: as its register says or, when that is new, its first secret."""
    said = node_key(tx)
    if said is not None:
        return said.name == key.name
    return all(each.unwrap(key) for each in DATA_KEYS.page(tx, "", 1))


def is_unused(tx: Connection) -> bool:
    """Whether nothing in the key database was ever under a node key."""
    return node_key(tx) is None and not DATA_KEYS.page(tx, "", 1)


def node_key(tx: Connection) -> NodeKey | None:
    """Return which node key the key database is under, None when that was never said."""
    said = registers.get(tx, _REGISTER)
    if said is None:
        return None
    rotation = Rotation(**said["rotation"]) if said["rotation"] else None
    return NodeKey(said["name"], said["address"], rotation)


def put_node_key(tx: Connection, key: NodeKey) -> None:
    """Say which node key the key database is under."""
    registers.put(tx, _REGISTER, asdict(key))
