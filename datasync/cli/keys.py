"""``datasync keys init|encrypt|rotate|list``: the key of a node, under which its data keys are wrapped.

Addresses of keys are written as in a configuration: ``file:PATH``, ``passphrase:PATH``, ``credential:NAME`` …
"""

import argparse
import os
import secrets
import shlex
from dataclasses import asdict
from pathlib import Path

from datasync.cli.output import add_json, print_json, print_table
from datasync.nodes import node_key
from datasync.nodes.config_file import load_any
from datasync.nodes.rotating import rotate
from datasync.nodes.shell import system_clock
from datasync.security import node_keys
from datasync.security.node_keys import NEW_PASSPHRASE_VARIABLE, KeyAddress, Kind
from datasync.security.wrapping import KEY_BYTES


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    init = actions.add_parser("init", help="draw a new key")
    init.add_argument("key", type=_address, help="file:PATH or passphrase:PATH, a new file")
    init.set_defaults(run=_init)
    encrypt = actions.add_parser("encrypt", help="put a key under a passphrase, or under another one, in a new file")
    encrypt.add_argument("key", type=_address, help="where it is")
    encrypt.add_argument("to", type=_address, help="passphrase:PATH, a new file")
    encrypt.set_defaults(run=_encrypt)
    rotation = actions.add_parser("rotate", help="replace a stopped node's key; called again, it goes on")
    rotation.add_argument(
        "--to", type=_address, metavar="KEY", help="where the new one is, or is made (default: in the old one's place)"
    )
    rotation.set_defaults(run=_rotate)
    listing = actions.add_parser("list", help="count what is wrapped, by the node key that it is under")
    listing.set_defaults(run=_list)
    for action in (rotation, listing):
        action.add_argument("--config", type=Path, required=True, metavar="FILE", help="the node's configuration")
    for action in (init, encrypt, rotation, listing):
        add_json(action)


def _init(arguments: argparse.Namespace) -> int:
    node_keys.write(arguments.key, secrets.token_bytes(KEY_BYTES), node_key.surroundings(), secrets.token_bytes)
    return _made(arguments, arguments.key)


def _encrypt(arguments: argparse.Namespace) -> int:
    around = node_key.surroundings()
    key = node_keys.read(arguments.key, around)
    node_keys.write(arguments.to, key, node_key.surroundings(NEW_PASSPHRASE_VARIABLE), secrets.token_bytes)
    made = _made(arguments, arguments.to)
    if arguments.key.kind is Kind.FILE and not arguments.json:
        print(f"# when the node has started with it, destroy the plain one: shred -u {shlex.quote(arguments.key.what)}")
    return made


def _made(arguments: argparse.Namespace, address: KeyAddress) -> int:
    if arguments.json:
        print_json({"node_key": str(address)})
    else:
        print(f'node_key = "{address}"')
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    config = load_any(arguments.config, os.environ)
    around = node_key.surroundings()
    done = rotate(config, arguments.to, around, secrets.token_bytes, system_clock().wall_ms)
    if arguments.json:
        print_json(asdict(done) | {"address": str(done.address), "former": str(done.former)})
        return 0
    print(f"{done.data_keys} data keys and {done.session_keys} session keys are under the node key {done.name}")
    if done.unreadable:
        print(f"{done.unreadable} secrets were under no key that is known, and were left as they are")
    if done.address != config.node_key:
        print(f'write node_key = "{done.address}" in {arguments.config}')
    if done.former.path is None:
        print(f"the old key is still where {done.former} says; it opens nothing here any more: remove it there")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    config = load_any(arguments.config, os.environ)
    rows = [asdict(share) for share in node_key.shares(config, node_key.surroundings())]
    if arguments.json:
        print_json({"node_keys": rows})
    else:
        print_table(("name", "address", "data_keys", "session_keys"), rows)
    return 0


def _address(text: str) -> KeyAddress:
    try:
        return KeyAddress.parse(text, Path())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
