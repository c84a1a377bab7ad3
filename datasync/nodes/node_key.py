"""A node's own key: found for a node that starts, and counted for who asks what is under it.

A node starts with the very key that its data keys are wrapped under, or not at all; a new key is drawn only where
nothing is wrapped yet. The key database's register has the public name of that key.
"""

import getpass
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from datasync.domain.errors import ConfigError
from datasync.nodes.config import NodeConfig
from datasync.security import node_keys
from datasync.security.node_keys import PASSPHRASE_VARIABLE, KeyAddress, Surroundings
from datasync.security.wrapping import KEY_BYTES, Wrapping
from datasync.store import wrapped
from datasync.store.database import Database
from datasync.store.wrapped import DATA_KEYS, SESSION_KEYS, NodeKey, Place

PAGE = 500


@dataclass(frozen=True, slots=True)
class Share:
    """How many secrets are under one node key; ``name`` None is for those that none of the known keys opens."""

    name: str | None
    address: str | None
    data_keys: int
    session_keys: int


def surroundings(variable: str = PASSPHRASE_VARIABLE) -> Surroundings:
    """Return this process's environment, and the person at its terminal if there is one.

    ``variable`` is where a passphrase is looked for.
    """
    ask = (lambda what: getpass.getpass(f"{what}: ")) if sys.stdin.isatty() else None
    return Surroundings(os.environ, ask, variable)


def open_node_key(address: KeyAddress, keys: Database, around: Surroundings, entropy: Callable[[int], bytes]) -> bytes:
    """Return a starting node's key (32 bytes), drawing it where nothing is wrapped yet.

    Raises ConfigError when it cannot be read, is not the one that the data keys are under, or is being rotated.
    """
    with keys.read() as tx:
        said, is_unused = wrapped.node_key(tx), wrapped.is_unused(tx)
    if said is not None and said.rotation is not None:
        raise ConfigError("a rotation of the node's key has not ended", fix="run: datasync keys rotate --config FILE")
    if is_unused and address.path is not None and not address.path.exists():
        node_keys.write(address, entropy(KEY_BYTES), around, entropy)
    key = check(address, keys, around)
    if said is None:
        with keys.write() as tx:
            wrapped.put_node_key(tx, NodeKey(Wrapping(key).name))
    return key


def check(address: KeyAddress, keys: Database, around: Surroundings) -> bytes:
    """Return the key at an address. Raises ConfigError unless the key database is under it."""
    with keys.read() as tx:
        said = wrapped.node_key(tx)
    fix = f'write node_key = "{said.address}"' if said is not None and said.address not in (None, str(address)) else ""
    try:
        key = node_keys.read(address, around)
    except ConfigError as error:
        raise ConfigError(error.detail, where=error.where, fix=fix or error.fix) from error
    with keys.read() as tx:
        if not wrapped.is_key_of(tx, Wrapping(key)):
            raise ConfigError("it is not the key that the data keys are wrapped under", where=str(address), fix=fix)
    return key


def shares(config: NodeConfig, around: Surroundings) -> list[Share]:
    """Return how many secrets are under which of the node keys that are known, beside a running node too.

    Raises ConfigError when one cannot be read.
    """
    with ExitStack() as stack:
        keys = Database.open(config.keys, create=False)
        stack.callback(keys.close)
        database = Database.open(config.database, create=False)
        stack.callback(database.close)
        known = _known(config.node_key, keys, around)
        data_keys, session_keys = _count(keys, DATA_KEYS, known), _count(database, SESSION_KEYS, known)
    addresses = {key.name: str(address) for key, address in known}
    names = [*addresses, *([None] if data_keys[None] or session_keys[None] else [])]
    return [Share(each, addresses.get(each or ""), data_keys[each], session_keys[each]) for each in names]


def _known(configured: KeyAddress, keys: Database, around: Surroundings) -> list[tuple[Wrapping, KeyAddress]]:
    """Return the configured key and, while a rotation is under way, those of both its ends that are there."""
    with keys.read() as tx:
        said = wrapped.node_key(tx)
    if said is None or said.rotation is None:
        return [(Wrapping(node_keys.read(configured, around)), configured)]
    ends = [KeyAddress.parse(text, Path()) for text in (said.rotation.former, said.rotation.address)]
    there = [each for each in ends if each.path is None or each.path.exists()]
    return [(Wrapping(node_keys.read(each, around)), each) for each in there]


def _count(database: Database, place: Place, known: list[tuple[Wrapping, KeyAddress]]) -> dict[str | None, int]:
    counts: dict[str | None, int] = {None: 0} | {key.name: 0 for key, _ in known}
    for page in place.pages(database, PAGE):
        for each in page:
            counts[next((key.name for key, _ in known if each.unwrap(key)), None)] += 1
    return counts
