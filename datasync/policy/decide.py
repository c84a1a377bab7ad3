"""Whether a worker may read, and the rules by which its view is made.

A question is answered once and remembered in the policy's memo. Views are made from the decisions of their fields, so
that an explanation is never another opinion: a column is there when its field is allowed; a cell is shown when some
allow that grants its field matches the row and no deny of its field does; a row is shown when one of its cells is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied, NotFound
from datasync.domain.tiers import Tier
from datasync.policy.answers import Decision, Nearest, answer, nearest_allow, rules_for, without_consent
from datasync.policy.arrays import Mask, pick
from datasync.policy.compiled import Collection, Form, Policy, Rule, Worker, reader_scope
from datasync.policy.document import Basis
from datasync.policy.predicate import BindError, Predicate, bind_all, clause_text
from datasync.policy.problems import nearest

__all__ = [
    "Decision",
    "Judgement",
    "Nearest",
    "RuleOutcome",
    "ViewRules",
    "Worker",
    "decide",
    "nearest_rule",
    "view_rules",
    "worker",
]

Meta = Mapping[str, Any]


def worker(policy: Policy, worker_id: str) -> Worker:
    """Return a worker of the policy. Raises NotFound."""
    found = policy.workers.get(worker_id)
    if found is None:
        raise NotFound(f"the policy has no worker {worker_id}", fix=nearest(worker_id, policy.workers))
    return found


def decide(
    policy: Policy,
    worker: Worker,
    collection: str,
    field: str | None,
    purpose: str,
    *,
    consent: Mapping[str, bool] | None = None,
    operator: str | None = None,
) -> Decision:
    """Return whether ``worker`` may read ``field`` (None: anything of the collection) for ``purpose``, and why.

    ``consent`` is the subject's word by purpose; None takes it as given, for it is asked again for each stream that
    is read. ``operator`` is whose node holds the data; None leaves that open. Raises NotFound for an unknown
    collection or field.
    """
    key = ("decide", worker.id, collection, field, purpose, operator)
    decision: Decision | None = policy.memo.get(key) if policy.workers.get(worker.id) is worker else None
    if decision is None:
        schema = _collection(policy, collection, field)
        decision = answer(policy, worker, schema, field, purpose, operator)
        if _is_listed(policy, worker, purpose, operator):
            policy.memo[key] = decision
    if decision.allowed and consent is not None:
        return without_consent(policy, purpose, consent) or decision
    return decision


def nearest_rule(
    policy: Policy, worker: Worker, collection: str, field: str | None, purpose: str, *, operator: str | None = None
) -> Nearest | None:
    """Return the rule that comes nearest to allowing the question, by the code that decided that none does.

    None when the collection has no allow. Raises NotFound for an unknown collection or field.
    """
    return nearest_allow(policy, worker, _collection(policy, collection, field), field, purpose, operator)


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """What a rule says of some rows: how many match it, and else its first condition after which none is left."""

    rule: str
    allows: bool
    rows: int
    failed: str | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a view shows of some rows: how many, and which columns of any; and what each rule has to do with it."""

    rules: tuple[RuleOutcome, ...]
    rows: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ViewRules:
    """What one worker may read of one collection for one purpose, compiled.

    ``columns`` are the forms that it may read and ``needed`` those that only conditions look at, both in the order of
    the fields; ``tiers`` are the layers to join for them, high to low: the first of them has every row that the worker
    can see. ``rules`` take part; ``consent`` is the purpose's basis, not applied here; ``schema`` is the result's.
    """

    worker: Worker
    collection: str
    purpose: str
    columns: tuple[Form, ...]
    needed: tuple[Form, ...]
    tiers: tuple[Tier, ...]
    rules: tuple[str, ...]
    consent: Basis
    schema: pa.Schema
    _used: Mapping[str, Rule]
    _conditions: Mapping[str, Predicate]
    _grants: Mapping[str, "_Grant"]

    def mask(self, batch: pa.RecordBatch, meta: Meta, now: Instant) -> pa.BooleanArray:
        """Return which rows the worker sees at all. ``batch`` has the columns of ``columns`` and ``needed``."""
        visible = self._visible(self._cells(batch, meta, now))
        return pa.array(np.broadcast_to(visible, batch.num_rows), pa.bool_())

    def apply(self, batch: pa.RecordBatch, meta: Meta, now: Instant) -> pa.RecordBatch:
        """Return the visible rows of ``columns``, with null in every cell that no rule grants.

        ``batch`` has the columns of ``columns`` and ``needed`` (and may have others); ``meta`` are its constants.
        """
        cells = self._cells(batch, meta, now)
        visible = self._visible(cells)
        arrays = []
        for form in self.columns:
            column, shown = batch.column(form.field), cells[self._grants[form.field]]
            arrays.append(column if shown is visible else pick(column, np.broadcast_to(shown, batch.num_rows)))
        result = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return result if visible is True else result.filter(pa.array(np.broadcast_to(visible, batch.num_rows)))

    def matching(self, batch: pa.RecordBatch, meta: Meta, now: Instant) -> tuple[str, ...]:
        """Return the rules that match at least one row."""
        return tuple(rule for rule, held in self._held(batch, meta, now).items() if np.any(held))

    def judge(self, batch: pa.RecordBatch, meta: Meta, now: Instant) -> Judgement:
        """Return what :meth:`apply` makes of the rows, and why; for explanations, as it costs more."""
        cells = self._cells(batch, meta, now)
        shown = {form.field: _count(cells[self._grants[form.field]], batch) for form in self.columns}
        return Judgement(
            rules=tuple(
                RuleOutcome(rule, self._used[rule].allows, _count(held, batch), self._failed(rule, batch, meta, now))
                for rule, held in self._held(batch, meta, now).items()
            ),
            rows=_count(self._visible(cells), batch),
            columns=tuple(name for name, rows in shown.items() if rows),
        )

    def _failed(self, rule: str, batch: pa.RecordBatch, meta: Meta, now: Instant) -> str | None:
        used = self._used[rule]
        index = self._conditions[rule].first_failed(batch, meta, now, unknown=not used.allows)
        return None if index is None else clause_text(used.where[index])

    def _held(self, batch: pa.RecordBatch, meta: Meta, now: Instant) -> dict[str, Mask | bool]:
        """Return for each rule which rows match it: NULL never satisfies an allow and always satisfies a deny."""
        return {
            rule: where.holds(batch, meta, now, unknown=not self._used[rule].allows)
            for rule, where in self._conditions.items()
        }

    def _cells(self, batch: pa.RecordBatch, meta: Meta, now: Instant) -> dict["_Grant", Mask | bool]:
        held = self._held(batch, meta, now)
        return {grant: grant.shown(held) for grant in set(self._grants.values())}

    def _visible(self, cells: Mapping["_Grant", Mask | bool]) -> Mask | bool:
        """Return the rows in which some cell is shown; the very mask of the cells when all fields share one."""
        visible, *others = cells.values()
        for shown in others:
            visible = _or(visible, shown)
        return visible


