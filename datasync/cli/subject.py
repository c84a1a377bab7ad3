"""``datasync subject where|export|erase|consent``: a subject's rights, at its own device above all.

With ``--config`` the device's own files are read here, beside its agent if that runs; to erase, this process is the
agent for as long as it takes, so no other may be running. With ``--url`` a running agent is asked, or an edge or a
cloud for what it holds.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from datasync.api import held
from datasync.cli.api_client import ApiClient, add_api, pieces
from datasync.cli.model import readable_model
from datasync.cli.output import add_json, print_fields, print_json, print_table, readable
from datasync.domain.errors import ConfigError
from datasync.domain.ids import NodeName
from datasync.domain.tiers import Place
from datasync.nodes.agent import Device
from datasync.nodes.config import DeviceConfig
from datasync.nodes.config_file import load
from datasync.nodes.node_key import check, surroundings
from datasync.nodes.shell import system_clock
from datasync.security.identity import Identity
from datasync.security.vault import Vault
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf

HELD = ("stream", "collection", "tier", "generation", "segments", "rows", "bytes")
ERASED = ("stream", "collection", "stamp", "place", "segments", "rows", "keys", "models", "erased")
MODELS = ("model", "name", "worker", "label", "state", "streams_erased", "created")
WAIT_S = 30.0
LOOK_S = 0.25


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    where = actions.add_parser("where", help="what a node holds of a subject, and what of it was erased")
    where.set_defaults(run=_where)
    export = actions.add_parser("export", help="all that a device holds of its subject, as a ZIP archive")
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="the archive to write")
    export.add_argument("--format", choices=("parquet", "arrow"), default="parquet", help="(default: %(default)s)")
    export.set_defaults(run=_export)
    erase = actions.add_parser("erase", help="erase what a subject recorded, everywhere; exit code 1 while that waits")
    erase.add_argument("--collection", help="only what is of this collection")
    erase.add_argument("--everything", action="store_true", help="also what is private to the user, on the device")
    erase.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="SECONDS",
        help="how long to wait until every place has confirmed it (default: %(default)g)",
    )  # fmt: skip
    erase.set_defaults(run=_erase)
    consent = actions.add_parser("consent", help="what a subject's streams allow and forbid")
    consent.set_defaults(run=_consent)
    for action in (where, export, erase, consent):
        action.add_argument("subject", nargs="?", help="the device, or a stream's id (default: the device of --config)")
        if action is not consent:
            action.add_argument("--config", type=Path, metavar="FILE", help="the device's configuration")
        add_api(action, required=action is consent)
        add_json(action)


def _where(arguments: argparse.Namespace) -> int:
    if arguments.config is None:
        _print(arguments, _client_where(arguments))
        return 0
    with _files(arguments) as (name, database, _), database.read() as tx:
        found = held.where(tx, name, Place.DEVICE, arguments.subject or name)
    _print(arguments, found.model_dump())
    return 0


def _export(arguments: argparse.Namespace) -> int:
    with _output(arguments.output) as file:
        for piece in _archive(arguments):
            file.write(piece)
    size = arguments.output.stat().st_size
    if arguments.json:
        print_json({"file": str(arguments.output), "bytes": size})
    else:
        print(f"{arguments.output}: {size} bytes; manifest.json in it says what is where")
    return 0


def _archive(arguments: argparse.Namespace) -> Iterator[bytes]:
    if arguments.config is None:
        path = ("v1", "subjects", _subject(arguments), "export")
        with ApiClient.of(arguments).request("GET", path, {"format": arguments.format}) as response:
            yield from pieces(response)
        return
    with _files(arguments) as (name, database, vault):

        def read(query: Callable[..., Any]) -> Any:
            with database.read() as tx:
                return query(tx)

        subject = arguments.subject or name
        export = read(lambda tx: held.export(tx, vault, name, subject, arguments.format, system_clock()))
        yield from export.pieces(read)


def _erase(arguments: argparse.Namespace) -> int:
    if arguments.config is None:
        path = ("v1", "subjects", _subject(arguments), "erase")
        wanted = {"collection": arguments.collection, "everything": arguments.everything}
        client = ApiClient.of(arguments)
        streams = client.post(*path, document=wanted)["streams"]
        ours = _awaiting(arguments, lambda: [_erased_there(client, stream) for stream in streams])
    else:
        ours = _erase_here(arguments)
    awaited = _awaited(ours)
    if arguments.json:
        print_json({"erased": ours, "awaited": awaited})
    else:
        _print_erased(ours)
        print(
            f"awaited, and told while the device runs: {', '.join(awaited)}" if awaited else "every place confirmed it"
        )
    return 1 if awaited else 0


def _erase_here(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    config = _config(arguments)
    with Device(config) as device:
        name = device.whereabouts.device
        if arguments.subject not in (None, name):
            raise ConfigError(f"this is the device {name}, not {arguments.subject}")
        erased = device.erase(arguments.collection, everything=arguments.everything)

        def look() -> list[dict[str, Any]]:
            with device.read() as tx:
                found = held.where(tx, name, Place.DEVICE, name).model_dump()
            return [each for each in found["erased"] if each["stream"] in erased]

        return _awaiting(arguments, look)


def _erased_there(client: ApiClient, stream: str) -> dict[str, Any]:
    (erased,) = client.get("v1", "subjects", stream, "where")["erased"]
    return dict(erased)


def _awaited(erased: list[dict[str, Any]]) -> list[str]:
    return sorted({place for each in erased for place in each["awaited"]})


def _consent(arguments: argparse.Namespace) -> int:
    subject = _subject(arguments)
    page = ApiClient.of(arguments).get("v1", "subjects", subject, "consent")
    if arguments.json:
        print_json(page)
    elif page["consents"]:
        print_table(("stream", "collection", "tier", "purpose", "given", "stamp"), map(readable, page["consents"]))
    else:
        print("no stream has a consent here")
    return 0


def _awaiting(arguments: argparse.Namespace, look: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Look until every place has confirmed, or the time is over; tell who is awaited meanwhile."""
    deadline_s, told = time.monotonic() + arguments.wait, None
    while (awaited := _awaited(found := look())) and time.monotonic() < deadline_s:
        if awaited != told:
            told = awaited
            print(f"waiting for {', '.join(awaited)}", file=sys.stderr)
        time.sleep(LOOK_S)
    return found


