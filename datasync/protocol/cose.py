"""COSE_Sign1 and COSE_Encrypt0 (RFC 9052), as much of them as datasync uses: a closed profile.

Signed is always EdDSA, sealed always A256GCM, and nothing is negotiated: an unexpected header, tag, type or length
is refused. What a message is for, its *context*, is the external_aad, so a message of one kind cannot be passed
off as another. The size must have been checked before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datasync.domain.errors import MessageError, SignatureInvalid, Undecipherable
from datasync.protocol import cbor

HEADER_ALGORITHM = 1
HEADER_IV = 5
HEADER_X5CHAIN = 33
"""RFC 9360; with one certificate, a byte string."""

HEADER_SEALED_KEY = -65_537
"""Private use: the content key, sealed to the receiver."""

_EDDSA, _A256GCM = -8, 3
_TAG_SIGN1, _TAG_ENCRYPT0 = 0xD2, 0xD0
_SIGNATURE_BYTES, _IV_BYTES = 64, 12
_SEALED_HEADER = cbor.dumps({HEADER_ALGORITHM: _A256GCM})


@dataclass(frozen=True, slots=True)
class Signed:
    """A parsed COSE_Sign1 whose signature has not been checked yet."""

    protected: bytes
    headers: Mapping[int, Any]
    """The protected headers beside the algorithm."""

    payload: bytes
    signature: bytes

    def verify(self, key: Ed25519PublicKey, context: bytes) -> None:
        """Raise SignatureInvalid unless ``key`` signed this for ``context``."""
        try:
            key.verify(self.signature, _to_sign(self.protected, context, self.payload))
        except InvalidSignature as error:
            raise SignatureInvalid("the signature does not verify") from error


def sign(key: Ed25519PrivateKey, context: bytes, payload: bytes, headers: Mapping[int, object] | None = None) -> bytes:
    """Return a COSE_Sign1 with these protected headers beside the algorithm."""
    protected = cbor.dumps({HEADER_ALGORITHM: _EDDSA, **(headers or {})})
    signature = key.sign(_to_sign(protected, context, payload))
    return bytes([_TAG_SIGN1]) + cbor.dumps([protected, {}, payload, signature])


def parse_signed(data: bytes, headers: frozenset[int] = frozenset()) -> Signed:
    """Return the parts of a COSE_Sign1 that has exactly these protected headers beside the algorithm.

    Raises MessageError for anything else.
    """
    protected, unprotected, payload, signature = _untag(data, _TAG_SIGN1, 4)
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise MessageError("a COSE_Sign1 has byte strings as protected header, payload and signature")
    if unprotected != {} or len(signature) != _SIGNATURE_BYTES:
        raise MessageError("a COSE_Sign1 here has no unprotected header, and a signature of 64 bytes")
    found = cbor.loads(protected)
    algorithm = found.pop(HEADER_ALGORITHM, None) if isinstance(found, dict) else None
    if type(algorithm) is not int or algorithm != _EDDSA:
        raise MessageError("the algorithm is not EdDSA")
    if found.keys() != headers:
        raise MessageError(f"the protected headers are not {sorted(headers | {HEADER_ALGORITHM})}")
    return Signed(protected, found, payload, signature)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A parsed COSE_Encrypt0."""

    sealed_key: bytes
    iv: bytes
    ciphertext: bytes

    def open(self, key: AESGCM, context: bytes) -> bytes:
        """Return the plaintext. Raises Undecipherable when the key, the context or any byte is wrong."""
        try:
            return key.decrypt(self.iv, self.ciphertext, _to_seal(context))
        except InvalidTag as error:
            raise Undecipherable("the message does not open with its key") from error


def seal(key: AESGCM, iv: bytes, sealed_key: bytes, context: bytes, plaintext: bytes) -> bytes:
    """Return a COSE_Encrypt0 that carries its content key sealed to the receiver."""
    ciphertext = key.encrypt(iv, plaintext, _to_seal(context))
    unprotected = {HEADER_IV: iv, HEADER_SEALED_KEY: sealed_key}
    return bytes([_TAG_ENCRYPT0]) + cbor.dumps([_SEALED_HEADER, unprotected, ciphertext])


def parse_sealed(data: bytes) -> Sealed:
    """Return the parts of a COSE_Encrypt0. Raises MessageError for anything else."""
    protected, unprotected, ciphertext = _untag(data, _TAG_ENCRYPT0, 3)
    if protected != _SEALED_HEADER or not isinstance(ciphertext, bytes):
        raise MessageError("a COSE_Encrypt0 here has the algorithm A256GCM and a byte string as ciphertext")
    if not isinstance(unprotected, dict) or unprotected.keys() != {HEADER_IV, HEADER_SEALED_KEY}:
        raise MessageError("a COSE_Encrypt0 here has an IV and a sealed key as unprotected headers")
    iv, sealed_key = unprotected[HEADER_IV], unprotected[HEADER_SEALED_KEY]
    if not (isinstance(iv, bytes) and isinstance(sealed_key, bytes) and len(iv) == _IV_BYTES):
        raise MessageError("the IV or the sealed key is malformed")
    return Sealed(sealed_key, iv, ciphertext)


def _untag(data: bytes, tag: int, length: int) -> list[Any]:
    if not data or data[0] != tag:
        raise MessageError(f"the message does not begin with the COSE tag {tag - 0xC0}")
    parts = cbor.loads(data[1:])
    if not isinstance(parts, list) or len(parts) != length:
        raise MessageError(f"a COSE message with the tag {tag - 0xC0} has {length} parts")
    return parts


def _to_sign(protected: bytes, context: bytes, payload: bytes) -> bytes:
    return cbor.dumps(["Signature1", protected, context, payload])


def _to_seal(context: bytes) -> bytes:
    return cbor.dumps(["Encrypt0", _SEALED_HEADER, context])
