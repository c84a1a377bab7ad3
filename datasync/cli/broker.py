"""``datasync broker config``: Mosquitto's configuration for an edge's or a cloud's broker, made from the node's own."""

import argparse
import os
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.cli.enroll import BROKER_FOLDER
from datasync.cli.output import add_json, print_json
from datasync.domain.errors import ConfigError
from datasync.nodes.config import CloudConfig, EdgeConfig
from datasync.nodes.config_file import load
from datasync.security.certificates import Role
from datasync.security.identity import Identity
from datasync.security.trust import Trust
from datasync.transport.mosquitto import (
    ACCESS_FILE,
    AUTHORITIES_FILE,
    CONFIGURATION_FILE,
    BrokerPlan,
    access_list,
    configuration,
)

EDGES_MAX = 1_024
"""Connections at the cloud's broker, one for each edge; at an edge's there is one for each device."""

SPARE_CONNECTIONS = 64
"""For the node itself, and for connections that are being taken over."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``broker config``."""
    command = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "config", help="make a Mosquitto configuration: TLS, an access list, limits"
    )
    command.add_argument("--for", dest="role", type=Role, choices=(Role.EDGE, Role.CLOUD), required=True)
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="the node's configuration")
    command.add_argument(
        "--listen", type=_address, metavar="HOST:PORT", help="where to listen (default: where the node connects to)"
    )
    command.add_argument(
        "--identity",
        type=Path,
        metavar="FOLDER",
        help=f"the broker's certificate and key (default: {BROKER_FOLDER}/ beside the node's identity)",
    )
    command.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the identity's folder)")
    command.add_argument(
        "--crl", type=Path, metavar="FILE", help="revoked certificates: an X.509 list (PEM) of each trusted authority"
    )
    add_json(command)
    command.set_defaults(run=_write)


def _write(arguments: argparse.Namespace) -> int:
    kind = EdgeConfig if arguments.role is Role.EDGE else CloudConfig
    config = load(kind, arguments.config, os.environ)
    identity: Path = (arguments.identity or config.identity.parent / BROKER_FOLDER).absolute()
    out: Path = (arguments.out or identity).absolute()
    owner = _owner(config.identity, identity, arguments.role)
    host, port = arguments.listen or (config.broker.host, config.broker.port)
    connections = config.devices_max if isinstance(config, EdgeConfig) else EDGES_MAX
    plan = BrokerPlan(
        owner=owner.name,
        role=owner.role,
        host=host,
        port=port,
        identity=identity,
        folder=out,
        window_bytes=config.window_bytes,
        connections_max=connections + SPARE_CONNECTIONS,
        crl=arguments.crl and arguments.crl.absolute(),
    )
    files = {
        CONFIGURATION_FILE: configuration(plan),
        ACCESS_FILE: access_list(plan.owner, plan.role),
        AUTHORITIES_FILE: _bundle(Trust.load(config.trust)),
    }
    _save(out, files)
    if arguments.json:
        print_json({name: str(out / name) for name in files})
    else:
        print(f"mosquitto -c {out / CONFIGURATION_FILE}")
    return 0


def _owner(node: Path, broker: Path, role: Role) -> Identity:
    """Return the identity of the node, whose broker it is. Raises ConfigError when the two do not belong together."""
    owner, own = Identity.load(node), Identity.load(broker)
    if owner.role is not role:
        raise ConfigError(f"{owner.name} is enrolled as {owner.role}, not as {role}", where=str(node))
    if own.role is not Role.BROKER or own.name != owner.name:
        raise ConfigError(f"it is {own.role} {own.name}, and not the broker of {owner.name}", where=str(broker))
    return owner


def _bundle(trust: Trust) -> str:
    return "".join(
        x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() for der in trust.certificates
    )


def _save(folder: Path, files: dict[str, str]) -> None:
    """Write files that hold nothing secret, over what an earlier run wrote. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(error.filename or folder)) from error


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port and text == parts.netloc and "@" not in text:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text} is no HOST:PORT, as in 0.0.0.0:8883")
