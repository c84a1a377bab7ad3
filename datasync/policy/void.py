"""Allows that can never allow: each is a problem, for its author meant it to do something.

An allow is void when, for every worker of the policy that it selects, each of its fields is kept back (by a deny, the
tiers, or a chain that is not there), no row can satisfy its conditions, or a deny holds for every row that does. An
allow that selects no worker is void too: who reviews it cannot see whom it is for.

Only what is certain counts: an allow that is not told here may still allow nothing, and none that is told allows
anything. What fields may be read is asked of :func:`decide`. That ``raise`` lifts every row of an allow is not
certainty: rows that came under an older revision were not lifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from datasync.policy import problems as codes
from datasync.policy.compiled import Collection, Policy, Rule, Worker, reader_scope
from datasync.policy.decide import decide
from datasync.policy.predicate import Clause, Test, bind_all
from datasync.policy.tree import Path, Report
from datasync.policy.witnesses import Columns, Seen, conflict, implies

_CHARACTERS_MAX = 60


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Why a rule gives a worker nothing, where in the rule that stands, and what would be right."""

    at: Path
    message: str
    fix: str


def check(policy: Policy, report: Report) -> None:
    """Add a problem for each allow that can never allow."""
    for index, rule in enumerate(policy.rules):
        if rule.allows and (flaw := _flaw(policy, rule)) is not None:
            message = f"{rule.id} can never allow anything: {flaw.message}"
            report.add(codes.RULE_VOID, ("rules", index, *flaw.at), message, flaw.fix)


def _flaw(policy: Policy, rule: Rule) -> _Flaw | None:
    """Return what keeps a rule from allowing anything; None as soon as it allows one worker something."""
    found: _Flaw | None = None
    for worker in policy.workers.values():
        if rule.selects(worker):
            flaw = _flaw_for(policy, rule, worker)
            if flaw is None:
                return None
            found = found or flaw
    return found or _Flaw(("to",), "it selects no worker of the policy", "add the worker, or remove the rule")


def _flaw_for(policy: Policy, rule: Rule, worker: Worker) -> _Flaw | None:
    schema, purpose = policy.collections[rule.collection], min(worker.purposes)
    decisions = {
        name: decide(policy, worker, schema.name, name, purpose) for name in schema.fields if rule.covers(name)
    }
    readable = [name for name, decision in decisions.items() if decision.allowed]
    if not readable:
        told = next(iter(decisions.values())).detail.rstrip(".")
        return _Flaw(("fields",), told, "select other fields or other workers, or remove the rule")
    tests, columns = _bound(rule, schema, worker), _columns(policy, schema, worker)
    if places := conflict(tests, columns):
        return _contradiction([rule.where[place] for place in places], places[-1], schema, worker)
    shadows = [
        deny
        for deny in policy.rules
        if _holds_back(deny, schema, worker) and implies(tests, _bound(deny, schema, worker), columns)
    ]
    if all(any(deny.covers(name) for deny in shadows) for name in readable):
        names = ", ".join(deny.id for deny in shadows)
        return _Flaw((), f"{names} denies {worker.id} every row of it", "narrow the deny, or remove the rule")
    return None


def _holds_back(deny: Rule, schema: Collection, worker: Worker) -> bool:
    """Whether this is a deny of rows; one of whole fields is in the decisions already."""
    return not deny.allows and bool(deny.where) and deny.collection == schema.name and deny.selects(worker)


def _contradiction(clauses: Sequence[Clause], place: int, schema: Collection, worker: Worker) -> _Flaw:
    name, form = clauses[0][0], schema.seen(clauses[0][0], worker.ceiling) if clauses[0][0] in schema.fields else None
    seen = f"{worker.id} sees {name} as {' then '.join(form.chain)}; " if form is not None and form.chain else ""
    message = f"no row that {worker.id} sees has {' and '.join(map(_text, clauses))}"
    return _Flaw(("where", place), message, f"{seen}mend the conditions, or remove the rule")


def _bound(rule: Rule, schema: Collection, worker: Worker) -> Sequence[Test]:
    """Return a rule's conditions for a worker; that they can be bound was checked for every worker."""
    return bind_all(rule.where, reader_scope(schema, worker)).tests


def _columns(policy: Policy, schema: Collection, worker: Worker) -> Columns:
    forms = [form for name in schema.fields if (form := schema.seen(name, worker.ceiling)) is not None]
    transforms = policy.document.transforms
    return {form.field: Seen(form.type, transforms[form.chain[-1]] if form.chain else None) for form in forms}


def _text(clause: Clause) -> str:
    text = " ".join(map(str, clause))
    return text if len(text) <= _CHARACTERS_MAX else f"{text[: _CHARACTERS_MAX - 3]}..."
