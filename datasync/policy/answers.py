"""The questions that a reader must pass, in the order that is the contract; the first that fails is the answer.

A deny, an allow, the tier, the chain, then purpose, operator and consent. Deny always wins, allows of different rules
OR their rows for each field, and the order of rules never matters. A deny with conditions does not deny the question
but the rows that match.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from datasync.domain.tiers import Place, Tier
from datasync.policy.compiled import Collection, Form, Policy, Rule, Worker, reader_scope
from datasync.policy.predicate import BindError, bind_all

ALLOW = "ALLOW"
ORDER = (
    "DENIED_BY",
    "NO_RULE",
    "NO_RULE_FIELD",
    "NO_READ_UP",
    "NO_PATH",
    "NO_PURPOSE",
    "NO_OPERATOR",
    "NO_CONSENT",
)
"""The codes of denials, in the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer: ``code`` is ALLOW or the first failure's; ``rules`` allow it or deny it; ``detail`` is one sentence.

    ``tier`` and ``chain`` are those of the form that is read (of a collection: its highest tier); None and empty when
    nothing is.
    """

    allowed: bool
    code: str
    rules: tuple[str, ...]
    tier: Tier | None
    chain: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Nearest:
    """The rule that comes nearest to allowing what no rule allows.

    ``lacks`` are its parts that do not fit: ``worker``, ``place``, ``kind`` and ``operator`` of its selector,
    ``fields``, and ``where`` when its conditions make no sense for the worker. ``then`` is what would be answered if
    they did fit: ALLOW, or the code of the next failure. ``detail`` says all this in words.
    """

    rule: str
    lacks: tuple[str, ...]
    then: str
    detail: str


def rules_for(policy: Policy, worker: Worker, collection: str) -> tuple[Rule, ...]:
    """Return the rules that speak of this worker and collection."""
    return tuple(rule for rule in policy.rules if rule.collection == collection and rule.selects(worker))


def answer(
    policy: Policy, worker: Worker, schema: Collection, field: str | None, purpose: str, operator: str | None
) -> Decision:
    """Return the answer to all questions but that of consent, which is the subject's and not the policy's."""
    return _asked(policy, worker, purpose, operator, _sights(policy, worker, schema)[field])


def _sights(policy: Policy, worker: Worker, schema: Collection) -> Mapping[str | None, Decision]:
    """Return what rules, tiers and chains say of every field, and under None of the collection.

    They do not ask for what a worker reads, so one look at the rules answers for all fields and purposes.
    """
    key = ("sights", worker.id, schema.name)
    is_listed = policy.workers.get(worker.id) is worker
    found: Mapping[str | None, Decision] | None = policy.memo.get(key) if is_listed else None
    if found is None:
        found = _by_rules(worker, schema, rules_for(policy, worker, schema.name))
        if is_listed:
            policy.memo[key] = found
    return found


def _by_rules(worker: Worker, schema: Collection, rules: tuple[Rule, ...]) -> Mapping[str | None, Decision]:
    """Return the answers when these are the rules that speak of the worker and the collection."""
    fields: dict[str | None, Decision] = {name: _seen(worker, schema, name, rules) for name in schema.fields}
    return fields | {None: _anything(worker, schema, list(fields.values()), rules)}


def _asked(policy: Policy, worker: Worker, purpose: str, operator: str | None, found: Decision) -> Decision:
    """Return what is found, unless it is allowed and purpose or operator are not."""
    if not found.allowed:
        return found
    if purpose not in worker.purposes & policy.purposes:
        return _deny("NO_PURPOSE", f"{worker.id} does not work for {purpose}, but for {_listed(worker.purposes)}.")
    if not _operates(policy, worker, operator):
        whose = worker.operator or "no operator"
        return _deny("NO_OPERATOR", f"{worker.id} works for {whose}, and the data are with {operator or 'another'}.")
    return found


def nearest_allow(
    policy: Policy, worker: Worker, schema: Collection, field: str | None, purpose: str, operator: str | None
) -> Nearest | None:
    """Return the allow of the collection with the fewest unmet parts, of equals the first by id; None without any."""
    allows = (rule for rule in policy.rules if rule.allows and rule.collection == schema.name)
    parts = [(rule, _unmet(worker, schema, field, rule)) for rule in allows]
    if not parts:
        return None
    rule, lacks = min(parts, key=lambda each: (len(each[1]), each[0].id))
    widened = rule if field is None or rule.fields is None else replace(rule, fields=rule.fields | {field})
    granted = (*rules_for(policy, worker, schema.name), widened)
    then = _asked(policy, worker, purpose, operator, _by_rules(worker, schema, granted)[field])
    lacking = " and ".join(lacks.values())
    if then.allowed:
        detail = f"{rule.id} would allow it, but {lacking}."
    else:
        detail = f"The nearest is {rule.id}, but it {lacking}. Even then {then.code}: {then.detail}"
    return Nearest(rule.id, tuple(lacks), then.code, detail)


def _unmet(worker: Worker, schema: Collection, field: str | None, rule: Rule) -> dict[str, str]:
    """Return what a rule lacks to allow the question, each part with the words for it."""
    unmet = {key: f"is for {key} {want}" for key, want in rule.unmet(worker).items()}
    if field is not None and not rule.covers(field):
        unmet["fields"] = f"covers {_listed(rule.fields or ())}, not {field}"
    try:
        bind_all(rule.where, reader_scope(schema, worker))
    except BindError as error:
        unmet["where"] = f"has conditions that cannot be decided for {worker.id}: {error.message}"
    return unmet


def without_consent(policy: Policy, purpose: str, consent: Mapping[str, bool]) -> Decision | None:
    """Return the denial when the subject's word by purpose does not suffice for this purpose; None when it does."""
    basis = policy.basis[purpose]
    match basis:
        case "contract":
            return None
        case "opt_in" if consent.get(purpose, False):
            return None
        case "opt_out" if consent.get(purpose, True):
            return None
    said = "has refused" if basis == "opt_out" else "has not given"
    return _deny("NO_CONSENT", f"The subject {said} consent to {purpose}, whose basis is {basis}.")


