"""``datasync enroll``: who exists. An operator's authority makes its nodes' identities, its policy key and its clients.

A node's private keys are made where this runs: run it on the node, or move the folder there safely and leave no
copy. Edges and clouds get an identity for their MQTT broker besides, in ``broker/``: it needs one for TLS, and is not
trusted with the node's.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.cli import enroll_again, enroll_clients, enroll_qr
from datasync.cli import enroll_bundle as bundle
from datasync.cli.enroll_options import DAYS_MAX, add_authority, add_days, print_result
from datasync.cli.output import add_json, print_json
from datasync.domain.errors import ConfigError
from datasync.domain.ids import NodeName
from datasync.nodes.shell import system_clock
from datasync.security.certificates import Role, read_authority
from datasync.security.files import read_file
from datasync.security.identity import Identity
from datasync.security.sealing import Kem
from datasync.security.trust import AUTHORITY_FILE, Authority, Trust

BROKER_FOLDER = "broker"
NODES = (Role.DEVICE, Role.EDGE, Role.CLOUD)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what can be enrolled, and the arguments of each."""
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    _configure_authority(kinds.add_parser("ca", help="make an operator's certificate authority"))
    _configure_policy_key(kinds.add_parser("policy-key", help="make the key that signs an operator's policies"))
    for role in NODES:
        _configure_node(kinds.add_parser(role.value, help=f"make the identity of {_article(role)}"), role)
    enroll_clients.configure(kinds)
    enroll_again.configure(kinds)
    enroll_qr.configure(kinds)


def _configure_authority(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("operator", help="the operator's name, for example acme")
    parser.add_argument(
        "--folder", type=Path, required=True, help="new folder for the authority's key; keep it offline"
    )
    add_days(parser, DAYS_MAX, "it")
    add_json(parser)
    parser.set_defaults(run=_create_authority)


def _configure_policy_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the key's name, for example acme/policy")
    add_authority(parser)
    parser.add_argument("--folder", type=Path, required=True, help="new folder for the key; it may be kept offline")
    add_days(parser, 365)
    add_json(parser)
    parser.set_defaults(run=_enroll_policy_key)


def _configure_node(parser: argparse.ArgumentParser, role: Role) -> None:
    example = "watch-7" if role is Role.DEVICE else f"acme/{'cbd' if role is Role.EDGE else 'cloud'}"
    parser.add_argument("name", help=f"the node's name, for example {example}")
    add_authority(parser)
    is_device = role is Role.DEVICE
    parser.add_argument(
        "--folder", type=Path, required=not is_device, help="where identity/, trust/ and keys/ are made"
    )
    add_days(parser, 365)
    parser.add_argument(
        "--trust",
        type=Path,
        action="append",
        default=[],
        metavar="PEM",
        help="another operator's authority; repeatable",
    )
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="HOST",
        help="a name or address by which TLS clients that are not told the node's name may know it; repeatable",
    )
    parser.add_argument(
        "--kem",
        choices=[kem.value for kem in Kem],
        default=Kem.X25519.value,
        help="how keys are sealed to it; mlkem768-x25519 also withstands quantum computers (default: %(default)s)",
    )
    if is_device:
        enroll_qr.add_options(parser, required=False)
    add_json(parser)
    parser.set_defaults(run=_enroll_device if is_device else _enroll_node, role=role)


def _create_authority(arguments: argparse.Namespace) -> int:
    authority = Authority.create(arguments.operator, system_clock(), days=arguments.days)
    authority.save(arguments.folder)
    print_result(arguments, {"operator": authority.operator, "certificate": str(arguments.folder / AUTHORITY_FILE)})
    return 0


def _enroll_policy_key(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder.absolute()
    authority = Authority.load(arguments.authority)
    key = authority.enrol(NodeName(arguments.name), Role.POLICY, now=system_clock(), days=arguments.days)
    key.save(folder)
    enroll_again.note_issued(arguments.authority, key)
    if arguments.json:
        print_json({"name": key.name, "role": key.role.value, "policy_key": str(folder)})
    else:
        print(f"# for the configuration of {authority.operator}'s cloud, or for: datasync policy sign --key {folder}")
        print(f"policy_key = {json.dumps(str(folder))}")
    return 0


def _enroll_node(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder.absolute()
    broker = folder / BROKER_FOLDER
    bundle.require_new(folder, broker)
    authority, enrolled, trusted = _enrolled(arguments)
    written = bundle.write(folder, enrolled, trusted)
    if arguments.role is not Role.DEVICE:
        now, hosts = system_clock(), arguments.host
        own_broker = authority.enrol(enrolled.name, Role.BROKER, now=now, days=arguments.days, hosts=hosts)
        own_broker.save(broker)
        enroll_again.note_issued(arguments.authority, own_broker)
    if arguments.json:
        print_json({"name": enrolled.name, "role": enrolled.role.value, **written})
    else:
        bundle.print_toml(enrolled.name, written)
        if broker.exists():
            print(f"# its broker's certificate and key are in {broker}; next: datasync broker config")
    return 0


def _enroll_device(arguments: argparse.Namespace) -> int:
    if arguments.qr is None:
        if arguments.folder is None:
            raise ConfigError("where is it to be made?", fix="give --folder, or --qr for a device that scans it")
        return _enroll_node(arguments)
    if arguments.folder is not None:
        raise ConfigError("its keys are either here or in the QR code", fix="give one of --folder and --qr")
    place = enroll_qr.place(arguments)
    _, enrolled, trusted = _enrolled(arguments)
    return enroll_qr.show(arguments, enrolled, list(trusted.values()), place)


def _enrolled(arguments: argparse.Namespace) -> tuple[Authority, Identity, dict[str, bytes]]:
    """Enrol a node; return its authority, the node, and the authorities' certificates (PEM) that it is to trust."""
    authority = Authority.load(arguments.authority)
    trusted = _authorities([arguments.authority / AUTHORITY_FILE, *arguments.trust])
    name, kem = NodeName(arguments.name), Kem(arguments.kem)
    enrolled = authority.enrol(
        name, arguments.role, now=system_clock(), days=arguments.days, hosts=arguments.host, kem=kem
    )
    enroll_again.note_issued(arguments.authority, enrolled)
    return authority, enrolled, trusted


def _authorities(paths: Sequence[Path]) -> dict[str, bytes]:
    """Return the authorities' certificates (PEM) by operator. Raises ConfigError for a file that is none."""
    Trust.load(paths)
    pems = [read_file(path) for path in paths]
    certificates = [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in pems]
    return {read_authority(der).operator: pem for der, pem in zip(certificates, pems, strict=True)}


def _article(role: Role) -> str:
    return f"{'an' if role is Role.EDGE else 'a'} {role.value}"