@dataclass(frozen=True, slots=True)
class _Grant:
    """The rules that allow and that deny a field; fields with the same rules share one."""

    allows: tuple[str, ...]
    denies: tuple[str, ...]

    def shown(self, held: Mapping[str, Mask | bool]) -> Mask | bool:
        shown: Mask | bool = False
        for rule in self.allows:
            shown = _or(shown, held[rule])
        for rule in self.denies:
            shown = _and_not(shown, held[rule])
        return shown


def _count(held: Mask | bool, batch: pa.RecordBatch) -> int:
    return int(np.broadcast_to(held, batch.num_rows).sum())


def _or(left: Mask | bool, right: Mask | bool) -> Mask | bool:
    if isinstance(left, bool):
        return True if left else right
    if isinstance(right, bool):
        return True if right else left
    return left | right


def _and_not(left: Mask | bool, right: Mask | bool) -> Mask | bool:
    if isinstance(right, bool):
        return False if right else left
    if isinstance(left, bool):
        return ~right if left else False
    return left & ~right


def view_rules(
    policy: Policy, worker: Worker, collection: str, purpose: str, *, operator: str | None = None
) -> ViewRules:
    """Return the compiled rules of a view. Raises NotFound, and AccessDenied when nothing may be read."""
    key = ("view", worker.id, collection, purpose, operator)
    found: ViewRules | None = policy.memo.get(key) if policy.workers.get(worker.id) is worker else None
    if found is None:
        found = _compile(policy, worker, _collection(policy, collection, None), purpose, operator)
        if _is_listed(policy, worker, purpose, operator):
            policy.memo[key] = found
    return found


