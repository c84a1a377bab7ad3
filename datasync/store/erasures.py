"""Erasures: which streams were erased here, and which places have confirmed that they erased them too.

An erasure is a *tombstone*: the stream's id, the statement that its key signed, and how much was deleted. It stays for
ever, as a segment of the stream may come back at any time, and is small for that reason. While it is not ``shredded``
the rows are gone, but the data keys may be there yet. Beside it is a line for every place that must erase the stream:
its signed receipt, or nothing while that is awaited.
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import cbor2
from sqlalchemy import Connection, Row, Select, and_, func, insert, select, update

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.store import statements, tables

_T, _R = tables.erasures, tables.erasure_receipts


@dataclass(frozen=True, slots=True)
class ModelsErased:
    """Of the models that have learned from a stream: how many are deleted, are to be retrained, are kept."""

    deleted: int = 0
    retrain: int = 0
    reported: int = 0


@dataclass(frozen=True, slots=True)
class Erased:
    """How much one place deleted of a stream; ``derived`` are the streams that stood for it there."""

    segments: int = 0
    rows: int = 0
    keys: int = 0
    derived: tuple[StreamId, ...] = ()
    models: ModelsErased = ModelsErased()


@dataclass(frozen=True, slots=True)
class Erasure:
    """A stream that was erased here, and what its key signed; ``collection`` is None where that is forgotten."""

    stream: StreamId
    stamp: HybridTime
    statement: bytes
    erased: Erased
    collection: str | None = None
    shredded: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a place signed, None while that is awaited."""

    stream: StreamId
    place: str
    signed: bytes | None


def add(tx: Connection, erasure: Erasure) -> None:
    """Keep a tombstone. Raises StoreError when the stream has one."""
    of = erasure.erased
    row = {
        "stream_id": erasure.stream,
        "stamp": erasure.stamp.pack(),
        "statement": erasure.statement,
        "collection": erasure.collection,
        "erased": cbor2.dumps([of.segments, of.rows, of.keys, list(of.derived), list(astuple(of.models))]),
        "shredded": erasure.shredded,
    }
    tx.execute(insert(_T), row)


def among(tx: Connection, streams: Iterable[StreamId]) -> set[StreamId]:
    """Return those of the streams that were erased."""
    wanted = list(streams)
    return set(tx.scalars(select(_T.c.stream_id).where(_T.c.stream_id.in_(wanted)))) if wanted else set()


def get(tx: Connection, streams: Iterable[StreamId]) -> dict[StreamId, Erasure]:
    """Return the erasures of those streams that were erased."""
    return {each.stream: each for each in _erasures(tx, select(_T).where(_T.c.stream_id.in_(list(streams))))}


def unshredded(tx: Connection, limit: int) -> list[Erasure]:
    """Return erasures whose keys may be there yet."""
    return _erasures(tx, select(_T).where(~_T.c.shredded).order_by(_T.c.stream_id).limit(limit))


def mark_shredded(tx: Connection, streams: Iterable[StreamId]) -> None:
    """Note that the keys are destroyed."""
    tx.execute(update(_T).where(_T.c.stream_id.in_(list(streams))).values(shredded=True))


def page(tx: Connection, *, after: StreamId | None, limit: int) -> list[Erasure]:
    """Return erasures by stream, those behind ``after``."""
    query = select(_T).order_by(_T.c.stream_id).limit(limit)
    return _erasures(tx, query if after is None else query.where(_T.c.stream_id > after))


def expect(tx: Connection, streams: Iterable[StreamId], places: Iterable[str]) -> None:
    """Await the receipts of these places for these streams; those that are awaited or here already stay."""
    wanted = list(places)
    rows = [
        {"stream_id": stream, "place": place, "signed": None, "pending": True} for stream in streams for place in wanted
    ]
    if rows:
        tx.execute(statements.insert(tx.dialect.name, _R).on_conflict_do_nothing(), rows)


def put_receipt(tx: Connection, receipt: Receipt) -> bool:
    """Keep a receipt, the first of its place for its stream; return whether it was new."""
    made = statements.insert(tx.dialect.name, _R).values(
        stream_id=receipt.stream, place=receipt.place, signed=receipt.signed, pending=False
    )
    changed = {name: made.excluded[name] for name in ("signed", "pending")}
    kept = made.on_conflict_do_update(index_elements=["stream_id", "place"], set_=changed, where=_R.c.pending)
    return tx.execute(kept.returning(_R.c.stream_id)).first() is not None


def receipts(tx: Connection, streams: Iterable[StreamId]) -> list[Receipt]:
    """Return the receipts of the streams, awaited ones too, by stream and place."""
    query = select(_R.c.stream_id, _R.c.place, _R.c.signed).where(_R.c.stream_id.in_(list(streams)))
    return [Receipt(*row) for row in tx.execute(query.order_by(_R.c.stream_id, _R.c.place))]


def awaited(tx: Connection) -> set[str]:
    """Return the places of which any receipt is awaited."""
    return set(tx.scalars(select(_R.c.place).where(_R.c.pending).distinct()))


def awaited_of(tx: Connection, place: str | None, *, after: StreamId | None, limit: int) -> list[Erasure]:
    """Return erasures of which a receipt is awaited, of this place or (None) of any, by stream behind ``after``."""
    waits = and_(_R.c.stream_id == _T.c.stream_id, _R.c.pending)
    if place is not None:
        waits = and_(waits, _R.c.place == place)
    query = select(_T).where(select(_R.c.place).where(waits).correlate(_T).exists())
    if after is not None:
        query = query.where(_T.c.stream_id > after)
    return _erasures(tx, query.order_by(_T.c.stream_id).limit(limit))


def count(tx: Connection) -> int:
    """Return how many receipts are awaited."""
    return tx.scalar(select(func.count()).select_from(_R).where(_R.c.pending)) or 0


def _erasures(tx: Connection, query: Select[Any]) -> list[Erasure]:
    return [_erasure(row) for row in tx.execute(query)]


def _erasure(row: Row[Any]) -> Erasure:
    segments, rows, keys, derived, *models = cbor2.loads(row.erased)  # older rows say nothing of models
    return Erasure(
        stream=row.stream_id,
        stamp=HybridTime.unpack(row.stamp),
        statement=row.statement,
        erased=Erased(segments, rows, keys, tuple(derived), *(ModelsErased(*each) for each in models)),
        collection=row.collection,
        shredded=row.shredded,
    )
