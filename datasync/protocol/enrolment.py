"""A device's enrolment as a text that fits a QR code: who it is, its keys, whom it trusts, and where its edge is.

The text is ``DS1:`` and Base45 of a salt, the sealed enrolment and a checksum. It is sealed (AES-256-GCM) under what
scrypt makes of a one-time code of 80 random bits, so a picture of it is of no use to who does not have the code. The
checksum (CRC-32) only tells a damaged text from a wrong code. A salt's key seals once, hence the constant nonce. After
some time it is taken no more. Inside is CBOR, without what the device can derive or draw by itself: of certificates
what makes them again (:mod:`datasync.security.compact`), and, unless the identity was in use already, not the secret
from which the keys of its streams come. Whatever is wrong raises EnrolmentInvalid or one of its kinds, and nothing
inside is believed before its certificates are verified.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datasync.domain.clock import Instant
from datasync.domain.errors import (
    ConfigError,
    EnrolmentCodeWrong,
    EnrolmentDamaged,
    EnrolmentExpired,
    EnrolmentInvalid,
    EnrolmentTooLarge,
    MessageError,
)
from datasync.domain.ids import NodeName, node_name, operator_of
from datasync.protocol import cbor
from datasync.security import base45, certificates, compact, passphrase
from datasync.security.identity import Identity, Role
from datasync.security.passphrase import COST, Cost
from datasync.security.sealing import HybridPrivateKey, SealingPrivateKey
from datasync.security.trust import Trust

PREFIX = "DS1:"
CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's Base32: nothing in it looks like anything else in it."""

CODE_CHARACTERS = 16
TEXT_CHARACTERS_MAX = 4_296
"""What the largest QR code holds."""

AUTHORITIES_MAX = 16
SECRET_BYTES = 32

