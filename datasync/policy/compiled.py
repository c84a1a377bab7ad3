"""A policy as programs use it: names looked up, chains fitted, nothing left to check.

A field has one *form* for each tier at which it may be seen: its raw form at its own tier and, for each chain in
``up:``, the transformed form at the tier where the chain ends. Layer T of a batch holds the forms at tier T; a reader
cleared for T sees of each field the form with the highest tier up to T.

Everything is immutable but :attr:`Policy.memo`, where plans and decisions are kept once they are worked out; it holds
nothing that cannot be worked out again, and at most one entry for each question that the policy has an answer to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from datasync.domain.errors import CollectionUnknown
from datasync.domain.tiers import Place, Tier
from datasync.policy.document import Basis, Document, Merge, Selector
from datasync.policy.predicate import Clause, Predicate, Scalar, Scope
from datasync.policy.problems import nearest
from datasync.policy.transforms import Step


@dataclass(frozen=True, slots=True)
class Form:
    """What a field looks like at a tier: the names of the transforms that made it (none: raw) and its type."""

    field: str
    tier: Tier
    chain: tuple[str, ...]
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a collection: its raw type and tier, and its fitted chains by the place they lead to.

    ``merge`` is how a document's changes become one value; a stream's rows do not merge.
    """

    name: str
    type: pa.DataType
    tier: Tier
    up: Mapping[Place, tuple[Step, ...]]
    merge: Merge


@dataclass(frozen=True, slots=True)
class Mobility:
    """What moves first in a handover (``hot_ms`` before now; None: all), and whether escrow is kept."""

    hot_ms: int | None
    escrow: bool


@dataclass(frozen=True, slots=True)
class Lift:
    """Rows that match go to ``to`` and are absent from the layers below."""

    to: Tier
    where: Predicate


@dataclass(frozen=True, slots=True)
class Collection:
    """A schema of the policy. ``meta`` has its constants with their tiers.

    A stream may have a timestamp field ``time``; a document has a field ``key`` that tells a subject's documents apart.
    """

    name: str
    kind: Literal["stream", "document"]
    subject: str
    time: str | None
    key: str | None
    meta: Mapping[str, Tier]
    fields: Mapping[str, Field]
    forms: Mapping[str, Mapping[Tier, Form]]
    lifts: tuple[Lift, ...]
    mobility: Mobility
    retain: Mapping[Place, int]
    input_schema: pa.Schema

    def layer_schema(self, tier: Tier) -> pa.Schema:
        """Return the columns of the layer at ``tier``, without those that lifted rows add."""
        return pa.schema([(form.field, form.type) for form in self.forms_at(tier)])

    def forms_at(self, tier: Tier) -> tuple[Form, ...]:
        """Return the forms whose tier is ``tier``, in the order of the fields."""
        return tuple(forms[tier] for forms in self.forms.values() if tier in forms)

    def seen(self, name: str, ceiling: Tier) -> Form | None:
        """Return the form of a field that a reader cleared up to ``ceiling`` sees: the highest one up to there."""
        tiers = [tier for tier in self.forms[name] if tier <= ceiling]
        return self.forms[name][max(tiers)] if tiers else None

    def tiers(self) -> tuple[Tier, ...]:
        """Return the tiers that have a layer, low to high: those of any form, and those that rows are lifted to."""
        with_forms = {tier for forms in self.forms.values() for tier in forms}
        return tuple(sorted(with_forms | {lift.to for lift in self.lifts if lift.to > min(with_forms)}))


@dataclass(frozen=True, slots=True)
class Worker:
    """An AI program that reads: where it runs, for whom, why, and up to which tier. A device's needs no operator."""

    id: str
    place: Place
    operator: str
    kind: str
    clearance: Tier
    purposes: frozenset[str]
    attributes: Mapping[str, Scalar]

    @property
    def ceiling(self) -> Tier:
        """The highest tier that the worker may see where it runs."""
        return min(self.place.highest_tier, self.clearance)

    @property
    def scope(self) -> Mapping[str, Scalar]:
        """What ``$worker.x`` can name: the worker's attributes, and what it is."""
        return {
            **self.attributes,
            "id": self.id,
            "place": self.place.value,
            "operator": self.operator,
            "kind": self.kind,
        }


def reader_scope(collection: Collection, worker: Worker) -> Scope:
    """Return what conditions on a worker's rows can name: columns and constants as the worker sees them."""
    seen = {name: collection.seen(name, worker.ceiling) for name in collection.fields}
    return Scope(
        columns={name: form.type for name, form in seen.items() if form is not None},
        meta=frozenset(name for name, tier in collection.meta.items() if tier <= worker.ceiling),
        attributes=worker.scope,
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """An allow or a deny. ``fields`` None means all of them; ``where`` is bound to each worker's columns when read."""

    id: str
    allows: bool
    selector: Selector
    collection: str
    fields: frozenset[str] | None
    where: Sequence[Clause]

    def selects(self, worker: Worker) -> bool:
        """Whether the rule is for this worker: it fits every key that the selector gives."""
        return not self.unmet(worker)

    def unmet(self, worker: Worker) -> dict[str, str]:
        """Return the keys of the selector that the worker does not fit, with what it would have to be."""
        chosen = self.selector
        pairs = (
            ("worker", chosen.worker, worker.id),
            ("place", chosen.place, worker.place),
            ("kind", chosen.kind, worker.kind),
            ("operator", chosen.operator, worker.operator),
        )
        return {key: want for key, want, have in pairs if want is not None and want != have}

    def covers(self, name: str) -> bool:
        """Whether the rule speaks of this field."""
        return self.fields is None or name in self.fields


@dataclass(frozen=True, slots=True)
class Verdict:
    """What of a collection moves between edges: all of it, or only some forms, and on which terms.

    ``rule`` is the id of the rule that says so; None: none does. ``fields`` None means all. The target may use what it
    gets for ``purposes`` only (None: for all), for ``retain_ms`` at most (None: for ever), and gives it on only if
    ``onward``. ``requires`` are consents of the subject without which nothing moves.
    """

    rule: str | None
    action: Literal["move", "copy", "pseudonymise", "drop"]
    max_tier: Tier
    fields: frozenset[str] | None
    purposes: frozenset[str] | None
    requires: frozenset[str]
    retain_ms: int | None
    onward: bool


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A whole policy, checked and compiled. ``digest`` is 64 hex digits of SHA-256 over the canonical document.

    ``basis`` is by purpose, and for ``roaming``, which is consent to crossing to another operator. ``verdicts`` are
    those that rules give; :func:`datasync.policy.verdicts.verdict` knows the others.
    """

    document: Document
    source: bytes = field(repr=False)
    digest: str
    revision: int
    operators: frozenset[str]
    purposes: frozenset[str]
    collections: Mapping[str, Collection]
    workers: Mapping[str, Worker]
    rules: tuple[Rule, ...]
    basis: Mapping[str, Basis]
    verdicts: Mapping[tuple[str, str, str], Verdict]
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    def collection(self, name: str) -> Collection:
        """Return a collection. Raises CollectionUnknown."""
        try:
            return self.collections[name]
        except KeyError:
            raise CollectionUnknown(
                f"the policy {self.document.id} has no collection {name}", fix=nearest(name, self.collections)
            ) from None
