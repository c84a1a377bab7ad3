"""The envelope of every message: who says it, in which context, and for whose eyes.

Brokers are not trusted. Every message is a COSE_Sign1 that carries its signer's certificate, so a receiver needs
nothing but the operators' authorities. ``context`` says what the message is for: its topic, or for what is sealed by
itself inside a message a string of its own, with the epoch where it counts under one. Where the content is not for
brokers to read it is a COSE_Encrypt0 inside, under a content key that travels with it, sealed to the receiver.

What is bound where: the signature and the AEAD are over the context (external_aad), so that the same bytes do not
verify elsewhere. HPKE's ``info`` binds a content key to the sender by name and signing key, to the receiver by name
and to the context: nobody can wrap another's key in a message of its own, or use it for anything else, not even the
receiver towards a third. What varies from message to message is in the body, which the AEAD covers.

Nonces are a fixed part, drawn with the key, and a counter. Keys and fixed parts are in memory alone: a process that
starts, be it from a restored disk or in a cloned machine, draws its own, so that none goes on where another was.
Every refusal is a MessageError.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datasync.domain.clock import Instant
from datasync.domain.errors import MessageError, MessageTooLarge, SignerForeign
from datasync.domain.ids import NodeName
from datasync.domain.limits import PEERS_CACHED_MAX
from datasync.protocol import cbor, cose
from datasync.security import sealing
from datasync.security.certificates import NODES, Role
from datasync.security.identity import Identity
from datasync.security.recent import Recent
from datasync.security.trust import Peer, Trust

MESSAGES_PER_KEY_MAX = 1 << 20
"""After so many messages a sealer draws a new content key."""

_SALT_BYTES, _COUNTER_BYTES = 4, 8
_HEADERS = frozenset({cose.HEADER_X5CHAIN})
_SIGNERS = NODES | {Role.POLICY}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A verified message: who signed it, and what."""

    peer: Peer
    body: bytes


def sign(identity: Identity, context: str, body: bytes) -> bytes:
    """Return ``body`` signed for ``context``, with the signer's certificate."""
    headers = {cose.HEADER_X5CHAIN: identity.certificate}
    return cose.sign(identity.signing_key, context.encode(), body, headers)


def verify(data: bytes, context: str, trust: Trust, now: Instant, *, bytes_max: int) -> Envelope:
    """Return what a trusted node signed for ``context``.

    Raises MessageTooLarge, MessageError (malformed), SignerUntrusted, SignerForeign or SignatureInvalid.
    """
    if len(data) > bytes_max:
        raise MessageTooLarge(f"the message has {len(data)} bytes, more than {bytes_max}")
    signed = cose.parse_signed(data, _HEADERS)
    certificate = signed.headers[cose.HEADER_X5CHAIN]
    if not isinstance(certificate, bytes):
        raise MessageError("the certificate is no byte string")
    peer = trust.verify(certificate, now)
    if peer.role not in _SIGNERS:
        raise SignerForeign(f"{peer.role} {peer.name} signed a message, which is not for it to do")
    signed.verify(peer.verify_key, context.encode())
    return Envelope(peer, signed.payload)


@dataclass(slots=True)
class _ContentKey:
    key: AESGCM
    sealed: bytes
    salt: bytes
    used: int = 0

    def next_iv(self) -> bytes:
        self.used += 1
        return self.salt + self.used.to_bytes(_COUNTER_BYTES, "big")


class Sealer:
    """Seals one node's messages to their receivers.

    There is one content key for each receiver, context and process, so the cost of HPKE is paid once; nonces count
    up from a salt that is drawn with the key. Keys are bounded in number: a forgotten one is simply drawn anew.
    """

    def __init__(self, identity: Identity, entropy: Callable[[int], bytes]) -> None:
        self._name = identity.name
        self._verify_key = identity.signing_key.public_key()
        self._entropy = entropy
        self._keys: Recent[tuple[bytes, str], _ContentKey] = Recent(PEERS_CACHED_MAX)

    def seal(self, peer: Peer, context: str, plaintext: bytes) -> bytes:
        """Return a COSE_Encrypt0 that only ``peer`` opens, only for ``context``, and only as this node's."""
        content = self._content_key(peer, context)
        return cose.seal(content.key, content.next_iv(), content.sealed, context.encode(), plaintext)

    def _content_key(self, peer: Peer, context: str) -> _ContentKey:
        use = (peer.certificate, context)
        content = self._keys.get(use)
        if content is None or content.used >= MESSAGES_PER_KEY_MAX:
            key, salt = self._entropy(sealing.KEY_BYTES), self._entropy(_SALT_BYTES)
            info = _key_info(self._name, self._verify_key, peer.name, context)
            content = _ContentKey(AESGCM(key), sealing.encapsulate(peer.sealing_key, info, key), salt)
            self._keys.put(use, content)
        return content


class Opener:
    """Opens what was sealed to one node, remembering a bounded number of content keys."""

    def __init__(self, identity: Identity) -> None:
        self._name = identity.name
        self._sealing_key = identity.sealing_key
        self._keys: Recent[tuple[bytes, bytes], AESGCM] = Recent(PEERS_CACHED_MAX)

    def open(self, data: bytes, context: str, sender: Peer) -> bytes:
        """Return the plaintext that ``sender`` sealed to this node for ``context``.

        Raises MessageError when malformed, Undecipherable when it is another's, for another context, or changed.
        """
        sealed = cose.parse_sealed(data)
        info = _key_info(sender.name, sender.verify_key, self._name, context)
        key = self._keys.get((info, sealed.sealed_key))
        if key is None:
            key = AESGCM(sealing.decapsulate(self._sealing_key, info, sealed.sealed_key))
            self._keys.put((info, sealed.sealed_key), key)
        return sealed.open(key, context.encode())


def _key_info(sender: NodeName, verify_key: Ed25519PublicKey, receiver: NodeName, context: str) -> bytes:
    return cbor.dumps(["datasync/content-key/2", sender, verify_key.public_bytes_raw(), receiver, context])
