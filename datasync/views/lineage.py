"""A model's lineage: the streams that it was trained on, the label that they give it, and what erasures make of it.

A registration names readings of views: collection, purpose and positions. What is *proven* is what the node knows
itself. Before a row leaves for a worker who trains, its stream is noted as shown (:mod:`datasync.store.sightings`), so
every stream that the worker was shown in these positions is in the lineage, whatever it says, also one that is deleted
or erased since; the label is the highest tier of these streams, or the parent's if that is higher; and the record is
signed. What is *trusted* is the worker's word for which of its readings, and which parent, went into this model. One
that says less than it used is found out by nobody: what it was shown is in the decision log, what it did is not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from datasync.domain.errors import AccessDenied, RequestError, ViewUnread
from datasync.domain.ids import StreamId
from datasync.domain.limits import MODEL_POLICIES_MAX
from datasync.domain.tiers import Tier
from datasync.policy import fates
from datasync.policy.compiled import Policy, Worker
from datasync.policy.fates import Fate
from datasync.store import models, sightings
from datasync.store.models import State, StoredModel, View
from datasync.store.sightings import Reading, Sighting


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a model comes from; ``streams`` are those that it was itself trained on, its parent's are not repeated."""

    parent: StoredModel | None
    views: tuple[View, ...]
    streams: tuple[StreamId, ...]
    label: Tier
    purposes: tuple[str, ...]


def trace(tx: Connection, readings: Sequence[Reading], parent: StoredModel | None) -> Lineage:
    """Return the lineage of a model that is trained on what was shown. Raises ViewUnread for what was not."""
    views, streams = [], dict[StreamId, Tier]()
    for reading in readings:
        shown = sightings.within(tx, reading)
        if not shown:
            raise ViewUnread(
                f"worker {reading.worker} was shown nothing of {reading.collection} for {reading.purpose} "
                f"above {reading.after} up to {reading.until}",
                fix="name the `after` and the cursor of views that were read with rows",
            )
        views.append(_view(reading, shown))
        streams |= {each.stream: each.tier for each in shown}
    if sum(len(view.policies) for view in views) > MODEL_POLICIES_MAX:
        raise RequestError(f"the readings were under more than {MODEL_POLICIES_MAX} policies", fix="name shorter ones")
    above = [] if parent is None else [parent.label]
    purposes = {view.purpose for view in views} | set(() if parent is None else parent.purposes)
    label = max((*streams.values(), *above))
    return Lineage(parent, tuple(views), tuple(sorted(streams)), label, tuple(sorted(purposes)))


def require_reader(worker: Worker, model: StoredModel, operator: str | None) -> None:
    """Raise AccessDenied unless a model may go to a worker, as what it was trained on may; ``operator`` is whose it is.

    It may when the label is within the worker's clearance and place, and the worker works for each of the purposes.
    """
    if model.label > worker.ceiling:
        detail = f"the model is {model.label.label}, above what {worker.id} may see here: {worker.ceiling.label}"
        raise AccessDenied(detail, reason="NO_READ_UP")
    if lacking := sorted(set(model.purposes) - worker.purposes):
        detail = f"the model was trained for {', '.join(lacking)}, which {worker.id} does not work for"
        raise AccessDenied(detail, reason="NO_PURPOSE")
    if operator is not None and worker.operator != operator:
        detail = f"{worker.id} works for {worker.operator}, and the model is {operator}'s"
        raise AccessDenied(detail, reason="NO_OPERATOR")


def met(model: StoredModel) -> Fate | None:
    """Return what erasures made of a model so far."""
    if model.erased_ms is None:
        return None
    match model.state:
        case State.CURRENT:
            return Fate.REPORT
        case State.RETRAIN:
            return Fate.RETRAIN
        case State.DELETED:
            return Fate.DELETE


def fate(policy: Policy | None, label: Tier, above: Fate | None) -> Fate:
    """Return what becomes of a model of which something was erased; ``above`` is its parent's fate.

    It is never milder than the parent's: what the parent learned is in its descendants, so keeping one of them would
    keep what is to go. The policy's word for the label can only be stricter.
    """
    return max(fates.fate(policy, label), above or Fate.REPORT)


def judge(tx: Connection, policy: Policy | None, model: StoredModel) -> Fate | None:
    """Return what becomes of a model that comes when some of its streams are erased already; None when none is."""
    parent = None if model.parent is None else models.get(tx, model.parent)
    above = None if parent is None else met(parent)
    if above is None and not models.erased_streams(tx, [model.model]):
        return None
    return fate(policy, model.label, above)


def _view(reading: Reading, shown: Iterable[Sighting]) -> View:
    policies = tuple(sorted({each.policy_digest for each in shown}))
    return View(reading.collection, reading.purpose, reading.after, reading.until, policies)
