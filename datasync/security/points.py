"""Public keys that must never be accepted: points of small order.

With such a key an Ed25519 signature can verify for messages that nobody signed, and an X25519 exchange yields a
secret that everybody knows. OpenSSL takes them, so every key that arrives from outside passes here first. The
lists are all encodings of the curve's points of order 1, 2, 4 and 8, the non-canonical encodings included
(RFC 7748 section 6.1; Chalkias, Garillot and Nikolaenko, "Taming the many EdDSAs", 2020).
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

_PRIME = 2**255 - 19
_ORDER_8_EDWARDS = (
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)
_ORDER_8_MONTGOMERY = (
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
_SIGN_BIT = 1 << 255
_SMALL_EDWARDS = frozenset({0, 1, _PRIME - 1, _PRIME, _PRIME + 1, *_ORDER_8_EDWARDS})
_SMALL_MONTGOMERY = frozenset({0, 1, _PRIME - 1, _PRIME, _PRIME + 1, *_ORDER_8_MONTGOMERY})


def verify_key(raw: bytes) -> Ed25519PublicKey:
    """Return the Ed25519 public key with these 32 bytes. Raises ValueError for another length or small order."""
    if len(raw) != 32:
        raise ValueError(f"an Ed25519 public key has 32 bytes, not {len(raw)}")
    if int.from_bytes(raw, "little") % _SIGN_BIT in _SMALL_EDWARDS:
        raise ValueError("the Ed25519 public key has small order, so anyone can sign for it")
    return Ed25519PublicKey.from_public_bytes(raw)


def sealing_key(raw: bytes) -> X25519PublicKey:
    """Return the X25519 public key with these 32 bytes. Raises ValueError for another length or small order."""
    if len(raw) != 32:
        raise ValueError(f"an X25519 public key has 32 bytes, not {len(raw)}")
    if int.from_bytes(raw, "little") % _SIGN_BIT in _SMALL_MONTGOMERY:
        raise ValueError("the X25519 public key has small order, so its secrets are known")
    return X25519PublicKey.from_public_bytes(raw)