def _compile(policy: Policy, worker: Worker, schema: Collection, purpose: str, operator: str | None) -> ViewRules:
    whole = decide(policy, worker, schema.name, None, purpose, operator=operator)
    if not whole.allowed:
        raise AccessDenied(whole.detail, reason=whole.code)
    rules = rules_for(policy, worker, schema.name)
    columns = tuple(
        form
        for name in schema.fields
        if decide(policy, worker, schema.name, name, purpose, operator=operator).allowed
        and (form := schema.seen(name, worker.ceiling)) is not None
    )
    used = [rule for rule in rules if any(rule.covers(form.field) for form in columns)]
    conditions = {rule.id: _bound(rule, schema, worker) for rule in used}
    needed = _needed(schema, worker, columns, conditions)
    return ViewRules(
        worker=worker,
        collection=schema.name,
        purpose=purpose,
        columns=columns,
        needed=needed,
        tiers=_tiers(schema, worker, (*columns, *needed)),
        rules=tuple(conditions),
        consent=policy.basis[purpose],
        schema=pa.schema([(form.field, form.type) for form in columns]),
        _used={rule.id: rule for rule in used},
        _conditions=conditions,
        _grants={form.field: _grant(used, form.field) for form in columns},
    )


def _bound(rule: Rule, schema: Collection, worker: Worker) -> Predicate:
    """Return a rule's conditions for a worker's columns. They were tried at load for every worker of the policy."""
    try:
        return bind_all(rule.where, reader_scope(schema, worker))
    except BindError as error:
        detail = f"the conditions of {rule.id} cannot be decided for {worker.id}: {error.message}"
        raise AccessDenied(detail, reason="NO_RULE", fix=error.fix) from None


def _grant(rules: list[Rule], field: str) -> _Grant:
    covering = [rule for rule in rules if rule.covers(field)]
    return _Grant(
        tuple(rule.id for rule in covering if rule.allows), tuple(rule.id for rule in covering if not rule.allows)
    )


def _needed(
    schema: Collection, worker: Worker, columns: tuple[Form, ...], conditions: Mapping[str, Predicate]
) -> tuple[Form, ...]:
    looked_at = {name for where in conditions.values() for name in where.columns} - {form.field for form in columns}
    forms = (schema.seen(name, worker.ceiling) for name in schema.fields if name in looked_at)
    return tuple(form for form in forms if form is not None)


def _tiers(schema: Collection, worker: Worker, forms: tuple[Form, ...]) -> tuple[Tier, ...]:
    """Return the layers that a reader joins: those of its forms, and those that their rows can be lifted to."""
    tiers = {form.tier for form in forms}
    lifts = {lift.to for lift in schema.lifts if min(tiers) < lift.to <= worker.ceiling}
    return tuple(sorted(tiers | lifts, reverse=True))


def _collection(policy: Policy, name: str, field: str | None) -> Collection:
    schema = policy.collections.get(name)
    if schema is None:
        raise NotFound(f"the policy has no collection {name}", fix=nearest(name, policy.collections))
    if field is not None and field not in schema.fields:
        raise NotFound(f"{name} has no field {field}", fix=nearest(field, schema.fields))
    return schema


def _is_listed(policy: Policy, worker: Worker, purpose: str, operator: str | None) -> bool:
    """Whether the question is one of the finitely many that the policy itself raises; only those are remembered."""
    listed = policy.workers.get(worker.id) is worker and purpose in policy.purposes
    return listed and (operator is None or operator in policy.operators)
