"""Checkpoints: a stream's signature over the hashes of segments that follow one another.

A signature for every segment is dear where segments are small, so a stream signs many at once: a checkpoint is a
COSE_Sign1 under the stream's Ed25519 key whose payload lists the sequence numbers and the SHA-256 of up to
``CHECKPOINT_SEGMENTS_MAX`` segments of its chain. The segments name each other's hashes, so a checkpoint vouches for
the chain up to it; the list lets each segment be checked by itself, long after those beside it are gone. It tells
nothing of what is in them: a segment's hash is over a salt. (A signed checkpoint of an append-only log is that of the
transparency logs, RFC 9162; here with the hashes themselves in the place of a tree over them.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from datasync.domain import limits
from datasync.domain.errors import CheckpointInvalid, MessageError
from datasync.domain.ids import StreamId, stream_id
from datasync.domain.ranges import RangeSet
from datasync.protocol import cbor, cose
from datasync.security import points

CONTEXT = b"datasync/checkpoint/1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment that is signed: its sequence numbers and its hash (64 hexadecimal digits)."""

    seq_first: int
    seq_last: int
    hash: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which segments of which stream are signed, and the whole COSE_Sign1."""

    public_key: bytes
    entries: tuple[Entry, ...]
    data: bytes

    @property
    def stream(self) -> StreamId:
        """The stream: the fingerprint of its key."""
        return stream_id(self.public_key)

    @property
    def numbers(self) -> RangeSet:
        """The sequence numbers of the segments that are signed."""
        return RangeSet.of((each.seq_first, each.seq_last) for each in self.entries)


def sign(entries: Sequence[Entry], key: Ed25519PrivateKey) -> Checkpoint:
    """Return the signature of the stream whose key this is over 1 to ``CHECKPOINT_SEGMENTS_MAX`` segments in order.

    Raises CheckpointInvalid for others.
    """
    _check(entries)
    public_key = key.public_key().public_bytes_raw()
    listed = [[each.seq_first, each.seq_last, bytes.fromhex(each.hash)] for each in entries]
    data = cose.sign(key, CONTEXT, cbor.dumps([_VERSION, public_key, listed]))
    return Checkpoint(public_key, tuple(entries), data)


def parse(data: bytes) -> Checkpoint:
    """Return what a checkpoint says, its signature unverified. Raises CheckpointInvalid."""
    _require(len(data) <= limits.CHECKPOINT_BYTES_MAX, f"it has more than {limits.CHECKPOINT_BYTES_MAX} bytes")
    try:
        content = cbor.loads(cose.parse_signed(data).payload)
    except MessageError as error:
        raise CheckpointInvalid(error.detail) from error
    _require(isinstance(content, list) and len(content) == 3, "it is no list of 3 items")
    version, public_key, listed = content
    _require(type(version) is int and version == _VERSION, f"version {version!r} is not known here")
    _require(isinstance(public_key, bytes) and len(public_key) == 32, "the stream's key has not 32 bytes")
    _require(isinstance(listed, list), "the segments are no list")
    entries = tuple(map(_entry, listed))
    _check(entries)
    return Checkpoint(public_key, entries, data)


def verify(checkpoint: Checkpoint) -> None:
    """Raise SignatureInvalid unless the stream signed it, CheckpointInvalid when anybody could have."""
    try:
        key = points.verify_key(checkpoint.public_key)
    except ValueError as error:
        raise CheckpointInvalid(str(error)) from error
    cose.parse_signed(checkpoint.data).verify(key, CONTEXT)


_VERSION = 1
_HASH_BYTES = 32


def _entry(item: Any) -> Entry:
    _require(isinstance(item, list) and len(item) == 3, "a segment is no list of 3 items")
    first, last, digest = item
    _require(type(first) is int and type(last) is int, "the sequence numbers are no whole numbers")
    _require(isinstance(digest, bytes) and len(digest) == _HASH_BYTES, f"a hash has not {_HASH_BYTES} bytes")
    return Entry(first, last, digest.hex())


def _check(entries: Sequence[Entry]) -> None:
    most = limits.CHECKPOINT_SEGMENTS_MAX
    _require(0 < len(entries) <= most, f"it signs {len(entries)} segments, not 1 to {most}")
    before = -1
    for each in entries:
        _require(before < each.seq_first <= each.seq_last <= limits.SEQUENCE_MAX, "the segments are out of order")
        before = each.seq_last


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CheckpointInvalid(f"a checkpoint is malformed: {otherwise}")
