"""Verifying: what the checkpoints that arrived say of the segments that arrived.

A message's segments are stored and acknowledged at once: its sender is known by the envelope. That they are their
stream's, a checkpoint says, and until that is verified nobody is shown them and they go nowhere. This is done
afterwards, a few checkpoints at a time, those of one batch's layers together.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from sqlalchemy import Connection

from datasync.domain.errors import CheckpointInvalid, DatasyncError, MessageError, SegmentConflict
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.protocol import checkpoint
from datasync.protocol.checkpoint import Checkpoint
from datasync.store import checkpoints, segments, streams
from datasync.store.checkpoints import Standing, StoredCheckpoint
from datasync.store.segments import StoredSegment
from datasync.store.streams import Stream

VERIFIED_MAX = 16
"""Checkpoints that are verified at one time, unless the layers of one batch have more: 2 ms."""


@dataclass(slots=True)
class Verified:
    """What came of it: the streams, by stream what its checkpoints are over, the segments signed now; what failed."""

    streams: list[Stream] = field(default_factory=list)
    numbers: dict[StreamId, RangeSet] = field(default_factory=dict)
    segments: list[StoredSegment] = field(default_factory=list)
    failures: list[tuple[StreamId, DatasyncError]] = field(default_factory=list)


def signed_by(blobs: Iterable[bytes]) -> dict[str, Checkpoint]:
    """Return by hash the segments that checkpoints sign. Raises CheckpointInvalid, SignatureInvalid."""
    signed = {}
    for blob in blobs:
        parsed = checkpoint.parse(blob)
        checkpoint.verify(parsed)
        signed.update({each.hash: parsed for each in parsed.entries})
    return signed


def keep(tx: Connection, signed: Mapping[str, Checkpoint], hashes: Iterable[str]) -> dict[str, int]:
    """Store the verified checkpoints of these segments; return their ids by the segments' hashes."""
    of = {each: signed[each] for each in hashes}
    return dict(zip(of, checkpoints.add(tx, list(of.values()), Standing.KNOWN), strict=True))


def verify(tx: Connection, up_to: int) -> Verified:
    """Verify the oldest checkpoints that arrived, those with ids up to ``up_to``, and note what they sign."""
    found = checkpoints.in_standing(tx, Standing.PENDING, limit=2 * VERIFIED_MAX)
    return verify_these(tx, list(_lot(takewhile(lambda each: each.id <= up_to, found))))


def verify_these(tx: Connection, pending: Sequence[StoredCheckpoint]) -> Verified:
    """Verify checkpoints and note what they sign."""
    result = Verified()
    known = streams.get(tx, {each.stream for each in pending})
    signed: dict[int, int] = {}
    forged = []
    for each in pending:
        try:
            parsed = _verified(each)
        except MessageError as error:
            result.failures.append((each.stream, error))
            forged.append(each.id)
            continue
        result.numbers[each.stream] = result.numbers.get(each.stream, RangeSet()) | parsed.numbers
        for segment in _unsigned(tx, parsed, result):
            signed[segment.id] = each.id
            result.segments.append(segment)
    segments.sign(tx, signed)
    checkpoints.settle(tx, [each.id for each in pending], Standing.KNOWN)
    checkpoints.delete_these(tx, forged)
    streams.put_signed(tx, {stream: known[stream].signed | numbers for stream, numbers in result.numbers.items()})
    result.streams = [known[stream] for stream in result.numbers]
    return result


def _unsigned(tx: Connection, parsed: Checkpoint, result: Verified) -> Iterator[StoredSegment]:
    """Yield what is here of a checkpoint's segments, and was not signed; note those that are others than it says."""
    entries = {each.seq_first: each for each in parsed.entries}
    for segment in segments.unsigned(tx, parsed.stream, parsed.numbers):
        entry = entries.get(segment.seq_first)
        if entry is not None and (entry.seq_last, entry.hash) == (segment.seq_last, segment.hash):
            yield segment
        elif entry is not None:
            conflict = f"the segment at {segment.seq_first} is not the one that its stream signed"
            result.failures.append((parsed.stream, SegmentConflict(conflict)))


def _verified(stored: StoredCheckpoint) -> Checkpoint:
    parsed = checkpoint.parse(stored.body)
    if parsed.stream != stored.stream:
        raise CheckpointInvalid(f"the checkpoint is not of stream {stored.stream}")
    checkpoint.verify(parsed)
    return parsed


def _lot(pending: Iterable[StoredCheckpoint]) -> Iterator[StoredCheckpoint]:
    """Yield so many, and those that follow with the same last number: layers of one batch."""
    last = None
    for taken, each in enumerate(pending):
        if taken >= VERIFIED_MAX and each.seq_last != last:
            return
        last = each.seq_last
        yield each
