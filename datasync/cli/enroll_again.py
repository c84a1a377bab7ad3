"""``datasync enroll revoke|push-revocations|renew``: what becomes of certificates after they were issued.

The authority's folder keeps a copy of every certificate that it issued, so that a node can be revoked by its name, and
its present list of revoked ones. Renewing changes neither keys nor name, so it needs nothing secret of the node.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.cli.api_client import ApiClient, add_api, pieces
from datasync.cli.enroll_options import add_authority, add_days, print_result, replace_file
from datasync.cli.output import add_json
from datasync.domain.errors import ConfigError
from datasync.domain.ids import NodeName, dotted
from datasync.nodes.shell import system_clock
from datasync.protocol import revocations
from datasync.security import certificates
from datasync.security.files import read_file, write_private
from datasync.security.identity import CERTIFICATE_FILE, Identity
from datasync.security.revocation import RevocationList, Revoked, crl, revoked
from datasync.security.trust import Authority, Trust

ISSUED_FOLDER = "issued"
LIST_FILE = "revoked.cose"

CRL_MODE = 0o644
"""Brokers read it, whoever they run as; it says nothing secret."""


def configure(kinds: Any) -> None:
    """Declare the actions among those of ``datasync enroll``."""
    revoke = kinds.add_parser("revoke", help="revoke certificates: extend the authority's signed list of them")
    revoke.add_argument("what", nargs="*", metavar="NAME|CERT", help="a node's name, or a file with its certificate")
    add_authority(revoke)
    revoke.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the signed list is written")
    revoke.add_argument("--crl-out", type=Path, metavar="PEM", help="the same as a CRL, for MQTT brokers")
    revoke.set_defaults(run=_revoke)
    push = kinds.add_parser("push-revocations", help="have a node, as a rule the cloud, take a list and pass it on")
    push.add_argument("list", type=Path, metavar="FILE", help="written by `datasync enroll revoke`")
    add_api(push)
    push.set_defaults(run=_push)
    renew = kinds.add_parser("renew", help="give a node, a policy key or a client a new certificate for its keys")
    renew.add_argument("--folder", type=Path, required=True, help="made by `datasync enroll`")
    add_authority(renew)
    add_days(renew, 365, "it")
    renew.set_defaults(run=_renew)
    for action in (revoke, push, renew):
        add_json(action)


def note_issued(authority: Path, identity: Identity) -> None:
    """Keep a copy of a certificate that was issued."""
    certificate = x509.load_der_x509_certificate(identity.certificate)
    path = authority / ISSUED_FOLDER / f"{dotted(identity.name)}-{certificate.serial_number:x}.pem"
    write_private(path, certificate.public_bytes(Encoding.PEM))


def _revoke(arguments: argparse.Namespace) -> int:
    authority, now = Authority.load(arguments.authority), system_clock()
    trust = Trust([authority.certificate])
    own = trust.authority(authority.certificate)
    known = _known(arguments.authority / LIST_FILE, trust, authority.operator)
    entries = [
        revoked(certificate, now)
        for what in arguments.what
        for certificate in _certificates(arguments.authority, own, what)
    ]
    listed = known.extended(entries, now)
    signed = revocations.sign(authority, listed)
    for path in (arguments.authority / LIST_FILE, arguments.out):
        replace_file(path, signed)
    if arguments.crl_out is not None:
        replace_file(arguments.crl_out, crl(listed, own, authority.key), CRL_MODE)
    print_result(arguments, {"operator": listed.operator, "number": listed.number, "revoked": _names(entries)})
    return 0


def _known(path: Path, trust: Trust, operator: str) -> RevocationList:
    if not path.exists():
        return RevocationList(operator, 0, 0, ())
    return revocations.read(path.read_bytes(), trust)[1]


def _certificates(folder: Path, authority: certificates.AuthorityCertificate, what: str) -> Iterator[bytes]:
    """Give the certificates (DER) that are meant: those of a name, or the one in a file. Raises ConfigError."""
    file = Path(what)
    issued = sorted((folder / ISSUED_FOLDER).glob("*.pem"))
    own_name = dotted(NodeName(what))
    paths = [file] if file.is_file() else [each for each in issued if each.name.rpartition("-")[0] == own_name]
    if not paths:
        raise ConfigError(f"no certificate was issued to {what!r} here", fix="give the file with the certificate")
    for path in paths:
        try:
            certificate = x509.load_pem_x509_certificate(read_file(path))
        except ValueError as error:
            raise ConfigError(f"it holds no certificate: {error}", where=str(path)) from error
        if not certificates.is_issued_by(certificate, authority):
            raise ConfigError("another authority issued it, and only that one can revoke it", where=str(path))
        yield certificate.public_bytes(Encoding.DER)


def _names(entries: Iterable[Revoked]) -> list[str]:
    return sorted({each.name for each in entries})


def _push(arguments: argparse.Namespace) -> int:
    signed = arguments.list.read_bytes() if arguments.list.is_file() else read_file(arguments.list)
    path = ("v1", "admin", "revocations")
    with ApiClient.of(arguments).request("POST", path, {}, signed, revocations.MEDIA_TYPE) as response:
        print_result(arguments, json.loads(b"".join(pieces(response))))
    return 0


def _renew(arguments: argparse.Namespace) -> int:
    authority, now = Authority.load(arguments.authority), system_clock()
    folders = [arguments.folder / name for name in ("identity", "broker", ".")]
    found = [folder for folder in folders if (folder / CERTIFICATE_FILE).is_file()]
    if not found:
        raise ConfigError("there is no certificate", where=str(arguments.folder), fix="name the folder it was made in")
    for folder in found:
        identity = Identity.load(folder)
        renewed = identity.with_certificate(authority.renew(identity, now=now, days=arguments.days))
        note_issued(arguments.authority, renewed)
        pem = x509.load_der_x509_certificate(renewed.certificate).public_bytes(Encoding.PEM)
        replace_file(folder / CERTIFICATE_FILE, pem)
    print_result(arguments, {"name": identity.name, "valid_until_ms": renewed.validity.last_ms, "renewed": len(found)})
    return 0