def _client_where(arguments: argparse.Namespace) -> dict[str, Any]:
    subject = _subject(arguments)
    found: dict[str, Any] = ApiClient.of(arguments).get("v1", "subjects", subject, "where")
    return found


def _subject(arguments: argparse.Namespace) -> str:
    if arguments.url is None:
        raise ConfigError("which node?", fix="use --config for this device's own files, or --url")
    if arguments.subject is None:
        raise ConfigError("whose data?", fix="name the device, or a stream's id, or use --config")
    return str(arguments.subject)


@contextmanager
def _files(arguments: argparse.Namespace) -> Iterator[tuple[NodeName, Database, Vault]]:
    """Give the device's name, database and vault, beside its agent. Raises ConfigError and StoreError."""
    config = _config(arguments)
    with ExitStack() as stack:
        keys = Database.open(config.keys, create=False)
        stack.callback(keys.close)
        database = Database.open(config.database, create=False)
        stack.callback(database.close)
        node_key = check(config.node_key, keys, surroundings())
        vault = Vault(node_key, SqlKeyShelf(keys, is_owner=False), os.urandom)
        yield Identity.load(config.identity).name, database, vault


def _config(arguments: argparse.Namespace) -> DeviceConfig:
    return load(DeviceConfig, arguments.config, os.environ)


def _print(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    if arguments.json:
        print_json(found)
        return
    print_fields(readable({key: found[key] for key in ("id", "node", "place", "attachment")}))
    print(f"\nstreams{'' if found['streams'] else ': none'}")
    if found["streams"]:
        print_table(HELD, found["streams"])
    if found["models"]:
        print("\nmodels that have learned from these")
        print_table(MODELS, map(readable_model, found["models"]))
    print(f"\nerased{'' if found['erased'] else ': nothing'}")
    _print_erased(found["erased"])


def _print_erased(erased: list[dict[str, Any]]) -> None:
    rows = [
        {"stream": each["stream"], "collection": each["collection"], "stamp_ms": each["stamp_ms"], **place}
        for each in erased
        for place in [
            *map(_with_models, each["receipts"]),
            *({"place": f"{name}: awaited"} for name in each["awaited"]),
        ]
    ]
    if rows:
        print_table(ERASED, map(readable, rows))


def _with_models(receipt: dict[str, Any]) -> dict[str, Any]:
    ends = ((receipt[f"models_{end}"], end) for end in ("deleted", "retrain", "reported"))
    return receipt | {"models": ", ".join(f"{count} {end}" for count, end in ends if count) or 0}


@contextmanager
def _output(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, for its owner's eyes alone, that gets its name once it is whole. Raises ConfigError."""
    partial = path.with_name(f"{path.name}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror or error}", where=str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
