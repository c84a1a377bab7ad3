"""Sealing a key to one node: HPKE (RFC 9180), base mode, single shot, HKDF-SHA256 / AES-256-GCM.

The receiver's key decides how: X25519, or MLKEM768-X25519 (draft-ietf-hpke-pq), which holds as long as one of its two
parts does, so that what is recorded today stays closed to who can break X25519 one day. Nothing is negotiated: the key
is in the receiver's certificate.

Only keys are sealed this way; what they protect travels under them. Base mode says nothing of who sealed a key:
``info`` binds it to its use and its sender, and what carries it is signed. A key sealed for one use does not open for
another.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from datasync.domain.errors import Undecipherable
from datasync.security import points

KEY_BYTES = 32
SEALED_KEY_BYTES = 80
"""With X25519: the encapsulated key (32), the sealed key (32) and its tag (16)."""

HYBRID_SEALED_KEY_BYTES = 1_168
"""With MLKEM768-X25519 the encapsulated key has 1,120."""

HYBRID_PUBLIC_BYTES = 1_216

_MLKEM_PUBLIC_BYTES, _MLKEM_SEED_BYTES = 1_184, 64
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_HYBRID_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class Kem(enum.StrEnum):
    """How keys are sealed to a node."""

    X25519 = "x25519"
    MLKEM768_X25519 = "mlkem768-x25519"


@dataclass(frozen=True, slots=True)
class HybridPublicKey:
    """The public key of a node that is sealed to with MLKEM768-X25519."""

    mlkem: MLKEM768PublicKey
    x25519: X25519PublicKey

    def public_bytes_raw(self) -> bytes:
        """Return both keys, ML-KEM's first."""
        return self.mlkem.public_bytes_raw() + self.x25519.public_bytes_raw()


@dataclass(frozen=True, slots=True)
class HybridPrivateKey:
    """Its private key."""

    mlkem: MLKEM768PrivateKey
    x25519: X25519PrivateKey

    def public_key(self) -> HybridPublicKey:
        """Return the public key."""
        return HybridPublicKey(self.mlkem.public_key(), self.x25519.public_key())


SealingPublicKey = X25519PublicKey | HybridPublicKey
SealingPrivateKey = X25519PrivateKey | HybridPrivateKey


def draw(kem: Kem, entropy: Callable[[int], bytes]) -> SealingPrivateKey:
    """Return a new private key."""
    x25519 = X25519PrivateKey.from_private_bytes(entropy(32))
    if kem is Kem.X25519:
        return x25519
    return HybridPrivateKey(MLKEM768PrivateKey.from_seed_bytes(entropy(_MLKEM_SEED_BYTES)), x25519)


def public_key(raw: bytes) -> SealingPublicKey:
    """Return the public key with these bytes, of either kind. Raises ValueError for others and for small order."""
    if len(raw) != HYBRID_PUBLIC_BYTES:
        return points.sealing_key(raw)
    mlkem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES])
    return HybridPublicKey(mlkem, points.sealing_key(raw[_MLKEM_PUBLIC_BYTES:]))


def encapsulate(recipient: SealingPublicKey, info: bytes, key: bytes) -> bytes:
    """Return ``key`` (32 bytes) sealed to ``recipient``. Raises ValueError for another length."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    if isinstance(recipient, HybridPublicKey):
        return _HYBRID_SUITE.encrypt(key, MLKEM768X25519PublicKey(recipient.mlkem, recipient.x25519), info)
    return _SUITE.encrypt(key, recipient, info)


def decapsulate(recipient: SealingPrivateKey, info: bytes, sealed: bytes) -> bytes:
    """Return the key (32 bytes) that :func:`encapsulate` sealed.

    Raises Undecipherable when it was sealed to another node or for another use, or was changed.
    """
    wanted = HYBRID_SEALED_KEY_BYTES if isinstance(recipient, HybridPrivateKey) else SEALED_KEY_BYTES
    if len(sealed) != wanted:
        raise Undecipherable(f"a sealed key has {wanted} bytes, not {len(sealed)}")
    try:
        if isinstance(recipient, HybridPrivateKey):
            return _HYBRID_SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(recipient.mlkem, recipient.x25519), info)
        return _SUITE.decrypt(sealed, recipient, info)
    except (InvalidTag, ValueError) as error:
        raise Undecipherable("the sealed key was not sealed to this node for this use") from error
