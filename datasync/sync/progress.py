"""How far a device's segments are: waiting to be sent, durable at the edge, safe.

Edge-private segments are safe at the edge, public ones when the cloud has them too. What an edge says that it has
counts only as far as the device has captured: the device alone knows its numbers.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.store import checkpoints, segments, streams
from datasync.store.checkpoints import Standing, StoredCheckpoint
from datasync.store.segments import State
from datasync.store.streams import Stream

NOTHING = RangeSet()


def acknowledge(
    tx: Connection,
    durable: Mapping[StreamId, RangeSet],
    safe: Mapping[StreamId, RangeSet],
    signed: Mapping[StreamId, RangeSet],
) -> list[StoredCheckpoint]:
    """Note what the edge has durably, what is safe, and what it has verified; return the checkpoints that it has."""
    for stream, here in streams.get(tx, durable.keys() | safe.keys()).items():
        _advance(tx, here, durable.get(stream, NOTHING), safe.get(stream, NOTHING) - here.safe)
    return checkpoints.acknowledge(tx, signed) if signed else []


def resume(tx: Connection, here: Stream, has: RangeSet, safe: RangeSet, signed: RangeSet) -> None:
    """Let wait what an edge lacks that serves the device from now on; ``has``, ``safe``, ``signed`` are all of it."""
    lacking = here.have - here.safe - safe - has
    segments.mark(tx, here.stream, lacking, State.WAITING, from_states=[State.DURABLE])
    _advance(tx, here, has - here.safe, safe - here.safe)
    checkpoints.acknowledge(tx, {here.stream: signed})
    checkpoints.again(tx, here.stream, (here.signed & has) - signed, Standing.OWED)


def _advance(tx: Connection, here: Stream, durable: RangeSet, safe: RangeSet) -> None:
    if here.tier is not Tier.PUBLIC:
        durable, safe = NOTHING, durable | safe
    segments.mark(tx, here.stream, safe, State.SAFE, from_states=[State.WAITING, State.DURABLE])
    segments.mark(tx, here.stream, durable, State.DURABLE, from_states=[State.WAITING])
    known = here.safe | (safe & here.have)
    if known != here.safe:
        streams.put_safe(tx, {here.stream: known})
