"""Claims: before a segment is stored, whether its stream may be here and its numbers are new.

A stream belongs to the device that first used it here, at one collection and tier, for good; who claims another's
stream, a tier above the place, or numbers that overlap stored ones is refused before anything is written.
"""

from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.clock import Instant
from datasync.domain.errors import SegmentConflict, SegmentInvalid, StreamForeign, TierForbidden
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place
from datasync.store import streams
from datasync.store.streams import Stream


def claim(tx: Connection, place: Place, stream: Stream, known: dict[StreamId, Stream], now: Instant) -> Stream:
    """Return the stream as known here, adding it when it is new.

    ``known`` are the streams of the same device, and is added to. Raises StreamForeign, TierForbidden, SegmentInvalid.
    """
    if stream.tier > place.highest_tier:
        raise TierForbidden(f"stream {stream.stream} is {stream.tier.label}: the {place} may not hold it")
    here = known.get(stream.stream) or streams.get(tx, [stream.stream]).get(stream.stream)
    if here is None:
        if stream.device is not None and len(known) >= limits.STREAMS_PER_DEVICE_MAX:
            raise SegmentInvalid(f"{stream.device} has {limits.STREAMS_PER_DEVICE_MAX} streams already")
        streams.add(tx, stream, now)
        here = stream
    elif here.device != stream.device:
        raise StreamForeign(f"stream {stream.stream} belongs to another device")
    elif (here.collection, here.tier) != (stream.collection, stream.tier):
        raise SegmentInvalid(f"stream {stream.stream} carries {here.collection} at {here.tier.label}")
    known[stream.stream] = here
    return here


def is_known(have: RangeSet, first: int, last: int, stream: StreamId) -> bool:
    """Whether a segment's numbers are here already. Raises SegmentConflict when only some of them are."""
    if have.covers(first, last):
        return True
    if have.touches(first, last):
        raise SegmentConflict(f"stream {stream}: {first}..{last} overlaps other segments' numbers")
    return False
