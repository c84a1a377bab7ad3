"""The policy's answer to one question over HTTP, and what would change it.

Of a subject, the consents that are stored at this node decide, as they do in a view; of a row, the rules of the view.
"""

import json
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection

from datasync.api import models
from datasync.api.routes import Answer, Call, Parameters
from datasync.api.views import operator_of_data
from datasync.domain.errors import Forbidden, RecordError, RequestError
from datasync.policy.compiled import Policy, Worker
from datasync.policy.decide import Judgement
from datasync.policy.decide import worker as policy_worker
from datasync.policy.explain import explained, judge_row
from datasync.views import consent

ROW_CHARACTERS_MAX = 2_000
"""It is part of an address, which servers limit."""


class ExplainParameters(Parameters):
    """One question to the policy."""

    worker: models.WorkerName
    collection: models.Word
    purpose: models.Word
    field: Annotated[models.Word | None, Field(description="Left out, the question is about the whole collection.")] = (
        None
    )
    subject: Annotated[
        models.Word | None,
        Field(description="A device or a stream whose stored consents decide; left out, consent counts as given."),
    ] = None
    row: Annotated[
        str | None,
        Field(max_length=ROW_CHARACTERS_MAX, description="A row as the worker would see it, as a JSON object."),
    ] = None


class NearestRule(Answer):
    """The rule that almost allows it: what it lacks, and what would be answered if it lacked nothing."""

    rule: str
    lacks: tuple[str, ...]
    then: str
    detail: str


class ConsentStatement(Answer):
    """A subject's yes or no to the purpose: by which stream it was said, and its hybrid logical time."""

    stream: str
    given: bool
    stamp_ms: int
    stamp_counter: int


class ConsentConsulted(Answer):
    """The purpose's basis and the statement that decides; null when nothing was said."""

    basis: str
    statement: ConsentStatement | None


class RuleOutcome(Answer):
    """How many rows a rule matches; when none, its first condition after which no row is left."""

    rule: str
    allows: bool
    rows: int
    failed: str | None


class RowOutcome(Answer):
    """Whether the rules show the row (`rows` is 1), with which columns, and what each of them has to do with it."""

    rows: int
    columns: tuple[str, ...]
    rules: tuple[RuleOutcome, ...]


class Explanation(Answer):
    """The policy's answer, by the path that enforces it."""

    worker: str
    collection: str
    field: str | None
    purpose: str
    allowed: bool
    code: str
    rules: tuple[str, ...]
    tier: str | None
    chain: tuple[str, ...]
    detail: str
    nearest: Annotated[NearestRule | None, Field(description="Only where no rule allows it.")]
    consent: Annotated[ConsentConsulted | None, Field(description="Only of a subject, and if consent is asked at all.")]
    row: Annotated[RowOutcome | None, Field(description="Only of a row, and if the answer is ALLOW.")]
    policy_revision: int
    policy_digest: str


ExplainCall = Call[ExplainParameters, None]


async def explain(call: ExplainCall) -> Explanation:
    """Return the policy's answer.

    Raises Forbidden when a worker asks about another worker or about a subject, NotFound for a subject of whom nothing
    is here, and RequestError for a row that the worker could not see.
    """
    asked, caller = call.parameters, call.caller
    if not caller.is_admin and caller.worker != asked.worker:
        raise Forbidden(f"worker {caller.worker} may ask about itself, not about {asked.worker}")
    if not caller.is_admin and asked.subject is not None:
        raise Forbidden("what a subject said is for the administrator to ask")
    policy = call.service.policy()
    reader = policy_worker(policy, asked.worker)
    consulted = None
    if asked.subject is not None and asked.purpose in policy.purposes:
        consulted = await call.service.read(partial(_consult, policy=policy, asked=asked, subject=asked.subject))
    return _explanation(call, policy, reader, consulted)


@dataclass(frozen=True, slots=True)
class _Consulted:
    """Whether what a subject said suffices, as the condition of views has it, and the statement that decides."""

    suffices: bool
    answer: ConsentConsulted


def _consult(tx: Connection, policy: Policy, asked: ExplainParameters, subject: str) -> _Consulted:
    basis = policy.basis[asked.purpose]
    stream = consent.stream_of(tx, subject, asked.collection)
    said = consent.deciding(tx, asked.purpose, stream)
    statement = None
    if said is not None:
        stamp = said.stamp
        statement = ConsentStatement(
            stream=said.stream, given=said.given, stamp_ms=stamp.wall_ms, stamp_counter=stamp.counter
        )
    answer = ConsentConsulted(basis=basis, statement=statement)
    return _Consulted(consent.allowed(tx, basis, asked.purpose, stream), answer)


def _explanation(call: ExplainCall, policy: Policy, reader: Worker, consulted: _Consulted | None) -> Explanation:
    asked, operator = call.parameters, operator_of_data(call.service, reader)
    said = None if consulted is None else {asked.purpose: consulted.suffices}
    found = explained(policy, reader, asked.collection, asked.field, asked.purpose, consent=said, operator=operator)
    decision = found.decision
    judged = _judge(call, policy, reader) if asked.row is not None and decision.allowed else None
    return Explanation(
        worker=asked.worker,
        collection=asked.collection,
        field=asked.field,
        purpose=asked.purpose,
        allowed=decision.allowed,
        code=decision.code,
        rules=decision.rules,
        tier=None if decision.tier is None else decision.tier.label,
        chain=decision.chain,
        detail=decision.detail,
        nearest=None if found.nearest is None else NearestRule.model_validate(found.nearest),
        consent=None if consulted is None else consulted.answer,
        row=None if judged is None else RowOutcome.model_validate(judged),
        policy_revision=policy.revision,
        policy_digest=policy.digest,
    )


def _judge(call: ExplainCall, policy: Policy, reader: Worker) -> Judgement:
    asked, service = call.parameters, call.service
    operator = operator_of_data(service, reader)
    row, now = _row(asked.row or ""), service.backend.now()
    try:
        return judge_row(policy, reader, asked.collection, asked.purpose, row, now, operator=operator)
    except RecordError as error:
        raise RequestError(f"the row: {error.detail}", fix=error.fix) from None


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the row is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise RequestError("the row is no JSON object", fix="map columns to values")
    return row
