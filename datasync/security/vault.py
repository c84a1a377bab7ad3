"""Data at rest: every stream under a key of its own, so that destroying a key erases a stream.

Data keys are wrapped (AES-256-GCM) under a key derived from the node's and kept on a *shelf*, a database apart from
the data. A body is sealed with its stream and first sequence number as associated data: it opens in its own place
only. What a device hands over is sealed in the very same format under a key derived from its session key, so the
node that is given that key *adopts* it and has readable data without rewriting a byte. Adopted keys only ever open:
what a node writes is under a key that it drew itself and that nobody else knows.

Nonces are drawn at random, 96 bits: safe for 2**32 bodies under one key (NIST SP 800-38D, section 8.3).
"""

import enum
import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datasync.domain.clock import Instant
from datasync.domain.errors import BodyDamaged, KeyUnavailable, Undecipherable
from datasync.domain.ids import StreamId
from datasync.domain.limits import KEYS_CACHED_MAX
from datasync.security import files
from datasync.security.recent import Recent
from datasync.security.wrapping import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Wrapping, data_key_label, expand


class KeyShelf(Protocol):
    """Where wrapped data keys are kept. Every call is durable when it returns."""

    def put(self, key_id: str, stream: StreamId, wrapped: bytes, created_ms: int) -> None:
        """Keep a wrapped key under an id that is not there yet."""

    def get(self, key_id: str) -> bytes | None:
        """Return a wrapped key, or None."""

    def of_stream(self, stream: StreamId) -> Sequence[tuple[str, bytes]]:
        """Return the ids and wrapped keys of a stream, oldest first."""

    def delete(self, streams: Iterable[StreamId]) -> None:
        """Destroy every key of these streams."""

    def compact(self) -> None:
        """Let no file hold the bytes of a destroyed key. Raises StoreError when one may still."""


def key_id(key: bytes) -> str:
    """Return the public name of a data key: 32 hexadecimal digits that say nothing about it."""
    return hashlib.sha256(b"datasync/key-id" + key).hexdigest()[:32]


def state_key(session_key: bytes, stream: StreamId) -> bytes:
    """Return the data key (32 bytes) of one stream in one handover, derived from the device's session key."""
    return expand(session_key, f"datasync/state-key/1/{stream}")


