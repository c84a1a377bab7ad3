"""Registered models, as the API and the command line tell of them."""

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field
from sqlalchemy import Connection

from datasync.api.routes import Answer
from datasync.domain.ids import StreamId
from datasync.store import models
from datasync.store.models import ModelId, State, StoredModel


class ModelView(Answer):
    """A view that a model was trained on, and under which policies its rows were shown."""

    collection: str
    purpose: str
    after: Annotated[int, Field(description="The positions above this one,")]
    until: Annotated[int, Field(description="up to this one.")]
    policies: list[str]


class Model(Answer):
    """A model that a worker registered here."""

    model: str
    name: str
    worker: str
    state: State
    label: Annotated[str, Field(description="The highest tier of what it was trained on, its parent's included.")]
    purposes: list[str]
    parent: str | None
    views: list[ModelView]
    policy_digest: Annotated[str, Field(description="The policy in force when it was registered.")]
    digest: Annotated[str, Field(description="SHA-256 of the artefact.")]
    bytes: int
    key_destroyed: bool
    created_ms: int
    erased_ms: Annotated[int | None, Field(description="When something that it was trained on was last erased.")]
    streams_erased: Annotated[int, Field(description="How many of the streams that it was itself trained on.")]


def told(tx: Connection, found: Iterable[StoredModel]) -> list[Model]:
    """Return what is said of models."""
    listed = list(found)
    gone = models.erased_streams(tx, [each.model for each in listed])
    return [_model(each, gone) for each in listed]


def trained_on(tx: Connection, streams: Iterable[StreamId]) -> list[Model]:
    """Return the models that have learned from any of these streams, themselves or by a parent, the newest first."""
    found: dict[ModelId, StoredModel] = {}
    asked = models.trained_on(tx, streams)
    while asked:
        new = [each for each in asked if each.model not in found]
        found |= {each.model: each for each in new}
        asked = models.children(tx, [each.model for each in new])
    return told(tx, sorted(found.values(), key=lambda each: (-each.created_ms, each.model)))


def _model(each: StoredModel, gone: Mapping[ModelId, int]) -> Model:
    return Model(
        model=each.model,
        name=each.name,
        worker=each.worker,
        state=each.state,
        label=each.label.label,
        purposes=list(each.purposes),
        parent=each.parent,
        views=[ModelView(**{name: getattr(view, name) for name in ModelView.model_fields}) for view in each.views],
        policy_digest=each.policy_digest,
        digest=each.digest,
        bytes=each.size_bytes,
        key_destroyed=each.key_id is None,
        created_ms=each.created_ms,
        erased_ms=each.erased_ms,
        streams_erased=gone.get(each.model, 0),
    )
