"""X.509 certificates as datasync uses them: a closed profile, Ed25519 only.

An operator's authority is a self-signed certificate with the SAN URI ``urn:datasync:operator:<operator>``. A node's
certificate carries ``urn:datasync:<role>:<name>``, its Ed25519 key as the subject's key, and its X25519 sealing key
in a private extension. For TLS, which uses the same certificate, the common name repeats the name as MQTT topics write
it, so that a broker's access list can speak of it, and host names stand beside the URI for clients that know no more
than an address. Everything a reader does not expect is refused. Errors here are ValueErrors in plain words;
:mod:`trust` and :mod:`identity` turn them into refusals and configuration errors.
"""

import datetime
import enum
import ipaddress
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, dotted, node_name, operator_of
from datasync.domain.limits import CERTIFICATE_BYTES_MAX
from datasync.security import points, sealing
from datasync.security.sealing import SealingPublicKey

SEALING_KEY_OID = x509.ObjectIdentifier("2.25.270668046671431610734873668318155159067")
"""The extension with a node's sealing key, a DER OCTET STRING: of 32 bytes X25519's, of 1216 MLKEM768-X25519's.

The arc 2.25 needs no registry.
"""

EXPIRY_WARNING_MS = 30 * 86_400_000
"""How long before its end a certificate is called to be renewed."""

BACKDATED_MS = 300_000
"""How long before its issue a certificate becomes valid, for nodes whose clocks are behind."""

_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_OCTET_STRINGS = {
    32: b"\x04\x20",
    sealing.HYBRID_PUBLIC_BYTES: b"\x04\x82" + sealing.HYBRID_PUBLIC_BYTES.to_bytes(2, "big"),
}
"""By length, how DER begins an octet string."""

_BIT_STRING_512 = b"\x03\x41\x00"
_URN = "urn:datasync:"
_PARSER_ERRORS = (
    CryptographyDeprecationWarning,
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)


class Role(enum.StrEnum):
    """What a node is, as its certificate says.

    The others are no nodes: ``POLICY`` is the key that signs an operator's policy, and ``BROKER`` the one that the MQTT
    broker of the edge or cloud of that name shows. Brokers are not trusted, so they do not have the node's own key: no
    message is taken from theirs, and it opens no connection. ``WORKER`` and ``ADMIN`` are clients of HTTP APIs and
    nothing else: no message is taken from them.
    """

    DEVICE = "device"
    EDGE = "edge"
    CLOUD = "cloud"
    POLICY = "policy"
    BROKER = "broker"
    WORKER = "worker"
    ADMIN = "admin"


NODES = frozenset({Role.DEVICE, Role.EDGE, Role.CLOUD})
CLIENTS = frozenset({Role.WORKER, Role.ADMIN})

_ONE_USE = {
    Role.BROKER: ExtendedKeyUsageOID.SERVER_AUTH,
    Role.WORKER: ExtendedKeyUsageOID.CLIENT_AUTH,
    Role.ADMIN: ExtendedKeyUsageOID.CLIENT_AUTH,
}
"""At which end of a connection alone a certificate is taken, by role; a node's is at either."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is valid, wall time in milliseconds since 1970, both inclusive."""

    first_ms: int
    last_ms: int

    def holds(self, now: Instant) -> bool:
        """Whether ``now`` lies inside."""
        return self.first_ms <= now.wall_ms <= self.last_ms


@dataclass(frozen=True, slots=True)
class AuthorityCertificate:
    """What an authority's certificate says."""

    operator: str
    subject: bytes
    verify_key: Ed25519PublicKey
    validity: Validity
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """What a node's certificate says; whether to believe it is for :class:`datasync.security.trust.Trust`."""

    name: NodeName
    role: Role
    verify_key: Ed25519PublicKey
    sealing_key: SealingPublicKey
    validity: Validity


