"""What a worker sees of a collection, field by field, and why: text made from the very decisions that enforce it."""

from collections.abc import Iterator, Mapping, Sequence

from datasync.policy.answers import rules_for
from datasync.policy.compiled import Collection, Policy, Rule, Worker
from datasync.policy.decide import decide
from datasync.policy.predicate import Clause


def explain(
    policy: Policy, worker: Worker, collection: str, purpose: str, *, consent: Mapping[str, bool] | None = None
) -> str:
    """Return the explanation as lines of text. Raises NotFound for an unknown collection."""
    whole = decide(policy, worker, collection, None, purpose, consent=consent)
    schema = policy.collections[collection]
    lines = [
        f"policy {policy.document.id}, revision {policy.revision}, digest {policy.digest[:16]}",
        f"{worker.id}: {worker.kind} at {_where(worker)}, clearance {worker.clearance.label}",
        f"asks for {collection} for {purpose}: {whole.code}. {whole.detail}",
        "",
        *_fields(policy, worker, schema, purpose, consent),
        *_rows(policy, worker, schema),
    ]
    if purpose in policy.basis:
        lines += ["", f"consent: the basis of {purpose} is {policy.basis[purpose]}"]
    return "\n".join(lines)


def _fields(
    policy: Policy, worker: Worker, schema: Collection, purpose: str, consent: Mapping[str, bool] | None
) -> Iterator[str]:
    names = max(len(name) for name in schema.fields)
    for name in schema.fields:
        decision = decide(policy, worker, schema.name, name, purpose, consent=consent)
        yield f"  {name:<{names}}  {decision.code:<13}  {decision.detail}"


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
    clauses = [f"{column} {op} {value}" for column, op, value in where]
    return f"rows where {' and '.join(clauses)}" if clauses else "all rows"


def _where(worker: Worker) -> str:
    return f"the {worker.place} of {worker.operator}" if worker.operator else f"the {worker.place}"
