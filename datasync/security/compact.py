"""Certificates of our own profile without what can be derived: for where every byte counts, as in a QR code.

Ed25519 signs deterministically over a certificate that our builders make from a handful of values. So these values and
the signature are enough to make the very same certificate again: 100 bytes or so, where a whole one has 400. Whoever
packs a certificate checks that this is so; whoever unpacks one judges it as any other.
"""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.domain.ids import NodeName
from datasync.security import certificates, points
from datasync.security.certificates import AuthorityCertificate, Role, Validity
from datasync.security.sealing import SealingPublicKey

SIGNATURE_BYTES = 64
SERIAL_BYTES = 20

_ANY_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
"""Signs what gets the true signature afterwards."""

Packed = list[object]
"""Plain values, as CBOR has them."""


def pack_authority(certificate: bytes) -> Packed:
    """Return what makes an authority's certificate (DER). Raises ValueError when it is none, or not as ours are."""
    authority = certificates.read_authority(certificate)
    packed = [
        authority.operator,
        authority.verify_key.public_bytes_raw(),
        *_common(authority.certificate, authority.validity),
    ]
    _check(unpack_authority(packed), certificate)
    return packed


def unpack_authority(packed: object) -> bytes:
    """Return the certificate (DER); whether to believe it is for others to judge. Raises ValueError."""
    match packed:
        case [str(operator), bytes(key), bytes(serial), int(first_s), int(last_s), bytes(signature)]:
            builder = certificates.authority_builder(
                operator, points.verify_key(key), _validity(first_s, last_s), _serial(serial)
            )
            return _signed(builder, signature)
    raise ValueError("an authority's certificate is not what was packed")


def pack_node(certificate: bytes, authority: AuthorityCertificate) -> Packed:
    """Return what makes a node's certificate (DER) but its name, role and keys. Raises ValueError as above."""
    parsed = certificates.parse(certificate)
    node = certificates.read_node(parsed)
    packed = [*_common(parsed, node.validity), list(certificates.hosts(parsed))]
    made = unpack_node(packed, node.name, node.role, node.verify_key, node.sealing_key, authority)
    _check(made, certificate)
    return packed


def unpack_node(
    packed: object,
    name: NodeName,
    role: Role,
    verify_key: Ed25519PublicKey,
    sealing_key: SealingPublicKey,
    authority: AuthorityCertificate,
) -> bytes:
    """Return the certificate (DER); whether to believe it is for others to judge. Raises ValueError."""
    match packed:
        case [bytes(serial), int(first_s), int(last_s), bytes(signature), list(hosts)]:
            builder = certificates.node_builder(
                name,
                role,
                verify_key,
                sealing_key,
                authority=authority,
                validity=_validity(first_s, last_s),
                serial=_serial(serial),
                hosts=[str(host) for host in hosts],
            )
            return _signed(builder, signature)
    raise ValueError("a node's certificate is not what was packed")


def _common(certificate: x509.Certificate, validity: Validity) -> Packed:
    serial = certificate.serial_number
    return [
        serial.to_bytes((serial.bit_length() + 7) // 8, "big"),
        validity.first_ms // 1000,
        validity.last_ms // 1000,
        certificate.signature,
    ]


def _validity(first_s: int, last_s: int) -> Validity:
    if not 0 <= first_s <= last_s < 1 << 36:
        raise ValueError("a certificate's validity is no stretch of time")
    return Validity(first_s * 1000, last_s * 1000)


def _serial(raw: bytes) -> int:
    if not 0 < len(raw) <= SERIAL_BYTES:
        raise ValueError("a certificate's serial number has too few or too many bytes")
    return int.from_bytes(raw, "big")


def _signed(builder: x509.CertificateBuilder, signature: bytes) -> bytes:
    if len(signature) != SIGNATURE_BYTES:
        raise ValueError(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    return builder.sign(_ANY_KEY, None).public_bytes(Encoding.DER)[:-SIGNATURE_BYTES] + signature


def _check(made: bytes, certificate: bytes) -> None:
    if made != certificate:
        raise ValueError("the certificate was not made as this version makes them; renew it")
