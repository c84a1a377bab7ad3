"""``datasync model register|list|show|lineage|verify``: the models registered at a node, and where each comes from."""

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasync.api.artefacts import BYTES
from datasync.cli.api_client import ApiClient, add_api, pieces
from datasync.cli.output import add_json, print_fields, print_json, print_table, readable
from datasync.domain.errors import ConfigError, SignatureInvalid, SignerForeign
from datasync.domain.limits import LINEAGE_BYTES_MAX
from datasync.domain.tiers import Tier
from datasync.nodes.shell import system_clock
from datasync.protocol import envelope
from datasync.protocol.parts import ModelLineage, decode_part
from datasync.security.files import read_file
from datasync.security.trust import Trust
from datasync.store.models import State

SHOWN = 20
COLUMNS = ("model", "name", "worker", "label", "state", "bytes", "streams_erased", "created")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    register = actions.add_parser("register", help="register a model, with the token of the worker that trained it")
    register.add_argument("file", type=Path, help="the model's bytes")
    register.add_argument("--name", required=True, help="what to call it")
    register.add_argument("--parent", metavar="ID", help="the model that training began with")
    register.add_argument(
        "--view", action="append", default=[], metavar="COLLECTION:PURPOSE:AFTER:CURSOR",
        help="a reading that it was trained on; may be repeated",
    )  # fmt: skip
    register.set_defaults(run=_register)
    listing = actions.add_parser("list", help="list models, the newest first")
    listing.add_argument("--state", choices=[str(each) for each in State], help="only those in this state")
    listing.add_argument("--label", choices=[each.label for each in Tier], help="only those with this label")
    listing.add_argument("--worker", help="only this worker's")
    listing.add_argument("--limit", type=int, default=SHOWN, help="how many at most (default: %(default)s)")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="show one model in full")
    show.set_defaults(run=_show)
    lineage = actions.add_parser("lineage", help="write the node's signed word on where a model comes from to a file")
    lineage.add_argument("--output", type=Path, required=True, metavar="FILE", help="the file to write")
    lineage.set_defaults(run=_lineage)
    for action in (show, lineage):
        action.add_argument("model", help="its id")
    verify = actions.add_parser("verify", help="say where a model comes from, if its record is a trusted node's word")
    verify.add_argument("file", type=Path, help="the record that `lineage` wrote")
    verify.add_argument("--ca", type=Path, required=True, metavar="FILE", help="authority.pem of the node's operator")
    verify.add_argument("--artefact", type=Path, metavar="FILE", help="the model's bytes, to be compared")
    verify.set_defaults(run=_verify)
    for action in (register, listing, show, lineage):
        add_api(action)
    for action in (register, listing, show, lineage, verify):
        add_json(action)


def readable_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a model for people, each view as `register` takes it."""
    views = [f"{each['collection']}:{each['purpose']}:{each['after']}:{each['until']}" for each in model["views"]]
    return readable({**model, "views": views})


def _register(arguments: argparse.Namespace) -> int:
    query = {"name": arguments.name, "views": ",".join(arguments.view), "parent": arguments.parent}
    try:
        body = arguments.file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(arguments.file)) from error
    with ApiClient.of(arguments).request("POST", ("v1", "models"), query, body, BYTES) as response:
        _print(arguments, json.loads(b"".join(pieces(response))))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    wanted = {name: getattr(arguments, name) for name in ("state", "label", "worker", "limit")}
    page = ApiClient.of(arguments).get("v1", "admin", "models", **wanted)
    if arguments.json:
        print_json(page["models"])
    elif page["models"]:
        print_table(COLUMNS, map(readable_model, page["models"]))
    else:
        print("no models")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    _print(arguments, ApiClient.of(arguments).get("v1", "models", arguments.model))
    return 0


def _lineage(arguments: argparse.Namespace) -> int:
    with ApiClient.of(arguments).request("GET", ("v1", "models", arguments.model, "lineage"), {}) as response:
        record = b"".join(pieces(response))
    try:
        arguments.output.write_bytes(record)
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", where=str(arguments.output)) from error
    if arguments.json:
        print_json({"file": str(arguments.output), "bytes": len(record)})
    else:
        print(f"{arguments.output}: {len(record)} bytes; verify it with `datasync model verify`")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    record, trust = read_file(arguments.file), Trust.load(arguments.ca)
    signed = envelope.verify(record, ModelLineage.CONTEXT, trust, system_clock(), bytes_max=LINEAGE_BYTES_MAX)
    said = decode_part(ModelLineage, signed.body)
    if said.node != signed.peer.name:
        raise SignerForeign(f"{signed.peer.name} signed a record of {said.node}")
    if arguments.artefact is not None and _digest(arguments.artefact) != said.digest:
        raise SignatureInvalid("these bytes are not the model of the record", where=str(arguments.artefact))
    _print(arguments, said.model_dump() | {"label": Tier(said.label).label})
    return 0


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path)) from error


def _print(arguments: argparse.Namespace, model: Mapping[str, Any]) -> None:
    if arguments.json:
        print_json(model)
        return
    print_fields(readable_model(model))