def seal_body(key: bytes, stream: StreamId, seq_first: int, plaintext: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """Return a segment's body as it is kept: nonce (12 bytes), ciphertext, tag."""
    return _seal(AESGCM(key), stream, seq_first, plaintext, entropy)


def open_body(key: bytes, stream: StreamId, seq_first: int, body: bytes) -> bytes:
    """Return what :func:`seal_body` sealed. Raises Undecipherable when key, place or any byte is wrong."""
    return _open(AESGCM(key), stream, seq_first, body)


def load_or_create_node_key(path: Path, entropy: Callable[[int], bytes]) -> bytes:
    """Return the node's key (32 bytes) from its file, drawing it on the first start.

    Raises ConfigError when the file is malformed, open to other users, or cannot be written.
    """
    if not path.exists():
        files.write_private(path, entropy(KEY_BYTES).hex().encode() + b"\n")
    return files.read_key(path)


class _Kind(enum.IntEnum):
    """Who knows a data key; the first byte of what is wrapped."""

    OWN = 1
    ADOPTED = 2


class Vault:
    """A node's data keys, and the sealing and opening of bodies with them. Usable from several threads.

    One lock is held while keys are looked up or destroyed: otherwise a reader could put a key back into the cache
    that was destroyed while it unwrapped it.
    """

    def __init__(self, node_key: bytes, shelf: KeyShelf, entropy: Callable[[int], bytes]) -> None:
        """Take the node's key (32 bytes), the shelf, and the source of randomness."""
        self._wrapping = Wrapping(node_key)
        self._shelf = shelf
        self._entropy = entropy
        self._lock = threading.Lock()
        self._current: Recent[StreamId, tuple[str, AESGCM]] = Recent(KEYS_CACHED_MAX)
        self._opening: Recent[tuple[StreamId, str], AESGCM] = Recent(KEYS_CACHED_MAX)

    def encrypt(self, stream: StreamId, seq_first: int, plaintext: bytes, now: Instant) -> tuple[str, bytes]:
        """Return the key's id and the sealed body; the stream's own key is drawn and kept durably on first use.

        Raises KeyUnavailable when the stream's key cannot be unwrapped.
        """
        with self._lock:
            current = self._current.get(stream) or self._find_own(stream) or self._draw(stream, now)
        return current[0], _seal(current[1], stream, seq_first, plaintext, self._entropy)

    def decrypt(self, stream: StreamId, key_id: str, seq_first: int, body: bytes) -> bytes:
        """Return a body's plaintext.

        Raises KeyUnavailable when the key was destroyed, is another stream's or was wrapped under another node's
        key, and BodyDamaged when the body does not open with it.
        """
        with self._lock:
            key = self._opening.get((stream, key_id)) or self._fetch(stream, key_id)
        try:
            return _open(key, stream, seq_first, body)
        except Undecipherable as error:
            raise BodyDamaged(f"the body at {seq_first} of the stream {stream} does not open with its key") from error

    def adopt(self, stream: StreamId, key: bytes, now: Instant) -> str:
        """Keep a key (32 bytes) that was handed over and return its id; adopting it again changes nothing."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes, not {len(key)}")
        name = key_id(key)
        with self._lock:
            if self._shelf.get(name) is None:
                self._keep(stream, name, key, _Kind.ADOPTED, now)
            self._remember(stream, name, AESGCM(key))
        return name

    def has(self, stream: StreamId, key_id: str) -> bool:
        """Whether the data key is here, so that what is under it can be read."""
        with self._lock:
            return self._opening.get((stream, key_id)) is not None or self._shelf.get(key_id) is not None

    def destroy(self, streams: Iterable[StreamId]) -> None:
        """Destroy every key of these streams, durably; their bodies are noise afterwards, copies included.

        Raises StoreError when the shelf cannot say that they are gone; this vault has forgotten them even then.
        """
        doomed = set(streams)
        with self._lock:
            for stream in doomed:
                self._current.forget(stream)
            for known in self._opening:
                if known[0] in doomed:
                    self._opening.forget(known)
            self._shelf.delete(doomed)

    def compact(self) -> None:
        """Let the shelf's files forget the keys that were destroyed. Raises StoreError when they cannot yet."""
        self._shelf.compact()

    def wrap(self, secret: bytes, label: str) -> bytes:
        """Return a small secret sealed under the node's key; ``label`` says what it is."""
        return self._wrapping.wrap(secret, label, self._entropy)

    def unwrap(self, wrapped: bytes, label: str) -> bytes:
        """Return the secret that :meth:`wrap` sealed. Raises KeyUnavailable for another label or node key."""
        return self._wrapping.unwrap(wrapped, label)

    def _find_own(self, stream: StreamId) -> tuple[str, AESGCM] | None:
        for name, wrapped in self._shelf.of_stream(stream):
            kind, key = self._unwrap_key(stream, name, wrapped)
            if kind is _Kind.OWN:
                return self._make_current(stream, name, key)
        return None

    def _draw(self, stream: StreamId, now: Instant) -> tuple[str, AESGCM]:
        key = self._entropy(KEY_BYTES)
        name = key_id(key)
        self._keep(stream, name, key, _Kind.OWN, now)
        return self._make_current(stream, name, AESGCM(key))

    def _fetch(self, stream: StreamId, name: str) -> AESGCM:
        wrapped = self._shelf.get(name)
        if wrapped is None:
            raise KeyUnavailable(f"the data key {name} of the stream {stream} is not here: destroyed, or never given")
        key = self._unwrap_key(stream, name, wrapped)[1]
        self._remember(stream, name, key)
        return key

    def _keep(self, stream: StreamId, name: str, key: bytes, kind: _Kind, now: Instant) -> None:
        wrapped = self.wrap(bytes([kind]) + key, data_key_label(stream, name))
        self._shelf.put(name, stream, wrapped, now.wall_ms)

    def _unwrap_key(self, stream: StreamId, name: str, wrapped: bytes) -> tuple[_Kind, AESGCM]:
        content = self.unwrap(wrapped, data_key_label(stream, name))
        return _Kind(content[0]), AESGCM(content[1:])

    def _make_current(self, stream: StreamId, name: str, key: AESGCM) -> tuple[str, AESGCM]:
        self._current.put(stream, (name, key))
        self._remember(stream, name, key)
        return name, key

    def _remember(self, stream: StreamId, name: str, key: AESGCM) -> None:
        self._opening.put((stream, name), key)


def _place(stream: StreamId, seq_first: int) -> bytes:
    return b"ds1" + stream.encode() + seq_first.to_bytes(8, "big")


def _seal(key: AESGCM, stream: StreamId, seq_first: int, plaintext: bytes, entropy: Callable[[int], bytes]) -> bytes:
    nonce = entropy(NONCE_BYTES)
    return nonce + key.encrypt(nonce, plaintext, _place(stream, seq_first))


def _open(key: AESGCM, stream: StreamId, seq_first: int, body: bytes) -> bytes:
    if len(body) < NONCE_BYTES + TAG_BYTES:
        raise Undecipherable("the body is too short to be sealed")
    try:
        return key.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], _place(stream, seq_first))
    except InvalidTag as error:
        raise Undecipherable("the body does not open with this key in this place") from error
