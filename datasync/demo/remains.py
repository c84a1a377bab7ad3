"""What there is of one device at all nodes, and what could still be made of it later with the keys that are left.

What is stored is copied, as a backup or a thief would have it, with the first bytes of every wrapped data key. Later
each copy is tried with all data keys and all session keys of all nodes, and all files are searched for those bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from datasync.demo.leaks import columns
from datasync.demo.town import Node
from datasync.domain.errors import KeyUnavailable, Undecipherable
from datasync.domain.ids import NodeName, StreamId
from datasync.handover import accounts, whereabouts
from datasync.security.identity import Role
from datasync.security.vault import open_body, state_key
from datasync.store import segments, streams, terms
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.segments import StoredSegment

HEAD_BYTES = 24
"""How much of a wrapped key is looked for in files: enough to be found nowhere by chance."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A body that a node stored, and under which key."""

    stream: StreamId
    key_id: str
    seq_first: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What a place has of the device; ``planted`` is how much of what is looked for opens there."""

    place: str
    segments: int
    rows: int
    keys: int
    planted: int


@dataclass(frozen=True, slots=True)
class Remains:
    """What there is: at which place how much, which needles open anywhere, all copies, and of all keys the bytes."""

    held: tuple[Held, ...]
    found: frozenset[str]
    copies: tuple[Copy, ...]
    keys: frozenset[bytes]


def gather(nodes: Sequence[Node], owner: Node, wanted: Mapping[str, bytes]) -> Remains:
    """Return what all nodes have of a device, and which of the wanted bytes its segments have when they are opened."""
    with owner.store() as (database, _), database.read() as tx:
        originals = [each.stream for each in streams.of_device(tx, owner.name)]
    held: list[Held] = []
    found: set[str] = set()
    copies: list[Copy] = []
    keys: set[bytes] = set()
    for node in nodes:
        stored = _stored(node, originals)
        if stored:
            planted, wrapped = _planted(node, stored, wanted), _wrapped(node, {each.stream for each in stored})
            held.append(Held(node.name, len(stored), sum(each.rows for each in stored), len(wrapped), len(planted)))
            found |= planted
            keys |= wrapped
            copies += _copies(node, stored)
    return Remains(tuple(held), frozenset(found), tuple(copies), frozenset(keys))


def opened(nodes: Sequence[Node], device: NodeName, copies: Sequence[Copy]) -> int:
    """Return how many of the copies open with any data key or session key that any node has."""
    sessions = {key for node in nodes for key in _session_keys(node, device)}
    readable = {copy for copy in copies if any(_opens(copy, session) for session in sessions)}
    for node in nodes:
        with node.store() as (_, vault):
            readable |= {copy for copy in copies if vault.has(copy.stream, copy.key_id)}
    return len(readable)


def keys_left(nodes: Iterable[Node], keys: Iterable[bytes]) -> int:
    """Return how many of the keys' bytes are in any file of any node."""
    contents = [path.read_bytes() for node in nodes for path in node.folder.rglob("*") if path.is_file()]
    return sum(any(head in content for content in contents) for head in keys)


def _stored(node: Node, originals: Sequence[StreamId]) -> list[StoredSegment]:
    """Return the segments of these streams, and of those that stand for them there."""
    with node.store() as (database, _), database.read() as tx:
        wanted = (*originals, *terms.standing_for(tx, originals))
        return [each for stream in wanted for each in segments.of_stream(tx, stream)]


def _copies(node: Node, stored: Sequence[StoredSegment]) -> list[Copy]:
    with node.store() as (database, _), database.read() as tx:
        bodies = segments.bodies(tx, [each.id for each in stored])
    return [Copy(each.stream, each.key_id, each.seq_first, bodies[each.id]) for each in stored if each.id in bodies]


def _planted(node: Node, stored: Sequence[StoredSegment], wanted: Mapping[str, bytes]) -> set[str]:
    found: set[str] = set()
    with node.store() as (database, vault):
        for each in stored:
            with suppress(KeyUnavailable):
                content = columns(database, vault, each)
                found |= {name for name, needle in wanted.items() if needle in content}
    return found


def _wrapped(node: Node, of_streams: Iterable[StreamId]) -> set[bytes]:
    with closing(Database.open(f"sqlite:///{node.folder}/keys.db", create=False)) as keys:
        shelf = SqlKeyShelf(keys, is_owner=False)
        return {wrapped[:HEAD_BYTES] for stream in of_streams for _, wrapped in shelf.of_stream(stream)}


def _session_keys(node: Node, device: NodeName) -> set[bytes]:
    """Return the session keys of a device that a node has: its own, or those that it gave to an edge."""
    with node.store() as (database, vault), database.read() as tx:
        if node.name == device:
            ring = whereabouts.load(tx, vault, device).ring
            return {ring.session, *(key for keys in ring.by_edge.values() for key in keys)}
        kept = accounts.load_keys(tx, vault, device) if node.role is Role.EDGE else None
    return set() if kept is None else {kept.session, *(key for keys in kept.previous.values() for key in keys)}


def _opens(copy: Copy, session: bytes) -> bool:
    with suppress(Undecipherable):
        return bool(open_body(state_key(session, copy.stream), copy.stream, copy.seq_first, copy.body))
    return False
