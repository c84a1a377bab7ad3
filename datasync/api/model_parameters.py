"""What is asked of the registry of models."""

from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import Connection

from datasync.api import registered
from datasync.api.models import Next, Page, Word
from datasync.api.routes import Answer, Parameters
from datasync.domain.errors import RequestError
from datasync.domain.limits import MODEL_VIEWS_MAX, NAME_CHARACTERS_MAX
from datasync.domain.tiers import Tier
from datasync.store import models
from datasync.store.models import After, State
from datasync.store.sightings import Reading

POSITION_DIGITS_MAX = 18
_NUMBERS = 2
_FORM = "COLLECTION:PURPOSE:AFTER:CURSOR"

ModelName = Annotated[
    str,
    Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_CHARACTERS_MAX - 1}}}$", description="What to call it."),
]
ModelIdText = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="A model's id.")]


class ModelRegistration(Parameters):
    """What a model is, and what it was trained on; at least a view or a parent."""

    name: ModelName
    views: Annotated[
        str,
        Field(
            max_length=8_000,
            description=f"The readings that it was trained on, each as {_FORM}, with commas between them: the `after` "
            "that a view was read with, and the cursor that its answer gave.",
        ),
    ] = ""
    parent: ModelIdText | None = None

    def readings(self, worker: str) -> tuple[Reading, ...]:
        """Return the readings as they are named. Raises RequestError."""
        named = self.views.split(",") if self.views else []
        if not named and self.parent is None:
            raise RequestError("what was it trained on?", fix=f"name views, each as {_FORM}, or its parent")
        if len(named) > MODEL_VIEWS_MAX:
            raise RequestError(f"at most {MODEL_VIEWS_MAX} readings may be named", fix="name longer ones")
        return tuple(_reading(worker, each) for each in named)


class ModelPath(Parameters):
    """Which model."""

    id: ModelIdText


class ModelPage(Page):
    """Which models, the newest first."""

    state: State | None = None
    label: Literal["public", "edge-private", "user-private"] | None = None
    worker: Word | None = None

    def read(self, tx: Connection) -> "Models":
        """Return the page."""
        label = None if self.label is None else Tier.parse(self.label)
        after = None if self.after is None else _after(self.after)
        wanted = models.Wanted(self.state, label, self.worker)
        found = models.page(tx, limit=self.limit + 1, after=after, wanted=wanted)
        rows, last = found[: self.limit], found[self.limit - 1 : self.limit]
        following = f"{last[0].created_ms}.{last[0].model}" if len(found) > self.limit else None
        return Models(models=registered.told(tx, rows), next=following)


class Models(Answer):
    """One page of models, the newest first."""

    models: list[registered.Model]
    next: Next


def _reading(worker: str, text: str) -> Reading:
    collection, _, rest = text.partition(":")
    purpose, *numbers = rest.split(":")
    whole = all(each.isdecimal() and len(each) <= POSITION_DIGITS_MAX for each in numbers)
    if not (collection and purpose and len(numbers) == _NUMBERS and whole) or int(numbers[0]) >= int(numbers[1]):
        raise RequestError(f"{text!r} names no reading of a view", fix=f"write {_FORM}")
    return Reading(worker, collection, purpose, int(numbers[0]), int(numbers[1]))


def _after(text: str) -> After:
    created_ms, _, model = text.partition(".")
    if not created_ms.isdecimal() or len(created_ms) > POSITION_DIGITS_MAX or not model:
        raise RequestError("the parameter 'after' is not the `next` of another page")
    return After(int(created_ms), model)
