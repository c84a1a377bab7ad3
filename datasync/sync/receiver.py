"""Receiving segments: verified, checked against what the sender may send, stored once.

A segment is taken if its signature fits its stream, its stream belongs to who sends it, its tier may be held here,
and its sequence numbers are all new. Numbers that are all known already make it a duplicate, which is acknowledged
again and otherwise ignored: so a sender may always send again what it has not heard of. What comes of a stream that
was erased is left out, and the others in the message are taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place, Tier
from datasync.protocol import segment
from datasync.protocol.segment import Segment
from datasync.security.vault import Vault
from datasync.store import erasures, segments, streams
from datasync.store.claims import claim, is_known
from datasync.store.segments import State
from datasync.store.streams import Stream
from datasync.sync.capture import seal


@dataclass(slots=True)
class Receipt:
    """What one message's segments came to: new rows, duplicates, the ranges to acknowledge, and the streams."""

    segments: int = 0
    rows: int = 0
    duplicates: int = 0
    durable: dict[StreamId, RangeSet] = field(default_factory=dict)
    streams: tuple[Stream, ...] = ()
    erased: frozenset[StreamId] = frozenset()
    """Streams of which nothing is taken any more."""


def receive(
    tx: Connection, vault: Vault, place: Place, device: NodeName | None, blobs: Iterable[bytes], now: Instant
) -> Receipt:
    """Store what is new of the signed segments in one message; all of them or, raising, none; of erased streams, none.

    ``device`` is who sends them, None at the cloud, which is not told whose a stream is. Raises SegmentInvalid
    and its kinds, SignatureInvalid.
    """
    arrived = [segment.parse(blob) for blob in blobs]
    known = {} if device is None else {each.stream: each for each in streams.of_device(tx, device)}
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
    segments.append(tx, [seal(vault, each, arrival_state(place, each.header.tier), now) for each in new])
    streams.put_have(tx, {each.header.stream: known[each.header.stream].have for each in new})
    receipt.streams = tuple(known[stream] for stream in receipt.durable)
    return receipt


def arrival_state(place: Place, tier: Tier) -> State:
    """The state of a segment that arrived at a place: an edge owes public ones to the cloud."""
    return State.WAITING if place is Place.EDGE and tier is Tier.PUBLIC else State.LOCAL


def _claimed(arrived: Segment, device: NodeName | None) -> Stream:
    header = arrived.header
    return Stream(header.stream, header.public_key, device, header.collection, header.tier)
