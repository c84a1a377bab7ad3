"""A node's identity: who it is, and the one secret that its other keys come from.

The certificate names the node and carries its public keys. Every key that must exist again after a restart without
being stored (a stream's signing key, a pseudonym's key) is derived from ``secret`` by HKDF-SHA256 (RFC 5869) with
an info string that says what for and in which version, so no two uses share a key and a change of scheme is a new
string. On disk: ``certificate.pem``, ``signing.key`` and ``sealing.key`` (PKCS #8 PEM), ``secret`` (hexadecimal).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from datasync.domain.errors import ConfigError
from datasync.domain.ids import NodeName
from datasync.domain.tiers import Tier
from datasync.security import certificates, files
from datasync.security.certificates import Role, Validity
from datasync.security.sealing import HybridPrivateKey, SealingPrivateKey

__all__ = ["Identity", "Role", "private_key_pem", "read_signing_key"]

CERTIFICATE_FILE = "certificate.pem"
SIGNING_FILE = "signing.key"
SEALING_FILE = "sealing.key"
_PEM_BEGIN = b"-----BEGIN"
SECRET_FILE = "secret"  # noqa: S105 (a file's name)


@dataclass(frozen=True, slots=True)
class Identity:
    """One node: its name and role, its certificate (X.509 DER), its private keys and its secret (32 bytes)."""

    name: NodeName
    role: Role
    certificate: bytes = field(repr=False)
    signing_key: Ed25519PrivateKey = field(repr=False)
    sealing_key: SealingPrivateKey = field(repr=False)
    secret: bytes = field(repr=False)

    @property
    def validity(self) -> Validity:
        """From when until when the certificate is valid."""
        return certificates.read_node(certificates.parse(self.certificate)).validity

    def with_certificate(self, certificate: bytes) -> Self:
        """Return the same node with a renewed certificate (DER)."""
        return replace(self, certificate=certificate)

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes that only this node can derive again, different for every purpose."""
        return self._expand("derive", purpose)

    def stream_key(self, collection: str, tier: Tier, generation: int) -> Ed25519PrivateKey:
        """Return the signing key of one of this device's streams; a new generation is a new, unlinkable stream."""
        return Ed25519PrivateKey.from_private_bytes(
            self._expand("stream-key", f"{generation}/{tier.label}/{collection}")
        )

    def pseudonym_key(self, transform: str, period: int) -> bytes:
        """Return the HMAC key (32 bytes) of a pseudonymising transform in one period of its rotation."""
        return self._expand("pseudonym-key", f"{period}/{transform}")

    def save(self, folder: Path) -> None:
        """Write the identity's files, the certificate last. Raises ConfigError rather than overwrite any."""
        files.write_private(folder / SECRET_FILE, self.secret.hex().encode() + b"\n")
        files.write_private(folder / SIGNING_FILE, private_key_pem(self.signing_key))
        files.write_private(folder / SEALING_FILE, b"".join(map(private_key_pem, _parts(self.sealing_key))))
        pem = x509.load_der_x509_certificate(self.certificate).public_bytes(Encoding.PEM)
        files.write_private(folder / CERTIFICATE_FILE, pem)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the identity in ``folder``.

        Raises ConfigError when a file is missing or malformed, open to other users (``fix`` has the command), or
        when the keys are not the certificate's.
        """
        certificate, node = _read_certificate(folder / CERTIFICATE_FILE)
        signing_key = read_signing_key(folder / SIGNING_FILE)
        sealing_key = _read_sealing_key(folder / SEALING_FILE)
        own = signing_key.public_key(), sealing_key.public_key().public_bytes_raw()
        if own != (node.verify_key, node.sealing_key.public_bytes_raw()):
            raise ConfigError("the keys are not the ones in the certificate", where=str(folder))
        secret = files.read_key(folder / SECRET_FILE)
        return cls(node.name, node.role, certificate, signing_key, sealing_key, secret)

    def _expand(self, use: str, context: str) -> bytes:
        info = f"datasync/{use}/1/{context}".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self.secret)


def _parts(key: SealingPrivateKey) -> tuple[X25519PrivateKey | MLKEM768PrivateKey, ...]:
    return (key.mlkem, key.x25519) if isinstance(key, HybridPrivateKey) else (key,)


def private_key_pem(key: Ed25519PrivateKey | X25519PrivateKey | MLKEM768PrivateKey) -> bytes:
    """Return a private key as PKCS #8 PEM; the file's mode protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the Ed25519 private key in a PKCS #8 PEM file. Raises ConfigError."""
    key = _read_pem(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("the key is no Ed25519 private key", where=str(path))
    return key


def _read_sealing_key(path: Path) -> SealingPrivateKey:
    match _read_pems(path):
        case [X25519PrivateKey() as key]:
            return key
        case [MLKEM768PrivateKey() as mlkem, X25519PrivateKey() as x25519]:
            return HybridPrivateKey(mlkem, x25519)
    raise ConfigError("it holds neither an X25519 private key nor an ML-KEM-768 and an X25519 one", where=str(path))


def _read_pem(path: Path) -> PrivateKeyTypes:
    keys = _read_pems(path)
    if len(keys) != 1:
        raise ConfigError(f"the file holds {len(keys)} private keys in PKCS #8 PEM, not one", where=str(path))
    return keys[0]


def _read_pems(path: Path) -> list[PrivateKeyTypes]:
    """Return all private keys in a file, one at least. Raises ConfigError."""
    first, *more = files.read_private(path).split(_PEM_BEGIN)
    try:
        return [load_pem_private_key(_PEM_BEGIN + each, password=None) for each in more or [first]]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("the file holds no private key in PKCS #8 PEM", where=str(path)) from error


def _read_certificate(path: Path) -> tuple[bytes, certificates.NodeCertificate]:
    try:
        der = x509.load_pem_x509_certificate(files.read_private(path)).public_bytes(Encoding.DER)
        return der, certificates.read_node(certificates.parse(der))
    except ValueError as error:
        raise ConfigError(str(error), where=str(path)) from error
