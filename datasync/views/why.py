"""Why a worker sees a stored segment or a row, or does not: the steps of a view, taken for this one alone.

Each step asks the very function that reading asks, in the order in which reading does, and the first that fails is the
answer. What is told are names (of rules, conditions, columns, layers, statements) and never a cell's value, so that
whoever looks after a node learns what is wrong with a view without reading it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, func, select

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied, NotFound
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.policy import documents
from datasync.policy.compiled import Policy, Worker
from datasync.policy.decide import Judgement, RuleOutcome
from datasync.policy.explain import explained
from datasync.policy.predicate import clause_text
from datasync.security.vault import Vault
from datasync.store import segments, streams, tables
from datasync.store.segments import Meta, StoredSegment
from datasync.views import consent
from datasync.views.batches import PARTNER_MISSING, Joined, join_batches
from datasync.views.documents import DOCUMENT_UNNAMED, changed_by, is_unnamed
from datasync.views.plan import CONSENT, TERMS, TIME, ViewPlan
from datasync.views.plan import plan as compile_plan

_T = tables.segments

SEEN = "SEEN"
NOT_HERE, NOT_VISIBLE, LAYER_NOT_READ = "NOT_HERE", "NOT_VISIBLE", "LAYER_NOT_READ"
NO_CONSENT, TERMS_FORBID, TOO_EARLY = "NO_CONSENT", "TERMS_FORBID", "TOO_EARLY"
CONSTANTS_DIFFER = "CONSTANTS_DIFFER"
NO_ROWS, RAISED, HIDDEN_BY_RULES = "NO_ROWS", "RAISED", "HIDDEN_BY_RULES"
"""Answers beside the policy's codes and those for which reading withholds a batch."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row asked about: its stream, in any layer of its batch, and its sequence number."""

    stream: StreamId
    number: int


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks, and for what: a segment by its id, or a row. ``operator`` is whose node is asked; None: left open."""

    policy: Policy
    worker: Worker
    purpose: str
    asked: int | Row
    operator: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it found, in words, and the code of its failure; none when it was passed."""

    name: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``code`` is SEEN or that of the last of the ``steps``; ``rules`` and ``columns`` are known if it came so far.

    ``segment`` is the one that was asked about, or that holds the row; None when none does.
    """

    code: str
    collection: str
    segment: int | None
    steps: tuple[Step, ...]
    rules: tuple[RuleOutcome, ...] = ()
    columns: tuple[str, ...] = ()


def why(tx: Connection, vault: Vault, question: Question, now: Instant) -> Answer:
    """Return the answer. Raises NotFound for a segment and for a stream that the node does not know."""
    collection, stored = _find(tx, question.asked)
    walk = _Walk(tx, question, now)
    try:
        judged, columns = walk.all(vault, collection, stored)
    except _Unseen as unseen:
        judged, columns = unseen.rules, ()
    number = None if stored is None else stored.id
    return Answer(walk.steps[-1].code or SEEN, collection, number, tuple(walk.steps), judged, columns)


def _find(tx: Connection, asked: int | Row) -> tuple[str, StoredSegment | None]:
    """Return the collection of what is asked about, and its segment if it is here."""
    if isinstance(asked, int):
        stored = segments.get(tx, asked)
        if stored is None:
            raise NotFound(f"no segment {asked} is here")
        return stored.collection, stored
    stream = streams.get(tx, [asked.stream]).get(asked.stream)
    if stream is None:
        raise NotFound(f"no stream {asked.stream} is known here")
    holding = segments.of_stream(tx, asked.stream, RangeSet.of([(asked.number, asked.number)]))
    return stream.collection, next(iter(holding), None)


class _Unseen(Exception):
    """A step failed, so no later one is taken."""

    def __init__(self, rules: tuple[RuleOutcome, ...] = ()) -> None:
        super().__init__()
        self.rules = rules


class _Walk:
    """The steps as they are taken. Each method takes one or more, and raises _Unseen at one that fails."""

    def __init__(self, tx: Connection, question: Question, now: Instant) -> None:
        self.steps: list[Step] = []
        self._tx = tx
        self._question = question
        self._now = now

    def all(
        self, vault: Vault, collection: str, stored: StoredSegment | None
    ) -> tuple[tuple[RuleOutcome, ...], tuple[str, ...]]:
        """Take all steps; return what became of the rules, and the columns that are shown."""
        plan = self._plan(collection)
        base = self._base(plan, self._visible(stored))
        self._metadata(plan, base)
        joined = self._content(vault, plan, base)
        rows = self._rows(plan, joined)
        if plan.reads_documents:
            judgement = self._rules(plan, self._documents(vault, plan, base, rows))
            return judgement.rules, judgement.columns
        judgement = self._rules(plan, [(rows, joined.meta)])
        return judgement.rules, tuple(name for name in judgement.columns if joined.sources.get(name))

    def _plan(self, collection: str) -> ViewPlan:
        asked = self._question
        about = (asked.policy, asked.worker, collection)
        try:
            plan = compile_plan(*about, asked.purpose, operator=asked.operator)
        except AccessDenied as denied:
            text = explained(*about, None, asked.purpose, operator=asked.operator).text
            raise self._failed("policy", denied.reason, text) from None
        except NotFound as error:
            raise self._failed("policy", error.code, error.detail) from None
        self._passed("policy", f"by {', '.join(plan.rules.rules)} it may read {', '.join(plan.schema.names)}")
        return plan

    def _visible(self, stored: StoredSegment | None) -> StoredSegment:
        if stored is None:
            raise self._failed("stored", NOT_HERE, "the stream is known here, but no segment of it holds this number")
        if stored.position is None:
            held = "copied ahead of its device, or held for a device that moved away"
            raise self._failed("stored", NOT_VISIBLE, f"segment {stored.id} is in no view now: {held}")
        self._passed("stored", f"segment {stored.id}, {stored.tier.label}, has the position {stored.position}")
        return stored

    def _base(self, plan: ViewPlan, stored: StoredSegment) -> StoredSegment:
        """Return the segment of the same batch from which the view starts: the one of its highest layer."""
        base = stored if stored.tier == plan.base else self._partner(plan, stored)
        self._passed("layer", f"the view joins {_labels(plan)} of each batch, and starts this one at segment {base.id}")
        return base

    def _partner(self, plan: ViewPlan, stored: StoredSegment) -> StoredSegment:
        base = segments.partners(self._tx, [stored], [plan.base])[stored.id].get(plan.base)
        has_other_layers = isinstance(self._question.asked, Row) and base is not None
        if stored.tier not in plan.tiers and not has_other_layers:
            instead = "" if base is None else f"; of this batch it reads segment {base.id}"
            detail = f"the view reads {_labels(plan)}, and not {stored.tier.label}{instead}"
            raise self._failed("layer", LAYER_NOT_READ, detail)
        if base is None:
            missing = f"the {plan.base.label} layer of the batch, from which the view starts, is not here or in no view"
            raise self._failed("layer", PARTNER_MISSING, missing)
        return base

    def _metadata(self, plan: ViewPlan, base: StoredSegment) -> None:
        """Take the steps for which nothing is opened; the first ones are conditions of the view's query."""
        said = self._said(plan, base)
        told = {
            CONSENT: (NO_CONSENT, said, said),
            TERMS: (TERMS_FORBID, "another operator gave it for other purposes, or no longer", "no terms forbid it"),
            TIME: (TOO_EARLY, "all rules that allow ask for later times than the segment has", "no time rules it out"),
        }
        for name, conditions in plan.questions(self._now).items():
            code, ruled_out, passed = told[name]
            if not self._tx.scalar(select(func.count(_T.c.id)).where(_T.c.id == base.id, *conditions)):
                raise self._failed(name, code, ruled_out)
            self._passed(name, passed)
        if plan.reads_documents:
            return  # the constants of a document's latest change count, whichever batch that is in
        if not plan.pruning.may_show(base.meta, self._now):
            raise self._failed("constants", CONSTANTS_DIFFER, self._unmet(plan, base))
        self._passed("constants", "no constant of the device rules it out")

    def _said(self, plan: ViewPlan, base: StoredSegment) -> str:
        purpose = self._question.purpose
        said = consent.deciding(self._tx, purpose, base.stream)
        if said is None:
            statement = "nothing was said"
        else:
            answer = "gave" if said.given else "refused"
            statement = f"stream {said.stream} {answer} it at {said.stamp.wall_ms} ms, {said.stamp.counter}"
        return f"the basis of {purpose} is {plan.rules.consent}; {statement}"

    def _unmet(self, plan: ViewPlan, base: StoredSegment) -> str:
        wheres = {rule.id: rule.where for rule in self._question.policy.rules}
        failures = plan.pruning.failures(base.meta, self._now)
        unmet = [f"{rule}: {clause_text(wheres[rule][at])}" for rule, at in failures.items() if at is not None]
        return f"the device's constants are others than the rules that allow ask for; {', '.join(unmet)}"

    def _content(self, vault: Vault, plan: ViewPlan, base: StoredSegment) -> Joined:
        joined = next(join_batches(self._tx, vault, plan, [base]))
        if joined.rows is None:
            raise self._failed("content", joined.withheld, joined.detail)
        if plan.reads_documents and is_unnamed(joined.rows):
            raise self._failed("content", DOCUMENT_UNNAMED, "its rows do not say which documents they change")
        self._passed("content", "its layers are here, open with their keys, and are what their streams signed")
        differ = [name for name in plan.schema.names if not joined.sources.get(name)]
        made = f"as the policy in force makes them, but for {', '.join(differ)}" if differ else "as it makes them"
        self._passed("columns", f"under the policy {base.policy_digest[:16]} they were made {made}")
        return joined

    def _rows(self, plan: ViewPlan, joined: Joined) -> pa.RecordBatch:
        """Return the rows that are asked about, of those that the view starts from."""
        assert joined.rows is not None
        asked = self._question.asked
        if not isinstance(asked, Row):
            if not joined.rows.num_rows:
                raise self._failed("rows", NO_ROWS, f"every row of the batch was raised above {plan.base.label}")
            self._passed("rows", f"{joined.rows.num_rows} rows are in the layers that the view reads")
            return joined.rows
        (found,) = np.nonzero(joined.numbers == asked.number)
        if not len(found):
            raise self._failed("rows", RAISED, f"the row was raised above {plan.base.label}, out of the worker's sight")
        self._passed("rows", "the row is in the layers that the view reads")
        return joined.rows.slice(int(found[0]), 1)

    def _documents(
        self, vault: Vault, plan: ViewPlan, base: StoredSegment, changes: pa.RecordBatch
    ) -> Sequence[tuple[pa.RecordBatch, Meta]]:
        """Return the documents that the rows change, as all changes together make them."""
        names = changes.column(documents.COLUMN)
        merged = changed_by(self._tx, vault, plan, base)
        chosen = [(batch.filter(pc.is_in(batch.column(documents.COLUMN), names)), meta) for batch, meta in merged]
        found = [(batch, meta) for batch, meta in chosen if batch.num_rows]
        self._passed("documents", f"{sum(batch.num_rows for batch, _ in found)} documents, merged from all changes")
        return found

    def _rules(self, plan: ViewPlan, batches: Sequence[tuple[pa.RecordBatch, Meta]]) -> Judgement:
        judgement = _sum([plan.rules.judge(rows, meta, self._now) for rows, meta in batches])
        count = f"{judgement.rows} of {sum(rows.num_rows for rows, _ in batches)}"
        if not judgement.rows:
            self._failed("rules", HIDDEN_BY_RULES, f"the rules show {count}")
            raise _Unseen(judgement.rules)
        self._passed("rules", f"the rules show {count}")
        return judgement

    def _passed(self, name: str, detail: str) -> None:
        self.steps.append(Step(name, "", detail))

    def _failed(self, name: str, code: str, detail: str) -> _Unseen:
        self.steps.append(Step(name, code, detail))
        return _Unseen()


def _sum(parts: Sequence[Judgement]) -> Judgement:
    """Return what was judged apart, on account of other constants, as one."""
    return Judgement(
        rules=tuple(_same_rule(outcomes) for outcomes in zip(*(part.rules for part in parts), strict=True)),
        rows=sum(part.rows for part in parts),
        columns=tuple(dict.fromkeys(name for part in parts for name in part.columns)),
    )


def _same_rule(outcomes: Sequence[RuleOutcome]) -> RuleOutcome:
    rows = sum(each.rows for each in outcomes)
    return replace(outcomes[0], rows=rows, failed=None if rows else outcomes[0].failed)


def _labels(plan: ViewPlan) -> str:
    return " and ".join(tier.label for tier in plan.tiers)
