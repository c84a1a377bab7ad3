"""Claims: before a segment is stored, whether its stream may be here and its numbers are new.

A stream belongs to the device that first used it here, at one collection and tier, for good; who claims another's
stream, a tier above the place, or numbers that overlap stored ones is refused. Nothing is written here: who claims
several things learns that all of them may be, and adds the streams that are new afterwards.
"""

from collections.abc import Iterable

from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.errors import SegmentConflict, SegmentInvalid, StreamForeign, TierForbidden
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place
from datasync.store import streams
from datasync.store.streams import Stream


def claim(tx: Connection, place: Place, claimed: Iterable[Stream], known: dict[StreamId, Stream]) -> list[Stream]:
    """Return those of the streams that are new here, to be added to the store.

    ``known`` are the streams of the same device; all that are claimed are in it afterwards, as known here. Raises
    StreamForeign, TierForbidden, SegmentInvalid.
    """
    claimed = list(claimed)
    elsewhere = streams.get(tx, {each.stream for each in claimed} - known.keys())
    new = []
    for each in claimed:
        if each.tier > place.highest_tier:
            raise TierForbidden(f"stream {each.stream} is {each.tier.label}: the {place} may not hold it")
        here = known.get(each.stream) or elsewhere.get(each.stream)
        if here is None:
            if each.device is not None and len(known) >= limits.STREAMS_PER_DEVICE_MAX:
                raise SegmentInvalid(f"{each.device} has {limits.STREAMS_PER_DEVICE_MAX} streams already")
            here = each
            new.append(each)
        _check_same(here, each)
        known[each.stream] = here
    return new


def is_known(have: RangeSet, first: int, last: int, stream: StreamId) -> bool:
    """Whether a segment's numbers are here already.

    Raises SegmentConflict when only some of them are, and SegmentInvalid when they would leave more gaps than a
    range set may have.
    """
    if have.covers(first, last):
        return True
    if have.touches(first, last):
        raise SegmentConflict(f"stream {stream}: {first}..{last} overlaps other segments' numbers")
    if len(have.ranges) >= limits.RANGES_MAX and not have.touches(max(0, first - 1), last + 1):
        raise SegmentInvalid(f"stream {stream} has {limits.RANGES_MAX} gaps already", fix="send what is missing first")
    return False


def _check_same(here: Stream, claimed: Stream) -> None:
    if here.device != claimed.device:
        raise StreamForeign(f"stream {here.stream} belongs to another device")
    if (here.collection, here.tier) != (claimed.collection, claimed.tier):
        raise SegmentInvalid(f"stream {here.stream} carries {here.collection} at {here.tier.label}")
