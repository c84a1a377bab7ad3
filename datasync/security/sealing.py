"""Sealing a key to one node: HPKE (RFC 9180), base mode, single shot, X25519 / HKDF-SHA256 / AES-256-GCM.

Only keys are sealed this way; what they protect travels under them. Base mode says nothing of who sealed a key:
``info`` binds it to its use and its sender, and what carries it is signed. A key sealed for one use does not open for
another.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from datasync.domain.errors import Undecipherable

KEY_BYTES = 32
SEALED_KEY_BYTES = 80
"""The encapsulated key (32), the sealed key (32) and its tag (16)."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def encapsulate(recipient: X25519PublicKey, info: bytes, key: bytes) -> bytes:
    """Return ``key`` (32 bytes) sealed to ``recipient``: 80 bytes. Raises ValueError for another length."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return _SUITE.encrypt(key, recipient, info)


def decapsulate(recipient: X25519PrivateKey, info: bytes, sealed: bytes) -> bytes:
    """Return the key (32 bytes) that :func:`encapsulate` sealed.

    Raises Undecipherable when it was sealed to another node or for another use, or was changed.
    """
    if len(sealed) != SEALED_KEY_BYTES:
        raise Undecipherable(f"a sealed key has {SEALED_KEY_BYTES} bytes, not {len(sealed)}")
    try:
        return _SUITE.decrypt(sealed, recipient, info)
    except (InvalidTag, ValueError) as error:
        raise Undecipherable("the sealed key was not sealed to this node for this use") from error
