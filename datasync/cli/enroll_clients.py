"""``datasync enroll worker|admin``: who may call the HTTP APIs of nodes, by a token, by a certificate, or by both.

A worker is registered at each node where it reads; the registration says until when and for which purposes. What it
shows there is the token that registering made, or a certificate, which its operator's authority issues here and which
is the same for all nodes. An administrator's certificate is good at all edges and clouds of its operator; a token,
whose hash is in a node's configuration, at that node. A token is printed once and never stored.
"""

import argparse
import secrets
import sys
from pathlib import Path
from typing import Any

from datasync.api.models import TOKEN_DAYS
from datasync.cli.api_client import ApiClient, add_api
from datasync.cli.enroll_again import note_issued
from datasync.cli.enroll_options import add_authority, add_days, print_result
from datasync.cli.output import add_json
from datasync.domain.errors import ConfigError
from datasync.domain.ids import NodeName
from datasync.nodes.shell import system_clock
from datasync.security.certificates import Role
from datasync.security.trust import Authority
from datasync.store.workers import token_hash


def configure(kinds: Any) -> None:
    """Declare the kinds among those of ``datasync enroll``."""
    worker = kinds.add_parser("worker", help="give a worker of the active policy its token or certificate")
    worker.add_argument("worker", help="the worker's name in the policy")
    worker.add_argument(
        "--purpose", action="append", help="a purpose it is for (default: all that the policy allows); repeatable"
    )
    worker.add_argument("--with-token", action="store_true", help="print the token, too, where a certificate is made")
    add_days(worker, TOKEN_DAYS, "it")
    _add_certificate(worker)
    add_api(worker, required=False)
    worker.set_defaults(run=_enroll_worker)
    admin = kinds.add_parser("admin", help="make an administrator's token and its hash, or a certificate")
    admin.add_argument("name", nargs="?", help="for a certificate: the administrator's name, for example acme/alice")
    add_days(admin, TOKEN_DAYS)
    _add_certificate(admin)
    admin.set_defaults(run=_enroll_admin)
    for kind in (worker, admin):
        add_json(kind)


def _add_certificate(parser: argparse.ArgumentParser) -> None:
    add_authority(parser, required=False, use="issue a certificate, in the place of a token")
    parser.add_argument("--folder", type=Path, help="new folder for the certificate and its key")


def _enroll_worker(arguments: argparse.Namespace) -> int:
    authority = _authority(arguments)
    if authority is None and arguments.url is None:
        raise ConfigError("there is nothing to do", fix="give --url to register it, --authority to certify it, or both")
    result: dict[str, Any] = {"worker": arguments.worker}
    if arguments.url is not None:
        result |= _registered(arguments)
        if authority is not None and not arguments.with_token:
            del result["token"]
    if authority is not None:
        name = NodeName(f"{authority.operator}/{arguments.worker}")
        result |= _certified(arguments, authority, name, Role.WORKER)
    print_result(arguments, result)
    return 0


def _registered(arguments: argparse.Namespace) -> dict[str, Any]:
    registration = {"worker": arguments.worker, "expires_days": arguments.days, "purposes": arguments.purpose}
    registered: dict[str, Any] = ApiClient.of(arguments).post("v1", "admin", "workers", document=registration)
    if not registered["in_policy"]:
        print(
            f"note: the node's active policy names no worker {arguments.worker}, so it reads nothing", file=sys.stderr
        )
    return registered


def _enroll_admin(arguments: argparse.Namespace) -> int:
    authority = _authority(arguments)
    if (authority is None) != (arguments.name is None):
        raise ConfigError("a certificate needs a name and an authority", fix="give both, or neither for a token")
    if authority is not None:
        print_result(arguments, _certified(arguments, authority, NodeName(arguments.name), Role.ADMIN))
        return 0
    token = secrets.token_urlsafe(32)
    print_result(arguments, {"token": token, "admin_token_hash": token_hash(token)})
    return 0


def _authority(arguments: argparse.Namespace) -> Authority | None:
    """Return the authority that is to issue a certificate, if one is asked for. Raises ConfigError."""
    folder: Path | None = arguments.folder
    if (arguments.authority is None) != (folder is None):
        raise ConfigError("a certificate needs an authority and a folder", fix="give both --authority and --folder")
    if folder is not None and folder.exists():
        raise ConfigError("it exists and is not overwritten", where=str(folder), fix="choose another --folder")
    return None if arguments.authority is None else Authority.load(arguments.authority)


def _certified(arguments: argparse.Namespace, authority: Authority, name: NodeName, role: Role) -> dict[str, Any]:
    client = authority.enrol(name, role, now=system_clock(), days=arguments.days)
    client.save(arguments.folder)
    note_issued(arguments.authority, client)
    return {"name": name, "cert": str(arguments.folder.absolute()), "valid_until_ms": client.validity.last_ms}