def valid_for(now: Instant, days: int) -> Validity:
    """Return the validity of what is issued now, in whole seconds, as certificates have it."""
    second_ms = now.wall_ms // 1000 * 1000
    return Validity((now.wall_ms - BACKDATED_MS) // 1000 * 1000, second_ms + days * 86_400_000)


def authority_builder(operator: str, key: Ed25519PublicKey, validity: Validity, serial: int) -> x509.CertificateBuilder:
    """Return an operator's certificate but for its signature."""
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, operator)])
    return (
        _builder(subject, subject, key, validity, serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(_names("operator", operator), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def issue_authority(operator: str, key: Ed25519PrivateKey, *, now: Instant, days: int, serial: int) -> bytes:
    """Return an operator's self-signed certificate (DER)."""
    builder = authority_builder(operator, key.public_key(), valid_for(now, days), serial)
    return builder.sign(key, None).public_bytes(Encoding.DER)


def node_builder(
    name: NodeName,
    role: Role,
    verify_key: Ed25519PublicKey,
    sealing_key: SealingPublicKey,
    *,
    authority: AuthorityCertificate,
    validity: Validity,
    serial: int,
    hosts: Sequence[str] = (),
) -> x509.CertificateBuilder:
    """Return a node's certificate but for its signature.

    Raises ValueError for a host that is no name and no address, and for a name that is too long.
    """
    subject = _subject(name, role)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.verify_key)
    raw = sealing_key.public_bytes_raw()
    sealing_extension = x509.UnrecognizedExtension(SEALING_KEY_OID, _OCTET_STRINGS[len(raw)] + raw)
    builder = (
        _builder(subject, authority.certificate.subject, verify_key, validity, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(_names(role, name, hosts), critical=False)
        .add_extension(sealing_extension, critical=False)
        .add_extension(issuer_key, critical=False)
    )
    if role in _ONE_USE:
        builder = builder.add_extension(x509.ExtendedKeyUsage([_ONE_USE[role]]), critical=False)
    return builder


def issue_node(
    name: NodeName,
    role: Role,
    verify_key: Ed25519PublicKey,
    sealing_key: SealingPublicKey,
    *,
    authority: AuthorityCertificate,
    key: Ed25519PrivateKey,
    now: Instant,
    days: int,
    serial: int,
    hosts: Sequence[str] = (),
) -> bytes:
    """Return a node's certificate (DER), signed with the authority's ``key``. Raises ValueError as the builder."""
    validity = valid_for(now, days)
    builder = node_builder(
        name, role, verify_key, sealing_key, authority=authority, validity=validity, serial=serial, hosts=hosts
    )
    return builder.sign(key, None).public_bytes(Encoding.DER)


def parse(der: bytes) -> x509.Certificate:
    """Return the parsed certificate. Raises ValueError when it is too large, malformed or not Ed25519."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise ValueError(f"the certificate has {len(der)} bytes, more than {CERTIFICATE_BYTES_MAX}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)  # what is only warned about is refused here
            certificate = x509.load_der_x509_certificate(der)
        if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
            raise ValueError("the certificate is not signed with Ed25519")
        if not der.endswith(_BIT_STRING_512 + certificate.signature):
            raise ValueError("the certificate's signature is not the whole of its last 64 bytes")  # the parser is laxer
        return certificate
    except _PARSER_ERRORS as error:
        raise ValueError(f"the certificate cannot be read: {error}") from error


def is_issued_by(certificate: x509.Certificate, authority: AuthorityCertificate) -> bool:
    """Whether the authority's key signed the certificate under the authority's name."""
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (InvalidSignature, *_PARSER_ERRORS):
        return False
    return True


def read_authority(der: bytes) -> AuthorityCertificate:
    """Return what an authority's certificate says. Raises ValueError unless it is a self-signed Ed25519 authority."""
    certificate = parse(der)
    try:
        operator = _read_name(certificate, ("operator",))[1]
        authority = AuthorityCertificate(
            operator, certificate.subject.public_bytes(), _read_key(certificate), _validity(certificate), certificate
        )
        _check_extensions(certificate, is_authority=True)
    except _PARSER_ERRORS as error:
        raise ValueError(f"the certificate is no operator's authority: {error}") from error
    if "/" in operator or node_name(operator) != operator:
        raise ValueError(f"{operator!r} is no operator's name")
    if not is_issued_by(certificate, authority):
        raise ValueError("the authority's certificate is not signed by itself")
    return authority


def read_node(certificate: x509.Certificate) -> NodeCertificate:
    """Return what a node's certificate says. Raises ValueError when it does not fit the profile."""
    try:
        kind, text = _read_name(certificate, tuple(Role))
        role, name = Role(kind), node_name(text)
        _check_extensions(certificate, is_authority=False)
        extension = certificate.extensions.get_extension_for_oid(SEALING_KEY_OID).value
        sealing_key = _read_sealing_key(extension)
        node = NodeCertificate(name, role, _read_key(certificate), sealing_key, _validity(certificate))
        if certificate.subject != _subject(name, role):
            raise ValueError(f"its subject is not the common name {_common_name(name, role)}")
    except _PARSER_ERRORS as error:
        raise ValueError(f"the certificate is no node's: {error}") from error
    check_role(name, role)
    return node


def check_role(name: NodeName, role: Role) -> None:
    """Raise ValueError unless the name's form fits: a device belongs to no operator, all others to one."""
    if (role is Role.DEVICE) == bool(operator_of(name)):
        right = "a device has a name without an operator" if role is Role.DEVICE else "write operator/name"
        raise ValueError(f"{name!r} does not fit the role {role.value}: {right}")


def expiry_warning(last_ms: int, now: Instant) -> str | None:
    """Return what to say of a certificate that is valid until ``last_ms`` when that is soon, or over."""
    left_ms = last_ms - now.wall_ms
    if left_ms > EXPIRY_WARNING_MS:
        return None
    when = f"expires in {left_ms // 86_400_000} days" if left_ms >= 0 else "has expired"
    return f"the certificate {when}: renew it with datasync enroll renew"


def serial_number(entropy: Callable[[int], bytes]) -> int:
    """Return a serial number of at most 159 bits, never zero (RFC 5280, section 4.1.2.2)."""
    return int.from_bytes(entropy(19), "big") + 1


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, validity: Validity, serial: int
) -> x509.CertificateBuilder:
    first, last = _moment(validity.first_ms), _moment(validity.last_ms)
    return x509.CertificateBuilder(issuer, subject, key, serial, first, last)


def _moment(wall_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(wall_ms // 1000, datetime.UTC)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: NodeName, role: Role) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _common_name(name, role))])


def _common_name(name: NodeName, role: Role) -> str:
    """Return what an MQTT broker takes for the user's name: of a client of HTTP APIs one that no node's topics have."""
    return f"{role}:{dotted(name)}" if role in CLIENTS else dotted(name)


def _names(kind: str, name: str, hosts: Sequence[str] = ()) -> x509.SubjectAlternativeName:
    uri = x509.UniformResourceIdentifier(f"{_URN}{kind}:{name}")
    return x509.SubjectAlternativeName([uri, *map(_host, hosts)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if _HOST.fullmatch(text) is None:
            raise ValueError(f"{text!r} is no host: write a name in lower case, or an address") from None
        return x509.DNSName(text)


def hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the hosts that a certificate names for TLS clients."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(each.value) for each in names if isinstance(each, x509.DNSName | x509.IPAddress))


def _read_name(certificate: x509.Certificate, kinds: tuple[str, ...]) -> tuple[str, str]:
    """Return kind and name of the one URI; the hosts beside it matter to TLS clients alone."""
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    others = [each for each in names if not isinstance(each, x509.DNSName | x509.IPAddress)]
    if len(others) == 1 and isinstance(others[0], x509.UniformResourceIdentifier):
        kind, _, name = others[0].value.removeprefix(_URN).partition(":")
        if others[0].value.startswith(_URN) and kind in kinds:
            return kind, name
    raise ValueError(f"it needs exactly one name, the URI {_URN}<{'|'.join(kinds)}>:<name>, and hosts at most besides")


def _read_key(certificate: x509.Certificate) -> Ed25519PublicKey:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("its key is not an Ed25519 key")
    return points.verify_key(key.public_bytes_raw())


def _read_sealing_key(extension: x509.ExtensionType) -> SealingPublicKey:
    value = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    for length, start in _OCTET_STRINGS.items():
        if value.startswith(start) and len(value) == len(start) + length:
            return sealing.public_key(value[len(start) :])
    raise ValueError(f"its sealing key is not an octet string of {' or '.join(map(str, _OCTET_STRINGS))} bytes")


def _check_extensions(certificate: x509.Certificate, *, is_authority: bool) -> None:
    known = (x509.BasicConstraints, x509.KeyUsage, x509.SubjectAlternativeName)
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, known):
            raise ValueError(f"it has a critical extension {extension.oid.dotted_string} that is not known here")
    if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca != is_authority:
        raise ValueError("it may" + (" not" if is_authority else "") + " sign other certificates")
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    if not (usage.key_cert_sign if is_authority else usage.digital_signature):
        raise ValueError("its key is for another use")


def _validity(certificate: x509.Certificate) -> Validity:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Validity(int(first.timestamp()) * 1000, int(last.timestamp()) * 1000)
