"""Models: what workers trained here, on which streams, and what became of each.

A model's artefact is kept in parts, each encrypted under a data key that is the model's alone, so that destroying the
key deletes the model. ``key_id`` is there as long as that key is, and after a deletion says that it is yet to be
destroyed. The row of a deleted model stays, and so do the streams that it was trained on: what descends from it is
still to be judged.
"""

import enum
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NewType

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, or_, select, update
from sqlalchemy import delete as sql_delete

from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.store import tables

ModelId = NewType("ModelId", str)
"""32 hexadecimal digits, drawn at random."""

_T, _PARTS, _STREAMS = tables.models, tables.model_parts, tables.model_streams


def key_owner(model: ModelId) -> StreamId:
    """Return the name under which the vault keeps a model's key: its id, in the place of a stream's."""
    return StreamId(model)


class State(enum.StrEnum):
    """What a model is good for."""

    CURRENT = "current"
    RETRAIN = "retrain"
    """It was trained on what was erased since, and another is to take its place."""
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class View:
    """A view that a model was trained on: positions above ``after`` up to ``until``, shown under these policies."""

    collection: str
    purpose: str
    after: int
    until: int
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model's row. ``erased_ms`` is when something that it was trained on was last erased, None: never."""

    model: ModelId
    name: str
    worker: str
    label: Tier
    purposes: tuple[str, ...]
    parent: ModelId | None
    views: tuple[View, ...]
    policy_digest: str
    digest: str
    size_bytes: int
    key_id: str | None
    state: State = State.CURRENT
    erased_ms: int | None = None
    created_ms: int
    lineage: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which models a list is of; None for all."""

    state: State | None = None
    label: Tier | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class After:
    """Where a list goes on: behind this model."""

    created_ms: int
    model: str


_ALL = Wanted()


def add(tx: Connection, model: StoredModel, parts: Sequence[bytes], streams: Iterable[StreamId]) -> None:
    """Store a model with its encrypted parts and the streams that it was trained on."""
    row = {
        **{name: getattr(model, name) for name in ("name", "worker", "parent", "policy_digest", "digest", "key_id")},
        **{name: getattr(model, name) for name in ("erased_ms", "created_ms", "lineage")},
        "model_id": model.model,
        "bytes": model.size_bytes,
        "label": int(model.label),
        "purposes": json.dumps(model.purposes),
        "views": json.dumps([asdict(view) for view in model.views]),
        "state": str(model.state),
    }
    tx.execute(insert(_T), row)
    if parts:
        tx.execute(
            insert(_PARTS), [{"model_id": model.model, "part": at, "body": part} for at, part in enumerate(parts)]
        )
    if rows := [{"model_id": model.model, "stream_id": stream} for stream in streams]:
        tx.execute(insert(_STREAMS), rows)


def get(tx: Connection, model: str) -> StoredModel | None:
    """Return the model with this id."""
    return next(iter(_models(tx, select(_T).where(_T.c.model_id == model))), None)


def part(tx: Connection, model: ModelId, number: int) -> bytes | None:
    """Return an encrypted part of the artefact; None when there is no such part, or none any more."""
    return tx.scalar(select(_PARTS.c.body).where(_PARTS.c.model_id == model, _PARTS.c.part == number))


def page(tx: Connection, *, limit: int, after: After | None = None, wanted: Wanted = _ALL) -> list[StoredModel]:
    """Return models, the newest first, those behind ``after``."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.state is not None:
        conditions.append(_T.c.state == str(wanted.state))
    if wanted.label is not None:
        conditions.append(_T.c.label == int(wanted.label))
    if wanted.worker is not None:
        conditions.append(_T.c.worker == wanted.worker)
    if after is not None:
        same = and_(_T.c.created_ms == after.created_ms, _T.c.model_id < after.model)
        conditions.append(or_(_T.c.created_ms < after.created_ms, same))
    order = (_T.c.created_ms.desc(), _T.c.model_id.desc())
    return _models(tx, select(_T).where(*conditions).order_by(*order).limit(limit))


