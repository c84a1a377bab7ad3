"""Rotating a node's key: a new one wraps what the old one wrapped, and the old one is destroyed.

In this order: the next key is made durable; the register says so; every wrapped secret is wrapped anew, page by page,
and no segment is touched; what the old key had wrapped is overwritten; the old key is destroyed and, unless another
address was given, the next one takes its place; the register says that it is done. Killed at any point, it is called
again and goes on: what is under the next key already is left as it is, and the old key is there until nothing needs
it. The node must be stopped: both its databases are opened exclusively.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from datasync.domain.errors import ConfigError
from datasync.nodes.config import NodeConfig
from datasync.nodes.node_key import PAGE, check
from datasync.security import files, node_keys
from datasync.security.node_keys import KeyAddress, Surroundings
from datasync.security.wrapping import KEY_BYTES, Wrapping
from datasync.store import audit, wrapped
from datasync.store.audit import Event
from datasync.store.database import Database
from datasync.store.wrapped import DATA_KEYS, SESSION_KEYS, NodeKey, Place, Rotation

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotation that ended: the new key's name and address, how many secrets it wraps, how many no key opened."""

    name: str
    address: KeyAddress
    former: KeyAddress
    data_keys: int
    session_keys: int
    unreadable: int


def rotate(
    config: NodeConfig, to: KeyAddress | None, around: Surroundings, entropy: Entropy, now_ms: int, *, page: int = PAGE
) -> Rotated:
    """Wrap everything under a new node key and destroy the old one; a rotation that was interrupted goes on.

    Raises ConfigError, and StoreError while the node runs.
    """
    with ExitStack() as stack:
        keys = Database.open(config.keys, create=False, exclusive=True)
        stack.callback(keys.close)
        database = Database.open(config.database, create=False, exclusive=True)
        stack.callback(database.close)
        rotation = _begin(config.node_key, to, keys, around, entropy)
        new, old = _both(rotation, around)
        data_keys, unreadable = _rewrap(keys, DATA_KEYS, new, old, entropy, page)
        session_keys, lost = _rewrap(database, SESSION_KEYS, new, old, entropy, page)
        keys.checkpoint()
        database.checkpoint()
        address = _finish(rotation, keys, database, now_ms)
        return Rotated(new.name, address, _parse(rotation.former), data_keys, session_keys, unreadable + lost)


def _begin(
    current: KeyAddress, to: KeyAddress | None, keys: Database, around: Surroundings, entropy: Entropy
) -> Rotation:
    """Return the rotation that is under way, or begin one."""
    with keys.read() as tx:
        said = wrapped.node_key(tx)
    if said is not None and said.rotation is not None:
        if to is not None and str(to) != said.rotation.address:
            raise ConfigError(f"a rotation to {said.rotation.address} has not ended", fix="let it end: leave out --to")
        return said.rotation
    old = Wrapping(check(current, keys, around))
    address = to or _beside(current)
    new = Wrapping(_next_key(address, around, entropy))
    if new.name == old.name:
        raise ConfigError("that is the key which is to be replaced", where=str(address))
    rotation = Rotation(former=str(current), address=str(address), name=new.name, in_place=to is None)
    with keys.write() as tx:
        wrapped.put_node_key(tx, NodeKey(old.name, None, rotation))
    return rotation


def _beside(current: KeyAddress) -> KeyAddress:
    if current.path is None:
        fix = "say with --to where the new one is to be, for example --to file:keys/next.key"
        raise ConfigError("the node's key is not in a file of its own", where=str(current), fix=fix)
    return replace(current, what=str(current.path.with_name(f"{current.path.name}.next")))


def _next_key(address: KeyAddress, around: Surroundings, entropy: Entropy) -> bytes:
    """Return the key to rotate to: what is at the address, or else a new one that is put there."""
    if address.path is not None and address.path.exists():
        files.settle(address.path)
    elif address.path is not None:
        node_keys.write(address, entropy(KEY_BYTES), around, entropy)
    return node_keys.read(address, around)


def _both(rotation: Rotation, around: Surroundings) -> tuple[Wrapping, Wrapping | None]:
    """Return the next key and the old one, which is None when it was destroyed already."""
    former, address = _parse(rotation.former), _parse(rotation.address)
    took_place = rotation.in_place and not _is_there(address)
    new = Wrapping(node_keys.read(former if took_place else address, around))
    if new.name != rotation.name:
        raise ConfigError("it is not the key that the rotation began with", where=str(address))
    return new, None if took_place or not _is_there(former) else Wrapping(node_keys.read(former, around))


def _rewrap(
    database: Database, place: Place, new: Wrapping, old: Wrapping | None, entropy: Entropy, limit: int
) -> tuple[int, int]:
    """Wrap a place's secrets under the new key; return how many are under it, and how many no key opened."""
    done, unreadable = 0, 0
    for page in place.pages(database, limit):
        to_do = [each for each in page if each.unwrap(new) is None]
        found = {} if old is None else {each.id: each.unwrap(old) for each in to_do}
        changes = {name: new.wrap(*secret, entropy) for name, secret in found.items() if secret is not None}
        if changes:
            with database.write() as tx:
                place.replace(tx, changes)
        done += len(page) - len(to_do) + len(changes)
        unreadable += len(to_do) - len(changes)
    return done, unreadable


def _finish(rotation: Rotation, keys: Database, database: Database, now_ms: int) -> KeyAddress:
    """Destroy the old key, all that it wrapped being durable under the new one, and say that the rotation ended."""
    former, address = _parse(rotation.former), _parse(rotation.address)
    if rotation.in_place:
        files.take_place(Path(address.what), Path(former.what))
        address = former
    elif former.path is not None:
        files.destroy(former.path)
    with database.write() as tx:
        if all(each.subject != rotation.name for each in audit.page(tx, event=Event.KEY_ROTATED)):
            audit.append(tx, Event.KEY_ROTATED, audit.ADMINISTRATOR, rotation.name, {"address": str(address)}, now_ms)
    with keys.write() as tx:
        wrapped.put_node_key(tx, NodeKey(rotation.name, str(address)))
    return address


def _parse(text: str) -> KeyAddress:
    return KeyAddress.parse(text, Path())


def _is_there(address: KeyAddress) -> bool:
    return address.path is None or address.path.exists()
