"""Conditions at the target: derived streams are taken on their terms, give way to originals, and are erased in time.

A derived stream and the original that it stands for have the same numbers, and so have two that stand for the same
one. What is here of one of them is not taken of another, so that no row shows twice; only an original, which the
device itself may bring at any time, takes the place of what was made of it. The numbers of what was not taken or was
erased stay claimed: it is acknowledged, and not taken when it comes again.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.errors import SegmentInvalid
from datasync.domain.ids import NodeName, StreamId, stream_id
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place, Tier
from datasync.protocol.parts import DerivedStream
from datasync.security.vault import Vault
from datasync.store import checkpoints, erasures, segments, streams, terms
from datasync.store.claims import claim
from datasync.store.streams import Stream
from datasync.store.terms import Terms


def take(tx: Connection, device: NodeName, told: Iterable[DerivedStream], now: Instant) -> set[StreamId]:
    """Note derived streams of the device with their terms; those noted before keep the terms that they have.

    Return those that were not noted, as what they stand for was erased. Raises StreamForeign, TierForbidden,
    SegmentInvalid; then none was noted.
    """
    known = {each.stream: each for each in streams.of_device(tx, device)}
    held_on = terms.of_device(tx, device)
    named = {stream_id(each.public_key): each for each in told}
    gone = erasures.among(tx, {each.stands_for for each in named.values()} - known.keys())
    refused = {stream for stream, each in named.items() if each.stands_for in gone}
    named = {stream: each for stream, each in named.items() if stream not in refused}
    for stream, each in named.items():
        _check(stream, each, known, held_on)
    new = claim(tx, Place.EDGE, (_claimed(stream, each, device) for stream, each in named.items()), known)
    for opened in new:
        streams.add(tx, opened, now)
        terms.add(tx, _terms(opened.stream, named[opened.stream]))
    return refused


def rivals(held_on: Mapping[StreamId, Terms]) -> dict[StreamId, set[StreamId]]:
    """Return by derived stream those others that have the same rows: its original, and what else stands for that."""
    same: dict[StreamId, set[StreamId]] = {}
    for stream, on in held_on.items():
        same.setdefault(on.stands_for, {on.stands_for}).add(stream)
    return {stream: same[on.stands_for] - {stream} for stream, on in held_on.items()}


def give_way(tx: Connection, originals: Mapping[StreamId, RangeSet]) -> int:
    """Erase what stands for these numbers of original streams, which are here now; return how many segments."""
    gone = 0
    for stream, on in terms.standing_for(tx, originals).items():
        doomed = [each.id for each in segments.of_stream(tx, stream, originals[on.stands_for])]
        gone += segments.delete_these(tx, doomed)
    return gone


def expire(tx: Connection, vault: Vault, now: Instant) -> int:
    """Erase the segments whose time is over, and the keys of streams that have no others; return how many."""
    over = terms.expired(tx, now.wall_ms)
    gone = segments.delete_these(tx, [number for _, number in over])
    for stream in dict(over):
        checkpoints.delete_idle(tx, stream)
    vault.destroy(stream for stream in dict(over) if not segments.of_stream(tx, stream))
    return gone


def _check(
    stream: StreamId, told: DerivedStream, known: Mapping[StreamId, Stream], held_on: Mapping[StreamId, Terms]
) -> None:
    if stream in known and stream not in held_on:
        raise SegmentInvalid(f"stream {stream} is an original one: it stands for no other")
    if told.stands_for == stream or told.stands_for in held_on:
        raise SegmentInvalid(f"stream {stream} stands for {told.stands_for}, which is no original stream")
    original = known.get(told.stands_for)
    if original is not None and (original.collection, int(original.tier)) != (told.collection, told.tier):
        raise SegmentInvalid(f"stream {stream} stands for one that carries {original.collection}")


def _claimed(stream: StreamId, told: DerivedStream, device: NodeName) -> Stream:
    return Stream(stream, told.public_key, device, told.collection, Tier(told.tier))


def _terms(stream: StreamId, told: DerivedStream) -> Terms:
    return Terms(
        stream=stream,
        stands_for=told.stands_for,
        purposes=None if told.purposes is None else frozenset(told.purposes),
        retain_ms=told.retain_ms,
        onward=told.onward,
        operator=told.operator,
        rule=told.rule,
        revision=told.revision,
    )
