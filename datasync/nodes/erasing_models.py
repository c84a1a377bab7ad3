"""Models whose data is erased: what becomes of each, by the policy's ``erasure.models`` for its label.

It is asked of every model that was trained on the stream, or on what stood for it here, and of all that descend from
these: a descendant's fate is never milder than its parent's, for what the parent learned is in it. A model that is
deleted loses its artefact at once, and its key in the next transaction, with those of the stream and before the receipt
is signed; one that is to be retrained is marked; one that is reported is only noted. The receipt and the log say so.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from datasync.domain.ids import StreamId
from datasync.nodes.node import Turn
from datasync.policy.compiled import Policy
from datasync.policy.fates import Fate
from datasync.security.vault import Vault
from datasync.store import audit, models
from datasync.store.audit import Event
from datasync.store.erasures import ModelsErased
from datasync.store.models import ModelId, State, StoredModel
from datasync.views import lineage

SHRED_MODELS = 1_000
"""Models whose keys are destroyed at one time."""


@dataclass(frozen=True, slots=True)
class Concerned:
    """A model that has learned from what is erased, and what becomes of it."""

    model: StoredModel
    fate: Fate


def concerned(tx: Connection, policy: Policy | None, streams: Iterable[StreamId]) -> list[Concerned]:
    """Return the models that were trained on the streams or descend from such, each with its fate, by id."""
    found: dict[ModelId, Concerned] = {}
    asked: list[tuple[StoredModel, Fate | None]] = [(model, None) for model in models.trained_on(tx, streams)]
    while asked:
        stricter = []
        for model, above in asked:
            fate = lineage.fate(policy, model.label, above)
            known = found.get(model.model)
            if known is None or known.fate < fate:
                found[model.model] = Concerned(model, fate)
                stricter.append(model.model)
        children = models.children(tx, stricter)
        asked = [(child, found[child.parent].fate) for child in children if child.parent is not None]
    return sorted(found.values(), key=lambda each: each.model.model)


def obey(turn: Turn, policy: Policy | None, streams: Iterable[StreamId], erased: StreamId) -> ModelsErased:
    """Delete, mark and note what was trained on these streams, which go because of the erased one; say how many."""
    ends: Counter[State] = Counter()
    for each in concerned(turn.tx, policy, streams):
        end = _end(each)
        ends[end] += 1
        models.mark(turn.tx, [each.model.model], end, turn.now.wall_ms)
        if end is State.DELETED and each.model.state is not State.DELETED:
            models.delete(turn.tx, [each.model.model])
            turn.count("erased", "models")
        _log(turn, each, end, erased)
    return ModelsErased(ends[State.DELETED], ends[State.RETRAIN], ends[State.CURRENT])


def shred(tx: Connection, vault: Vault) -> None:
    """Destroy the keys of the models that were deleted in transactions before this one, durably."""
    while page := models.doomed(tx, SHRED_MODELS):
        vault.destroy(models.key_owner(model) for model in page)
        models.forget_keys(tx, page)


def _end(each: Concerned) -> State:
    """Return the state that a model has from now on: an erasure never makes one better."""
    match each.fate:
        case Fate.DELETE:
            return State.DELETED
        case Fate.RETRAIN if each.model.state is State.CURRENT:
            return State.RETRAIN
        case _:
            return each.model.state


def _log(turn: Turn, each: Concerned, end: State, erased: StreamId) -> None:
    if each.model.state is State.DELETED:
        return  # it was in the log when it was deleted
    event = Event.MODEL_DELETED if end is State.DELETED else Event.MODEL_TOUCHED
    detail = {"erased": erased, "state": str(end), "label": each.model.label.label}
    audit.append(turn.tx, event, audit.ERASURE, each.model.model, detail, turn.now.wall_ms)
