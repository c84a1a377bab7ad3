"""What a policy shows of one field: to a worker, and to whoever keeps a place; in a form that can be compared.

A worker sees one form of a field, in the rows that some allow gives, no deny holds back, and no ``raise`` lifts above
it. A place holds every form whose tier it may hold. A row lifted to T is absent below T, but layer T then carries the
lower forms that a reader there would have seen, so a place holds a form of all rows that are lifted no higher than up
to the next form.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasync.domain.tiers import Place, Tier
from datasync.policy.answers import rules_for
from datasync.policy.comparing.coarseness import Making, described, making, told
from datasync.policy.comparing.effects import Effect, proven
from datasync.policy.comparing.regions import EVERYTHING, Box, box, is_covered, meet
from datasync.policy.compiled import Collection, Form, Policy, Rule, Worker, reader_scope
from datasync.policy.decide import decide
from datasync.policy.predicate import Clause, Scope, bind_all, clause_text
from datasync.policy.types import type_name


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows that are in one of ``given`` and in none of ``held_back``; ``texts`` say so, rule by rule.

    ``changes`` are conditions on the change rows that documents are merged from. Hiding a change shows what it
    replaced, so documents with other changes are other documents, and never fewer of the same.
    """

    given: tuple[Box, ...]
    held_back: tuple[Box, ...]
    changes: tuple[Box, ...]
    texts: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """Whether it is proven that there are no such rows."""
        return all(is_covered(each, self.held_back) for each in self.given)

    def is_within(self, other: "Rows") -> bool:
        """Whether it is proven that every such row is one of the others too."""
        return all(
            is_covered(each, (*other.given, *self.held_back))
            and all(
                (both := meet(each, held_back)) is None or is_covered(both, self.held_back)
                for held_back in other.held_back
            )
            for each in self.given
        )

    def compared(self, new: "Rows") -> Effect:
        """Return what it does to show the new rows instead of these."""
        if not (_are_covered(self.changes, new.changes) and _are_covered(new.changes, self.changes)):
            return Effect.CHANGES
        return proven(no_more=new.is_within(self), no_less=self.is_within(new))


@dataclass(frozen=True, slots=True)
class Sight:
    """One form of a field and the rows in which it can be seen."""

    form: Form
    made: Making
    words: str
    rows: Rows


def seen(policy: Policy, worker: Worker, collection: str, field: str, purpose: str) -> Sight | None:
    """Return what a worker sees of a field for a purpose, consent given; None when that is nothing."""
    schema = policy.collections.get(collection)
    if schema is None or field not in schema.fields or purpose not in policy.purposes:
        return None
    if not decide(policy, worker, collection, field, purpose).allowed:
        return None
    key = ("sight", worker.id, collection, field)
    if key not in policy.memo:
        policy.memo[key] = _sight(policy, worker, schema, field)
    found: Sight | None = policy.memo[key]
    return found


def held(policy: Policy, collection: str, field: str, place: Place) -> list[Sight]:
    """Return the forms of a field that a place holds, high to low."""
    schema = policy.collections.get(collection)
    if schema is None:
        return []
    forms = [form for form in schema.forms.get(field, {}).values() if form.tier <= place.highest_tier]
    found, reach = [], place.highest_tier
    for form in forms:
        lifts = tuple(_lifts(policy, schema, reach))
        texts = tuple(text for text, _ in lifts)
        rows = Rows((EVERYTHING,), tuple(where for _, where in lifts if where is not None), (), texts)
        found.append(Sight(form, making(schema, form), described(schema, form), rows))
        reach = Tier(max(form.tier - 1, Tier.PUBLIC))
    return found


def all_told(old: Sequence[Sight], new: Sequence[Sight]) -> Effect:
    """Return what it does to hold the new forms of a field instead of the old ones."""
    return proven(no_more=_is_known(new, old), no_less=_is_known(old, new))


def _are_covered(boxes: Iterable[Box], covers: Sequence[Box]) -> bool:
    return all(is_covered(each, covers) for each in boxes)


def _is_known(forms: Iterable[Sight], others: Sequence[Sight]) -> bool:
    """Whether each of the forms, in each row, could be made from one of the others."""
    return all(
        any(
            told(other.made, each.made) in (Effect.NOTHING, Effect.NARROWS) and each.rows.is_within(other.rows)
            for other in others
        )
        for each in forms
    )


def _sight(policy: Policy, worker: Worker, schema: Collection, field: str) -> Sight | None:
    form = schema.seen(field, worker.ceiling)
    if form is None:
        return None
    rules = tuple(rule for rule in rules_for(policy, worker, schema.name) if rule.covers(field))
    key = ("rows", worker.id, schema.name, tuple(rule.id for rule in rules))
    if key not in policy.memo:
        rows = _rows(policy, worker, schema, rules)
        policy.memo[key] = None if rows.is_none else rows
    found: Rows | None = policy.memo[key]
    return None if found is None else Sight(form, making(schema, form), described(schema, form), found)


def _rows(policy: Policy, worker: Worker, schema: Collection, rules: Iterable[Rule]) -> Rows:
    given: list[Box | None] = []
    held_back: list[Box | None] = []
    texts = []
    scope, forms = reader_scope(schema, worker), _forms(schema, worker)
    for rule in rules:
        texts.append(_text(rule, scope))
        where = box(bind_all(rule.where, scope), scope.columns, forms, unknown=not rule.allows)
        (given if rule.allows else held_back).append(where)
    lifts = tuple(_lifts(policy, schema, worker.ceiling))
    texts += [text for text, _ in lifts]
    lifted = [where for _, where in lifts if where is not None]
    is_document = schema.kind == "document"
    return Rows(
        tuple(where for where in given if where is not None),
        (*(where for where in held_back if where is not None), *(() if is_document else lifted)),
        tuple(lifted) if is_document else (),
        tuple(texts),
    )


def _forms(schema: Collection, worker: Worker) -> Mapping[str, Any]:
    forms = (schema.seen(name, worker.ceiling) for name in schema.fields)
    return {form.field: making(schema, form) for form in forms if form is not None}


def _lifts(policy: Policy, schema: Collection, ceiling: Tier) -> Iterator[tuple[str, Box | None]]:
    """Yield in words and as boxes the rows that are lifted above ``ceiling``, judged when they were captured."""
    types = {name: field.type for name, field in schema.fields.items()}
    forms = {name: Making(type_name(kind), name == schema.subject, ()) for name, kind in types.items()}
    specs = policy.document.collections[schema.name].raised
    for lift, spec in zip(schema.lifts, specs, strict=True):
        if lift.to > ceiling:
            where = box(lift.where, types, forms, unknown=True, clock="captured")
            yield f"{_conditions(spec.where)} are {lift.to.label}", where


def _text(rule: Rule, scope: Scope) -> str:
    values = {f"$worker.{name}": value for name, value in (scope.attributes or {}).items()}
    where = [(column, op, _known(value, values)) for column, op, value in rule.where]
    return f"{rule.id} {'allows' if rule.allows else 'denies'} {_conditions(where)}"


def _known(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_known(each, values) for each in value]
    return values.get(value, value) if isinstance(value, str) else value


def _conditions(where: Iterable[Clause]) -> str:
    clauses = [clause_text(clause) for clause in where]
    return f"rows where {' and '.join(clauses)}" if clauses else "all rows"
