"""The plan of a view: which columns come from which layers, compiled once for (policy, worker, collection, purpose).

The policy's rules say which form of each field the worker sees and which layers those are in. The highest of them is
the *base*: it has every row that the worker may see, and the lower layers are joined to it.

Segments captured under another revision of the policy are judged again, column by column: one counts only if that
revision made it at the same tier, of the same type, from the same type, by the same chain with the same parameters,
and to merge in the same way.
Otherwise, and for every column when that revision is not known here, the cell is null: a view shows nothing that the
policy in force would not have made. Which rows were raised is not judged again: it was decided when they were written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, select

from datasync.domain.clock import Instant
from datasync.domain.errors import PolicyError
from datasync.domain.tiers import Tier
from datasync.policy import documents
from datasync.policy.compiled import Collection, Form, Policy, Worker
from datasync.policy.decide import ViewRules, view_rules
from datasync.policy.loading import load
from datasync.policy.transforms import Step
from datasync.store import tables
from datasync.views import consent, terms
from datasync.views.layers import Sources
from datasync.views.pruning import Pruning, pruning

CONSENT, TERMS, TIME = "consent", "terms", "time"
"""What is asked of a segment's metadata: whether the subject allows it, whether the operator does who gave it, and
whether it is late enough."""


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """A compiled view.

    ``tiers`` are the layers to join, the base first; ``fields`` the columns to join, with those that only rules look
    at; ``schema`` the columns of every result. ``judged`` keeps which columns of other revisions count, by digest.
    """

    policy: Policy
    rules: ViewRules
    tiers: tuple[Tier, ...]
    fields: pa.Schema
    pruning: Pruning
    judged: dict[str, Sources] = field(default_factory=dict, compare=False, repr=False)

    @property
    def collection(self) -> str:
        """What is read."""
        return self.rules.collection

    @property
    def base(self) -> Tier:
        """The layer that has every row that may be seen."""
        return self.tiers[0]

    @property
    def reads_documents(self) -> bool:
        """Whether rows are changes of documents, which are merged before rules see them."""
        return documents.COLUMN in self.fields.names

    @property
    def schema(self) -> pa.Schema:
        """The columns of every result."""
        return self.rules.schema

    def questions(self, now: Instant) -> Mapping[str, Sequence[ColumnElement[bool]]]:
        """Return by name what holds for the metadata (``tables.segments``) of every segment that may be shown."""
        return {
            CONSENT: (consent.condition(self.rules.consent, self.rules.purpose),),
            TERMS: (terms.condition(self.rules.purpose, now),),
            TIME: self.pruning.conditions(now),
        }

    def conditions(self, now: Instant) -> list[ColumnElement[bool]]:
        """Return all of them, whatever their names."""
        return [condition for conditions in self.questions(now).values() for condition in conditions]

    def sources(self, tx: Connection, digest: str) -> Sources:
        """Return which layers' columns count in segments that the policy with this digest split; none of an unknown."""
        if digest not in self.judged:
            older = _schema_of(tx, digest, self.collection)
            if older is None:
                return {}
            self.judged[digest] = _sources(self, older)
        return self.judged[digest]


def plan(policy: Policy, worker: Worker, collection: str, purpose: str, *, operator: str | None = None) -> ViewPlan:
    """Return the compiled view; ``operator`` is whose node is read from, None leaves that open.

    Raises NotFound for an unknown collection and AccessDenied when the worker may read nothing of it.
    """
    rules = view_rules(policy, worker, collection, purpose, operator=operator)
    key = ("plan", worker.id, collection, purpose, operator)
    found: ViewPlan | None = policy.memo.get(key)
    if found is None or found.rules is not rules:
        found = _plan(policy, rules)
        if policy.workers.get(worker.id) is worker:
            policy.memo[key] = found
    return found


def _plan(policy: Policy, rules: ViewRules) -> ViewPlan:
    schema = policy.collections[rules.collection]
    tiers = sorted({*rules.tiers, *_constants(policy, rules, schema)}, reverse=True)
    identity = [] if schema.key is None else [documents.FIELD]
    fields = pa.schema([*((form.field, form.type) for form in (*rules.columns, *rules.needed)), *identity])
    made = ViewPlan(policy, rules, tuple(tiers), fields, pruning(policy, rules, tiers[0]))
    made.judged[policy.digest] = _sources(made, schema)
    return made


def _constants(policy: Policy, rules: ViewRules, schema: Collection) -> set[Tier]:
    """Return the layers whose segments carry the constants that conditions look at."""
    clauses = [clause for rule in policy.rules if rule.id in rules.rules for clause in rule.where]
    named = {schema.meta[name] for name, *_ in clauses if name in schema.meta and name not in schema.fields}
    return {tier for tier in named if max(rules.tiers) < tier <= rules.worker.ceiling} & set(schema.tiers())


def _sources(plan: ViewPlan, older: Collection) -> Sources:
    current = plan.policy.collections[plan.collection]
    forms = (*plan.rules.columns, *plan.rules.needed)
    low_to_high = sorted(plan.tiers)
    if _identity(older) != _identity(current):
        return {}
    sources = {form.field: tuple(t for t in low_to_high if _is_made_alike(form, t, current, older)) for form in forms}
    return sources | ({documents.COLUMN: (plan.base,)} if plan.reads_documents else {})


def _identity(schema: Collection) -> tuple[str, str] | None:
    """Return what tells documents apart; None for the rows of a stream."""
    return None if schema.key is None else (schema.subject, schema.key)


def _is_made_alike(form: Form, layer: Tier, current: Collection, older: Collection) -> bool:
    """Whether what ``older`` put into this layer under the field's name is the form that the worker sees now."""
    before, now = older.fields.get(form.field), current.fields[form.field]
    if before is None or (before.type, before.merge) != (now.type, now.merge) or older.seen(form.field, layer) != form:
        return False
    return _steps(older, form) == _steps(current, form)


def _steps(schema: Collection, form: Form) -> Sequence[tuple[str, object]]:
    chains: list[tuple[Step, ...]] = [(), *schema.fields[form.field].up.values()]
    chain = next(steps for steps in chains if tuple(step.name for step in steps) == form.chain)
    return [(step.name, step.spec) for step in chain]


def _schema_of(tx: Connection, digest: str, collection: str) -> Collection | None:
    """Return the collection as the stored policy with this digest has it."""
    source = tx.scalar(select(tables.policies.c.source).where(tables.policies.c.digest == digest))
    if source is None:
        return None
    try:
        policy = load(source)
    except PolicyError:
        return None  # written for a version that read the format differently
    return policy.collections.get(collection) if policy.digest == digest else None