def count(tx: Connection, worker: str) -> int:
    """Return how many models of a worker are kept here."""
    kept = (_T.c.worker == worker, _T.c.state != str(State.DELETED))
    return tx.scalar(select(func.count()).select_from(_T).where(*kept)) or 0


def trained_on(tx: Connection, streams: Iterable[StreamId]) -> list[StoredModel]:
    """Return the models that were themselves trained on any of the streams, deleted ones too, by id."""
    shown = select(_STREAMS.c.model_id).where(_STREAMS.c.stream_id.in_(list(streams)))
    return _models(tx, select(_T).where(_T.c.model_id.in_(shown)).order_by(_T.c.model_id))


def children(tx: Connection, models: Iterable[ModelId]) -> list[StoredModel]:
    """Return the models whose parents these are, deleted ones too, by id."""
    return _models(tx, select(_T).where(_T.c.parent.in_(list(models))).order_by(_T.c.model_id))


def streams_of(tx: Connection, model: ModelId) -> list[StreamId]:
    """Return the streams that a model was itself trained on."""
    query = select(_STREAMS.c.stream_id).where(_STREAMS.c.model_id == model).order_by(_STREAMS.c.stream_id)
    return [StreamId(stream) for stream in tx.scalars(query)]


def erased_streams(tx: Connection, models: Iterable[ModelId]) -> dict[ModelId, int]:
    """Return how many of the streams that these models were themselves trained on are erased, of those with any."""
    gone = tables.erasures
    query = (
        select(_STREAMS.c.model_id, func.count())
        .join_from(_STREAMS, gone, gone.c.stream_id == _STREAMS.c.stream_id)
        .where(_STREAMS.c.model_id.in_(list(models)))
        .group_by(_STREAMS.c.model_id)
    )
    return {ModelId(model): int(streams) for model, streams in tx.execute(query)}


def mark(tx: Connection, models: Iterable[ModelId], state: State | None, erased_ms: int) -> None:
    """Note an erasure that concerns these models; they get this state, None leaves it as it is."""
    values: dict[str, Any] = {"erased_ms": erased_ms} | ({} if state is None else {"state": str(state)})
    tx.execute(update(_T).where(_T.c.model_id.in_(list(models))).values(values))


def delete(tx: Connection, models: Iterable[ModelId]) -> None:
    """Delete the artefacts; their keys are to be destroyed, and the rows say so until :func:`forget_keys`."""
    gone = list(models)
    tx.execute(sql_delete(_PARTS).where(_PARTS.c.model_id.in_(gone)))
    tx.execute(update(_T).where(_T.c.model_id.in_(gone)).values(state=str(State.DELETED)))


def doomed(tx: Connection, limit: int) -> list[ModelId]:
    """Return models that an erasure deleted and whose keys may be there yet."""
    query = select(_T.c.model_id).where(
        _T.c.state == str(State.DELETED), _T.c.key_id.is_not(None), _T.c.erased_ms.is_not(None)
    )
    return [ModelId(model) for model in tx.scalars(query.limit(limit))]


def forget_keys(tx: Connection, models: Iterable[ModelId]) -> None:
    """Note that the keys of these models are destroyed."""
    tx.execute(update(_T).where(_T.c.model_id.in_(list(models))).values(key_id=None))


def _models(tx: Connection, query: Select[Any]) -> list[StoredModel]:
    return [_model(row) for row in tx.execute(query)]


def _model(row: Row[Any]) -> StoredModel:
    values = dict(row._mapping)
    read = {
        "model": values.pop("model_id"),
        "size_bytes": values.pop("bytes"),
        "label": Tier(row.label),
        "purposes": tuple(json.loads(row.purposes)),
        "views": tuple(View(**view | {"policies": tuple(view["policies"])}) for view in json.loads(row.views)),
        "state": State(row.state),
    }
    return StoredModel(**values | read)