_SALT_BYTES, _CHECKSUM_BYTES, _TAG_BYTES = 16, 4, 16
_NONCE = bytes(12)
_CONTEXT = b"datasync/enrolment/1"
_LOOK_ALIKES = str.maketrans("OIL", "011")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a device gets: an identity, the authorities (DER) that it trusts, and its home edge.

    The first authority is the one that issued its certificate; ``broker`` is the URL of the edge's broker.
    """

    identity: Identity
    authorities: tuple[bytes, ...] = field(repr=False)
    edge: NodeName
    broker: str
    expires_ms: int


def draw_code(entropy: Callable[[int], bytes]) -> str:
    """Return a new one-time code, in groups of four."""
    bits = int.from_bytes(entropy(CODE_CHARACTERS * 5 // 8), "big")
    characters = [CODE_ALPHABET[bits >> 5 * place & 31] for place in range(CODE_CHARACTERS)]
    return "-".join("".join(characters[at : at + 4]) for at in range(0, CODE_CHARACTERS, 4))


def pack(
    enrolment: Enrolment, code: str, entropy: Callable[[int], bytes], *, with_secret: bool = False, cost: Cost = COST
) -> str:
    """Return the text; ``with_secret`` is for an identity that was in use.

    Raises EnrolmentInvalid for what cannot be packed, EnrolmentTooLarge.
    """
    try:
        content = cbor.dumps(_packed(enrolment, enrolment.identity.secret if with_secret else None))
    except ValueError as error:
        raise EnrolmentInvalid(str(error)) from error
    salt = entropy(_SALT_BYTES)
    sealed = salt + AESGCM(_key(code, salt, cost)).encrypt(_NONCE, content, _CONTEXT)
    text = PREFIX + base45.encode(sealed + _checksum(sealed))
    _check_length(text)
    return text


def unpack(text: str, code: str, now: Instant, entropy: Callable[[int], bytes], *, cost: Cost = COST) -> Enrolment:
    """Return the enrolment in a text, its certificates verified, with a secret drawn if it has none.

    Raises EnrolmentTooLarge, EnrolmentDamaged, EnrolmentCodeWrong, EnrolmentExpired, EnrolmentInvalid.
    """
    sealed = undamaged(text)
    salt = sealed[:_SALT_BYTES]
    try:
        content = AESGCM(_key(code, salt, cost)).decrypt(_NONCE, sealed[_SALT_BYTES:], _CONTEXT)
    except InvalidTag:
        raise EnrolmentCodeWrong(
            "the code does not open the enrolment", fix="type the code that came with it"
        ) from None
    try:
        return _unpacked(cbor.loads(content), now, entropy)
    except (ValueError, MessageError, ConfigError) as error:
        if isinstance(error, EnrolmentInvalid):
            raise
        raise EnrolmentInvalid(f"the enrolment cannot be used: {error}") from error


def undamaged(text: str) -> bytes:
    """Return the bytes of a text that is whole. Raises EnrolmentTooLarge and EnrolmentDamaged."""
    text = text.strip()
    _check_length(text)
    if not text.startswith(PREFIX):
        raise EnrolmentDamaged(f"it does not begin with {PREFIX}", fix="scan the whole code again")
    try:
        data = base45.decode(text.removeprefix(PREFIX))
    except ValueError as error:
        raise EnrolmentDamaged(str(error), fix="scan the whole code again") from error
    sealed, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(sealed) < _SALT_BYTES + _TAG_BYTES or checksum != _checksum(sealed):
        raise EnrolmentDamaged("it is cut off or changed", fix="scan the whole code again")
    return sealed


def _check_length(text: str) -> None:
    if len(text) > TEXT_CHARACTERS_MAX:
        raise EnrolmentTooLarge(f"it has {len(text)} characters, more than the {TEXT_CHARACTERS_MAX} of any QR code")


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


def _key(code: str, salt: bytes, cost: Cost) -> bytes:
    return passphrase.stretch(_plain(code), salt, cost)


def _plain(code: str) -> str:
    """Return a code as it was drawn, however it was typed. Raises EnrolmentCodeWrong when it is none."""
    plain = "".join(code.split()).replace("-", "").upper().translate(_LOOK_ALIKES)
    if len(plain) != CODE_CHARACTERS or not set(plain) <= set(CODE_ALPHABET):
        raise EnrolmentCodeWrong(f"a code has {CODE_CHARACTERS} letters and digits, as in 7KQD-2M0X-…")
    return plain


def _packed(enrolment: Enrolment, secret: bytes | None) -> list[object]:
    identity = enrolment.identity
    own = certificates.read_authority(enrolment.authorities[0])
    return [
        enrolment.expires_ms // 1000,
        identity.name,
        identity.signing_key.private_bytes_raw(),
        _raw(identity.sealing_key),
        secret,
        compact.pack_node(identity.certificate, own),
        [compact.pack_authority(each) for each in enrolment.authorities],
        enrolment.edge,
        enrolment.broker,
    ]


def _unpacked(content: object, now: Instant, entropy: Callable[[int], bytes]) -> Enrolment:
    match content:
        case [
            int(expires_s), str(name), bytes(signing), bytes(sealing), bytes() | None as secret,
            packed, list(packed_authorities), str(edge), str(broker),
        ] if 0 < len(packed_authorities) <= AUTHORITIES_MAX:  # fmt: skip
            pass
        case _:
            raise ValueError("it is of another form")
    if now.wall_ms > expires_s * 1000:
        fix = "have a new one made, and look at this machine's clock"
        raise EnrolmentExpired("it was to be scanned earlier", fix=fix)
    authorities = tuple(compact.unpack_authority(each) for each in packed_authorities)
    keys = Ed25519PrivateKey.from_private_bytes(signing), _sealing_key(sealing)
    own = certificates.read_authority(authorities[0])
    public = keys[0].public_key(), keys[1].public_key()
    certificate = compact.unpack_node(packed, node_name(name), Role.DEVICE, *public, own)
    identity = Identity(NodeName(name), Role.DEVICE, certificate, *keys, secret or entropy(SECRET_BYTES))
    enrolment = Enrolment(identity, authorities, node_name(edge), broker, expires_s * 1000)
    _verify(enrolment, now)
    return enrolment


def _verify(enrolment: Enrolment, now: Instant) -> None:
    """Raise ValueError, ConfigError or MessageError unless all of it is certified and fits together."""
    Trust(enrolment.authorities).verify(enrolment.identity.certificate, now)
    operators = {certificates.read_authority(each).operator for each in enrolment.authorities}
    if operator_of(enrolment.edge) not in operators:
        raise ValueError(f"no authority of {enrolment.edge}'s operator comes with it")
    if len(enrolment.identity.secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(enrolment.identity.secret)}")


def _raw(key: SealingPrivateKey) -> bytes:
    if isinstance(key, HybridPrivateKey):
        return key.mlkem.private_bytes_raw() + key.x25519.private_bytes_raw()
    return key.private_bytes_raw()


def _sealing_key(raw: bytes) -> SealingPrivateKey:
    x25519 = X25519PrivateKey.from_private_bytes(raw[-32:])
    if len(raw) == 32:
        return x25519
    return HybridPrivateKey(MLKEM768PrivateKey.from_seed_bytes(raw[:-32]), x25519)
