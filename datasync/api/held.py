"""What a node holds of a subject and what of it was erased, as its API and the command line tell it."""

import base64
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field
from sqlalchemy import Connection, func, select

from datasync.api import registered
from datasync.api.routes import Answer
from datasync.domain.clock import Instant
from datasync.domain.errors import NotFound
from datasync.domain.ids import NodeName, StreamId, is_hex_id
from datasync.domain.tiers import Place
from datasync.protocol import cose
from datasync.protocol.parts import EraseReceipt, decode_part
from datasync.security.vault import Vault
from datasync.store import attachments, consents, erasures, streams, tables, terms
from datasync.store.erasures import Erasure
from datasync.store.streams import Stream
from datasync.views.export import Export, Kind

ERASED_LISTED_MAX = 10_000
"""Erased streams that one answer lists."""


class HeldStream(Answer):
    """What this node holds of one stream."""

    stream: str
    collection: str
    tier: str
    generation: int
    stands_for: Annotated[str | None, Field(description="The original stream, for one that another operator gave.")]
    segments: int
    rows: int
    bytes: int


class PlaceReceipt(Answer):
    """What a place deleted, and what became of models, as it signed it; `signed` is the whole COSE_Sign1 in base64."""

    place: str
    segments: int
    rows: int
    keys: int
    models_deleted: Annotated[int, Field(description="Models that had learned from the stream, and are deleted,")]
    models_retrain: Annotated[int, Field(description="that are kept until another takes their place,")]
    models_reported: Annotated[int, Field(description="that are kept.")]
    erased_ms: int
    signed: str


class ErasedStream(Answer):
    """A stream that was erased here: who confirmed it, and from whom that is awaited."""

    stream: str
    collection: Annotated[str | None, Field(description="Null but on the subject's own device.")]
    stamp_ms: int
    keys_destroyed: bool
    receipts: list[PlaceReceipt]
    awaited: list[str]


class Attached(Answer):
    """Which edge serves the device, as this node knows it."""

    state: str
    edge: str | None
    since_ms: int


class Where(Answer):
    """What a node holds of a subject, and what of it was erased."""

    id: str
    node: str
    place: str
    attachment: Attached | None
    streams: list[HeldStream]
    models: Annotated[list[registered.Model], Field(description="Models here that have learned from any of these.")]
    erased: list[ErasedStream]
    awaited: Annotated[list[str], Field(description="The places whose receipts are awaited.")]


def where(tx: Connection, name: NodeName, place: Place, subject: str) -> Where:
    """Return what a node holds of a subject, by its device's name or a stream's id. Raises NotFound."""
    known = _streams(tx, subject)
    erased = _erased(tx, subject, is_own=place is Place.DEVICE and subject == name)
    attached = None if is_hex_id(subject) else attachments.get(tx, subject)
    if not known and not erased and attached is None:
        raise NotFound(f"{name} knows nothing of {subject!r}")
    return Where(
        id=subject,
        node=name,
        place=place,
        attachment=None if attached is None else Attached.model_validate(attached),
        streams=_held(tx, known),
        models=_models(tx, known, erased),
        erased=erased,
        awaited=sorted({place for each in erased for place in each.awaited}),
    )


def export(tx: Connection, vault: Vault, name: NodeName, subject: str, kind: Kind, now: Instant) -> Export:
    """Return the export of what a device holds of its subject, or of one of its streams. Raises NotFound."""
    known = _streams(tx, subject)
    erased = _erased(tx, subject, is_own=subject == name)
    if not known and not erased and subject != name:
        raise NotFound(f"{name} knows nothing of {subject!r}")
    said = consents.of_streams(tx, [each.stream for each in known])
    about = {
        "device": name,
        "consents": [
            {"stream": each.stream, "purpose": each.purpose, "given": each.given, "stamp_ms": each.stamp.wall_ms}
            for each in said
        ],
        "models": [each.model_dump() for each in _models(tx, known, erased)],
        "erased": [each.model_dump() for each in erased],
    }
    return Export(vault, known, kind, about, now)


def _streams(tx: Connection, subject: str) -> list[Stream]:
    if not is_hex_id(subject):
        return streams.of_device(tx, subject)
    stream = StreamId(subject)
    return list(streams.get(tx, {stream, *terms.standing_for(tx, [stream])}).values())


def _models(tx: Connection, known: Iterable[Stream], erased: Iterable[ErasedStream]) -> list[registered.Model]:
    gone = erasures.get(tx, [StreamId(each.stream) for each in erased]).values()
    derived = {stream for each in gone for stream in (each.stream, *each.erased.derived)}
    return registered.trained_on(tx, {*(each.stream for each in known), *derived})


def _held(tx: Connection, known: Iterable[Stream]) -> list[HeldStream]:
    by_id, table = {each.stream: each for each in known}, tables.segments
    sums = (func.count(), func.sum(table.c.rows), func.sum(table.c.bytes))
    query = select(table.c.stream_id, *sums).where(table.c.stream_id.in_(by_id)).group_by(table.c.stream_id)
    sizes = {row[0]: [int(number) for number in row[1:]] for row in tx.execute(query)}
    of_terms = tables.terms
    originals = select(of_terms.c.stream_id, of_terms.c.stands_for).where(of_terms.c.stream_id.in_(by_id))
    stands_for: dict[str, str] = {row[0]: row[1] for row in tx.execute(originals)}
    held = []
    for stream, each in by_id.items():
        count, rows, size = sizes.get(stream, [0, 0, 0])
        held.append(
            HeldStream(
                stream=stream,
                collection=each.collection,
                tier=each.tier.label,
                generation=each.generation,
                stands_for=stands_for.get(stream),
                segments=count,
                rows=rows,
                bytes=size,
            )
        )
    return held


def _erased(tx: Connection, subject: str, *, is_own: bool) -> list[ErasedStream]:
    """Return what was erased of a subject; only its own device knows which streams were a device's."""
    if is_own:
        found = erasures.page(tx, after=None, limit=ERASED_LISTED_MAX)
    else:
        found = list(erasures.get(tx, [StreamId(subject)]).values()) if is_hex_id(subject) else []
    receipts: dict[StreamId, list[erasures.Receipt]] = {}
    for each in erasures.receipts(tx, [each.stream for each in found]):
        receipts.setdefault(each.stream, []).append(each)
    return [_told(each, receipts.get(each.stream, [])) for each in found]


def _told(erasure: Erasure, receipts: Iterable[erasures.Receipt]) -> ErasedStream:
    return ErasedStream(
        stream=erasure.stream,
        collection=erasure.collection,
        stamp_ms=erasure.stamp.wall_ms,
        keys_destroyed=erasure.shredded,
        receipts=[_receipt(each.signed) for each in receipts if each.signed is not None],
        awaited=[each.place for each in receipts if each.signed is None],
    )


def _receipt(signed: bytes) -> PlaceReceipt:
    """Return what a receipt says; that its place signed it was verified when it came."""
    said = decode_part(EraseReceipt, cose.parse_signed(signed, frozenset({cose.HEADER_X5CHAIN})).payload)
    return PlaceReceipt(
        place=said.place,
        segments=said.segments,
        rows=said.rows,
        keys=said.keys,
        models_deleted=said.models_deleted,
        models_retrain=said.models_retrain,
        models_reported=said.models_reported,
        erased_ms=said.erased_ms,
        signed=base64.b64encode(signed).decode(),
    )
