"""Wrapping: small secrets sealed (AES-256-GCM) under a key that is derived from the node's.

What is wrapped names nothing: whether it is under a node key is found by trying, and its *label* (what the secret is
and whose) is authenticated, so that one wrapped secret cannot be put in another's place. Every kind of label is here,
so that whoever wraps everything anew, under another node key, knows them all.

Nonces are drawn at random, 96 bits: safe for 2**32 secrets under one key (NIST SP 800-38D, section 8.3).
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from datasync.domain.errors import KeyUnavailable
from datasync.domain.ids import StreamId

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16

OWN_SESSION_LABEL = "session"
"""A device's own session keys."""


def session_label(device: str) -> str:
    """Return the label of the session keys that a device gave to an edge."""
    return f"session/{device}"


def data_key_label(stream: StreamId, key_id: str) -> str:
    """Return the label of a stream's data key."""
    return f"data-key/{stream}/{key_id}"


def expand(key: bytes, info: str) -> bytes:
    """Return 32 bytes derived from a key by HKDF-SHA256 (RFC 5869); ``info`` says what for."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info.encode()).derive(key)


class Wrapping:
    """One node key (32 bytes), as it wraps and unwraps."""

    def __init__(self, node_key: bytes) -> None:
        if len(node_key) != KEY_BYTES:
            raise ValueError(f"a node key has {KEY_BYTES} bytes, not {len(node_key)}")
        self._key = AESGCM(expand(node_key, "datasync/vault/1"))
        self.name = expand(node_key, "datasync/node-key-name/1").hex()[:32]
        """The key's public name: 32 hexadecimal digits that say nothing about it."""

    def wrap(self, secret: bytes, label: str, entropy: Callable[[int], bytes]) -> bytes:
        """Return a secret sealed under this key; ``label`` says what it is."""
        nonce = entropy(NONCE_BYTES)
        return nonce + self._key.encrypt(nonce, secret, label.encode())

    def unwrap(self, wrapped: bytes, label: str) -> bytes:
        """Return the secret that :meth:`wrap` sealed. Raises KeyUnavailable for another label or node key."""
        if len(wrapped) < NONCE_BYTES + TAG_BYTES:
            raise KeyUnavailable(f"the wrapped secret {label!r} is too short")
        try:
            return self._key.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], label.encode())
        except InvalidTag as error:
            raise KeyUnavailable(
                f"the secret {label!r} cannot be unwrapped", fix="start the node with the key that it was wrapped under"
            ) from error
