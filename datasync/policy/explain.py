"""What a worker sees of a collection, field by field, and why: made from the very decisions that enforce it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasync.domain.clock import Instant
from datasync.policy.answers import Decision, Nearest, rules_for
from datasync.policy.compiled import Collection, Policy, Rule, Worker
from datasync.policy.decide import Judgement, RuleOutcome, decide, nearest_rule, view_rules
from datasync.policy.predicate import Clause, clause_text
from datasync.policy.seen_rows import seen_row

Consent = Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision; ``nearest`` is the rule that almost allows it, when none does."""

    decision: Decision
    nearest: Nearest | None

    @property
    def text(self) -> str:
        """All of it in words."""
        more = f" {self.nearest.detail}" if self.nearest else ""
        return f"{self.decision.detail}{more}"


def explained(
    policy: Policy,
    worker: Worker,
    collection: str,
    field: str | None,
    purpose: str,
    *,
    consent: Consent | None = None,
    operator: str | None = None,
) -> Explanation:
    """Return the decision of :func:`~datasync.policy.decide.decide` with what would change it. Raises NotFound."""
    decision = decide(policy, worker, collection, field, purpose, consent=consent, operator=operator)
    if decision.code not in ("NO_RULE", "NO_RULE_FIELD"):
        return Explanation(decision, None)
    return Explanation(decision, nearest_rule(policy, worker, collection, field, purpose, operator=operator))


def judge_row(
    policy: Policy,
    worker: Worker,
    collection: str,
    purpose: str,
    row: Mapping[str, Any],
    now: Instant,
    *,
    operator: str | None = None,
) -> Judgement:
    """Return what the view's rules say of one row, given as the worker would see it.

    Raises NotFound, AccessDenied when the worker may read nothing, and RecordError for a row of another shape.
    """
    rules = view_rules(policy, worker, collection, purpose, operator=operator)
    batch, constants = seen_row(policy.collections[collection], worker, row, now)
    return rules.judge(batch, constants, now)


def row_lines(judgement: Judgement) -> Iterator[str]:
    """Yield what became of one row, and what each rule has to do with it."""
    yield f"the row is visible: {', '.join(judgement.columns)}" if judgement.rows else "the row is not visible"
    for outcome in judgement.rules:
        yield f"  {outcome_text(outcome)}"


def outcome_text(outcome: RuleOutcome) -> str:
    """Return whether a rule matches a row, and if not, on account of which condition."""
    effect = "allows" if outcome.allows else "denies"
    matches = "matches" if outcome.failed is None else f"does not match: {outcome.failed} does not hold"
    return f"{outcome.rule}, which {effect}, {matches}"


def explain(policy: Policy, worker: Worker, collection: str, purpose: str, *, consent: Consent | None = None) -> str:
    """Return the explanation as lines of text. Raises NotFound for an unknown collection."""
    whole = explained(policy, worker, collection, None, purpose, consent=consent)
    schema = policy.collections[collection]
    lines = [
        f"policy {policy.document.id}, revision {policy.revision}, digest {policy.digest[:16]}",
        f"{worker.id}: {worker.kind} at {_where(worker)}, clearance {worker.clearance.label}",
        f"asks for {collection} for {purpose}: {whole.decision.code}. {whole.text}",
        "",
        *_fields(policy, worker, schema, purpose, consent),
        *_rows(policy, worker, schema),
    ]
    if purpose in policy.basis:
        lines += ["", f"consent: the basis of {purpose} is {policy.basis[purpose]}"]
    return "\n".join(lines)


def _fields(policy: Policy, worker: Worker, schema: Collection, purpose: str, consent: Consent | None) -> Iterator[str]:
    names = max(len(name) for name in schema.fields)
    for name in schema.fields:
        found = explained(policy, worker, schema.name, name, purpose, consent=consent)
        yield f"  {name:<{names}}  {found.decision.code:<13}  {found.text}"


def _rows(policy: Policy, worker: Worker, schema: Collection) -> Iterator[str]:
    """Yield which rows the rules give and hold back, and which are lifted out of the worker's sight."""
    rules = rules_for(policy, worker, schema.name)
    lifts = policy.document.collections[schema.name].raised
    if rules or lifts:
        yield ""
    for rule in rules:
        yield f"  {rule.id} {'allows' if rule.allows else 'denies'} {_covered(rule)} of {_conditions(rule.where)}"
    for spec, lift in zip(lifts, schema.lifts, strict=True):
        if lift.to > worker.ceiling:
            yield f"  {_conditions(spec.where)} are {lift.to.label}, so {worker.id} never sees them"


def _covered(rule: Rule) -> str:
    return "all fields" if rule.fields is None else ", ".join(sorted(rule.fields))


def _conditions(where: Sequence[Clause]) -> str:
    return f"rows where {' and '.join(map(clause_text, where))}" if where else "all rows"


def _where(worker: Worker) -> str:
    return f"the {worker.place} of {worker.operator}" if worker.operator else f"the {worker.place}"