def _seen(worker: Worker, schema: Collection, field: str, rules: tuple[Rule, ...]) -> Decision:
    """Return the answer of rules, tiers and chains for one field."""
    denying = tuple(rule.id for rule in rules if not rule.allows and rule.covers(field) and not rule.where)
    if denying:
        return _deny("DENIED_BY", f"{_listed(denying)} denies {worker.id} {field} of {schema.name}.", denying)
    allowing = [rule for rule in rules if rule.allows]
    if not allowing:
        return _deny("NO_RULE", f"No rule allows {worker.id} anything of {schema.name}.")
    granting = tuple(rule.id for rule in allowing if rule.covers(field))
    if not granting:
        others = _listed(rule.id for rule in allowing)
        return _deny("NO_RULE_FIELD", f"{others} allows {worker.id} other fields of {schema.name}, but not {field}.")
    form = schema.seen(field, worker.ceiling)
    if form is None:
        return _unseen(worker, schema, field)
    filters = [rule.id for rule in rules if not rule.allows and rule.covers(field)]
    less = f", without the rows that {_listed(filters)} denies" if filters else ""
    detail = f"{worker.id} reads {field} {_as(form)}, {form.tier.label}, by {_listed(granting)}{less}."
    return Decision(True, ALLOW, granting, form.tier, form.chain, detail)


def _unseen(worker: Worker, schema: Collection, field: str) -> Decision:
    """Return why no form of the field is low enough: the worker's clearance, or a chain that is not there."""
    place = worker.place
    form = schema.seen(field, place.highest_tier)
    if form is not None:
        detail = f"{field} is {form.tier.label} at the {place}, above {worker.id}'s clearance {worker.clearance.label}."
        return _deny("NO_READ_UP", detail)
    tier = schema.fields[field].tier
    return _deny("NO_PATH", f"{field} is {tier.label} and has no chain that leads to the {place}.")


def _anything(worker: Worker, schema: Collection, fields: list[Decision], rules: tuple[Rule, ...]) -> Decision:
    """Return the answer for a whole collection: allowed when any field is, else that of the field that came furthest.

    Fields that no rule allows do not count beside fields that one does.
    """
    allowed = [each for each in fields if each.allowed]
    if allowed:
        ids = {rule for each in allowed for rule in each.rules}
        used = tuple(rule.id for rule in rules if rule.id in ids)
        count = f"{len(allowed)} of {len(fields)} fields"
        tier = max(each.tier for each in allowed if each.tier is not None)
        return Decision(True, ALLOW, used, tier, (), f"{worker.id} reads {count} of {schema.name}, by {_listed(used)}.")
    asked = [each for each in fields if each.code != "NO_RULE_FIELD"]
    return max(asked, key=lambda each: ORDER.index(each.code))


def _operates(policy: Policy, worker: Worker, operator: str | None) -> bool:
    if worker.place is Place.DEVICE:
        return True
    return worker.operator in policy.operators and operator in (None, worker.operator)


def _deny(code: str, detail: str, rules: tuple[str, ...] = ()) -> Decision:
    return Decision(False, code, rules, None, (), detail)


def _as(form: Form) -> str:
    return f"as {' then '.join(form.chain)}" if form.chain else "as it is"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
