"""Certificates that count no longer: an authority's list of them.

A list is the authority's whole word on the matter and replaces the one before; its number increases. It names
certificates by serial number, so that a node whose key was stolen can be enrolled again under its name. One that is
past its end is of no more interest and is left out when the list is next extended.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError
from datasync.domain.ids import NodeName
from datasync.security import certificates
from datasync.security.certificates import AuthorityCertificate

REVOKED_MAX = 10_000
"""Certificates of one list."""

CRL_DAYS = 3_650
"""How long the X.509 form is valid: brokers that find it outdated refuse everybody."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """One certificate that counts no longer: its serial number, whom it names, until when it would have counted."""

    serial: int
    name: NodeName
    until_ms: int
    revoked_ms: int


@dataclass(frozen=True, slots=True)
class RevocationList:
    """All that one authority has revoked."""

    operator: str
    number: int
    issued_ms: int
    revoked: tuple[Revoked, ...]

    def extended(self, more: Iterable[Revoked], now: Instant) -> Self:
        """Return the next list. Raises ConfigError when it would be too long."""
        known = {each.serial: each for each in (*more, *self.revoked) if each.until_ms >= now.wall_ms}
        if len(known) > REVOKED_MAX:
            raise ConfigError(f"a list has at most {REVOKED_MAX} certificates", fix="make a new authority")
        return type(self)(self.operator, self.number + 1, now.wall_ms, tuple(known[serial] for serial in sorted(known)))


def revoked(certificate: bytes, now: Instant) -> Revoked:
    """Return the entry for a node's certificate (DER). Raises ConfigError when it is none."""
    try:
        parsed = certificates.parse(certificate)
        node = certificates.read_node(parsed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return Revoked(parsed.serial_number, node.name, node.validity.last_ms, now.wall_ms)


def crl(listed: RevocationList, authority: AuthorityCertificate, key: Ed25519PrivateKey) -> bytes:
    """Return the list as an X.509 certificate revocation list (PEM, RFC 5280, section 5), for MQTT brokers."""
    issued = _moment(listed.issued_ms)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(issued)
        .next_update(issued + datetime.timedelta(days=CRL_DAYS))
        .add_extension(x509.CRLNumber(listed.number), critical=False)
    )
    for each in listed.revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(_moment(each.revoked_ms))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, None).public_bytes(Encoding.PEM)


def _moment(wall_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(wall_ms // 1000, datetime.UTC)
