"""The envelope of every message: who says it, in which context, and for whose eyes.

Brokers are not trusted. Every message is a COSE_Sign1 that carries its signer's certificate, so a receiver needs
nothing but the operators' authorities. ``context`` says what the message is for (the same bytes sent elsewhere do
not verify). Where the content is not for brokers to read it is a COSE_Encrypt0 inside, under a content key that
travels with it, sealed to the receiver and bound to the sender's name: another node cannot pass it off as its own.
Every refusal is a MessageError.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datasync.domain.clock import Instant
from datasync.domain.errors import MessageError, MessageTooLarge
from datasync.domain.ids import NodeName
from datasync.domain.limits import PEERS_CACHED_MAX
from datasync.protocol import cose
from datasync.security import sealing
from datasync.security.identity import Identity
from datasync.security.recent import Recent
from datasync.security.trust import Peer, Trust

MESSAGES_PER_KEY_MAX = 1 << 20
"""After so many messages a sealer draws a new content key."""

_HEADERS = frozenset({cose.HEADER_X5CHAIN})


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

    Raises MessageTooLarge, MessageError (malformed), SignerUntrusted or SignatureInvalid.
    """
    if len(data) > bytes_max:
        raise MessageTooLarge(f"the message has {len(data)} bytes, more than {bytes_max}")
    signed = cose.parse_signed(data, _HEADERS)
    certificate = signed.headers[cose.HEADER_X5CHAIN]
    if not isinstance(certificate, bytes):
        raise MessageError("the certificate is no byte string")
    peer = trust.verify(certificate, now)
    signed.verify(peer.verify_key, context.encode())
    return Envelope(peer, signed.payload)


@dataclass(slots=True)
class _ContentKey:
    key: AESGCM
    sealed: bytes
    prefix: bytes
    used: int = 0

    def next_iv(self) -> bytes:
        self.used += 1
        return self.prefix + self.used.to_bytes(8, "big")


class Sealer:
    """Seals one node's messages to their receivers.

    There is one content key for each receiver and process, so the cost of HPKE is paid once; IVs count up from a
    drawn prefix and never repeat under a key. Keys are in memory alone and bounded in number: a forgotten one is
    simply drawn anew.
    """

    def __init__(self, identity: Identity, entropy: Callable[[int], bytes]) -> None:
        self._info = _key_info(identity.name)
        self._entropy = entropy
        self._keys: Recent[bytes, _ContentKey] = Recent(PEERS_CACHED_MAX)

    def seal(self, peer: Peer, context: str, plaintext: bytes) -> bytes:
        """Return a COSE_Encrypt0 that only ``peer`` opens, only for ``context``, and only as this node's."""
        content = self._content_key(peer)
        return cose.seal(content.key, content.next_iv(), content.sealed, context.encode(), plaintext)

    def _content_key(self, peer: Peer) -> _ContentKey:
        content = self._keys.get(peer.certificate)
        if content is None or content.used >= MESSAGES_PER_KEY_MAX:
            key = self._entropy(sealing.KEY_BYTES)
            sealed = sealing.encapsulate(peer.sealing_key, self._info, key)
            content = _ContentKey(AESGCM(key), sealed, self._entropy(4))
            self._keys.put(peer.certificate, content)
        return content


class Opener:
    """Opens what was sealed to one node, remembering a bounded number of content keys."""

    def __init__(self, identity: Identity) -> None:
        self._sealing_key = identity.sealing_key
        self._keys: Recent[tuple[NodeName, bytes], AESGCM] = Recent(PEERS_CACHED_MAX)

    def open(self, data: bytes, context: str, sender: Peer) -> bytes:
        """Return the plaintext that ``sender`` sealed to this node for ``context``.

        Raises MessageError when malformed, Undecipherable when it is another's, for another context, or changed.
        """
        sealed = cose.parse_sealed(data)
        known = (sender.name, sealed.sealed_key)
        key = self._keys.get(known)
        if key is None:
            key = AESGCM(sealing.decapsulate(self._sealing_key, _key_info(sender.name), sealed.sealed_key))
            self._keys.put(known, key)
        return sealed.open(key, context.encode())


def _key_info(sender: NodeName) -> bytes:
    return f"datasync/content-key/1/{sender}".encode()
