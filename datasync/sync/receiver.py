"""Receiving segments: checked against what the sender may send, stored once, shown when they are verified.

A segment is taken if its stream belongs to who sends it, its tier may be held here, and its sequence numbers are all
new. A device's own is stored at once, and a checkpoint that is verified later (:mod:`verifying`) says that it is its
stream's. Who passes on another's must bring the checkpoint along: nobody takes up numbers of a stream that is not his.
Numbers that are all known already make a segment a duplicate, which is acknowledged again and otherwise ignored: so a
sender may always send again what it has not heard of. What comes of a stream that was erased is left out, and the
others in the message are taken.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.errors import SignatureInvalid
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place
from datasync.protocol import checkpoint, segment
from datasync.protocol.checkpoint import Checkpoint
from datasync.protocol.segment import Segment
from datasync.security.vault import Vault
from datasync.store import checkpoints, erasures, segments, streams
from datasync.store.claims import claim, is_known
from datasync.store.segments import State
from datasync.store.streams import Stream
from datasync.sync import verifying
from datasync.sync.capture import seal


@dataclass(slots=True)
class Receipt:
    """What one message's segments came to: new rows, duplicates, the ranges to acknowledge, and the streams."""

    segments: int = 0
    rows: int = 0
    duplicates: int = 0
    durable: dict[StreamId, RangeSet] = field(default_factory=dict)
    streams: tuple[Stream, ...] = ()
    signed: dict[StreamId, RangeSet] = field(default_factory=dict)
    """The numbers of checkpoints that came and were verified here before."""

    erased: frozenset[StreamId] = frozenset()
    """Streams of which nothing is taken any more."""


def receive(
    tx: Connection,
    vault: Vault,
    place: Place,
    device: NodeName,
    blobs: Iterable[bytes],
    signatures: Iterable[bytes],
    now: Instant,
) -> Receipt:
    """Store what is new of a device's own segments and checkpoints, to be verified; all of them or, raising, none.

    Raises SegmentInvalid and its kinds.
    """
    known = {each.stream: each for each in streams.of_device(tx, device)}
    receipt, new = _take(tx, place, device, map(segment.parse, blobs), known, now)
    segments.append(tx, [seal(vault, each, State.LOCAL, now) for each in new])
    for each in new:
        checkpoints.verify_again(tx, known[each.header.stream], each.header.seq_first, each.header.seq_last)
    receipt.signed = checkpoints.arrive(tx, _of_what_is_here(signatures, known), known)
    return receipt


def receive_signed(
    tx: Connection, vault: Vault, place: Place, blobs: Iterable[bytes], signatures: Iterable[bytes], now: Instant
) -> Receipt:
    """Store what is new of segments that anybody passes on, of streams that he need not say whose they are.

    Raises SegmentInvalid and its kinds, and SignatureInvalid unless checkpoints in the same message sign all of it.
    """
    signed = verifying.signed_by(signatures)
    arrived = [segment.parse(blob) for blob in blobs]
    for each in arrived:
        if each.hash not in signed or signed[each.hash].stream != each.header.stream:
            raise SignatureInvalid(f"no checkpoint signs the segment at {each.header.seq_first} of its stream")
    receipt, new = _take(tx, place, None, arrived, {}, now)
    of = verifying.keep(tx, signed, [each.hash for each in new])
    segments.append(tx, [seal(vault, each, State.LOCAL, now, checkpoint=of[each.hash]) for each in new])
    return receipt


def _of_what_is_here(signatures: Iterable[bytes], known: Mapping[StreamId, Stream]) -> Iterator[Checkpoint]:
    """Leave out the checkpoints of nothing that came yet, of which there could be any number."""
    for each in map(checkpoint.parse, signatures):
        if each.stream in known and each.numbers & known[each.stream].have:
            yield each


def _take(
    tx: Connection,
    place: Place,
    device: NodeName | None,
    arrived: Iterable[Segment],
    known: dict[StreamId, Stream],
    now: Instant,
) -> tuple[Receipt, list[Segment]]:
    """Note the streams and numbers of what is new of the segments, nothing of erased streams; return what that is.

    ``known`` are the device's streams, and afterwards those of the segments, with what is here of them now.
    """
    arrived = list(arrived)
    gone = erasures.among(tx, {each.header.stream for each in arrived} - known.keys())
    arrived = [each for each in arrived if each.header.stream not in gone]
    opened = claim(tx, place, (_claimed(each, device) for each in arrived), known)
    receipt = Receipt(erased=frozenset(gone))
    new = []
    for each in arrived:
        header = each.header
        have = known[header.stream].have
        receipt.durable[header.stream] = receipt.durable.get(header.stream, RangeSet()).add(
            header.seq_first, header.seq_last
        )
        if is_known(have, header.seq_first, header.seq_last, header.stream):
            receipt.duplicates += 1
            continue
        known[header.stream] = replace(known[header.stream], have=have.add(header.seq_first, header.seq_last))
        new.append(each)
        receipt.segments += 1
        receipt.rows += header.rows
    for stream in opened:
        streams.add(tx, stream, now)
    streams.put_have(tx, {each.header.stream: known[each.header.stream].have for each in new})
    receipt.streams = tuple(known[stream] for stream in receipt.durable)
    return receipt, new


def _claimed(arrived: Segment, device: NodeName | None) -> Stream:
    header = arrived.header
    return Stream(header.stream, header.public_key, device, header.collection, header.tier)
