"""Verifying: what the checkpoints that arrived say of the segments that arrived.

A message's segments are stored and acknowledged at once: its sender is known by the envelope. That they are their
stream's, a checkpoint says, and until that is verified nobody is shown them and they go nowhere. This is done
afterwards, a few checkpoints at a time, those of one batch's layers together.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
    """What came of it: the streams, by stream what its checkpoints are over, and by segment what signs it; what failed.

    The segments are as they were: :func:`datasync.store.segments.settle` notes what becomes of them.
    """

    streams: list[Stream] = field(default_factory=list)
    numbers: dict[StreamId, RangeSet] = field(default_factory=dict)
    segments: list[tuple[StoredSegment, int]] = field(default_factory=list)
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


def lot(pending: Iterable[StoredCheckpoint]) -> Iterator[StoredCheckpoint]:
    """Yield as many as are verified at one time, and those that follow with the same last number: of one batch."""
    last = None
    for taken, each in enumerate(pending):
        if taken >= VERIFIED_MAX and each.seq_last != last:
            return
        last = each.seq_last
        yield each


def verify(tx: Connection, pending: Sequence[StoredCheckpoint]) -> Verified:
    """Verify checkpoints that arrived, and find what they sign."""
    result = Verified()
    parsed, forged = {}, []
    for each in pending:
        try:
            parsed[each.id] = _verified(each)
        except MessageError as error:
            result.failures.append((each.stream, error))
            forged.append(each.id)
    if forged:
        checkpoints.delete_these(tx, forged)
    if not parsed:
        return result
    for made in parsed.values():
        result.numbers[made.stream] = result.numbers.get(made.stream, RangeSet()) | made.numbers
    _find(tx, parsed, result)
    checkpoints.settle(tx, parsed, Standing.KNOWN)
    known = streams.get(tx, result.numbers)
    streams.put_signed(tx, {name: each.signed | result.numbers[name] for name, each in known.items()})
    result.streams = list(known.values())
    return result


def _find(tx: Connection, parsed: Mapping[int, Checkpoint], result: Verified) -> None:
    """Find what is here and unsigned of the checkpoints' segments; note those that are others than they say."""
    signed = ((number, each.stream, entry) for number, each in parsed.items() for entry in each.entries)
    entries = {(stream, entry.seq_first): (number, entry) for number, stream, entry in signed}
    for segment in segments.unsigned_at(tx, entries):
        number, entry = entries[segment.stream, segment.seq_first]
        if (entry.seq_last, entry.hash) == (segment.seq_last, segment.hash):
            result.segments.append((segment, number))
        else:
            conflict = f"the segment at {segment.seq_first} is not the one that its stream signed"
            result.failures.append((segment.stream, SegmentConflict(conflict)))


def _verified(stored: StoredCheckpoint) -> Checkpoint:
    parsed = checkpoint.parse(stored.body)
    if parsed.stream != stored.stream:
        raise CheckpointInvalid(f"the checkpoint is not of stream {stored.stream}")
    checkpoint.verify(parsed)
    return parsed
