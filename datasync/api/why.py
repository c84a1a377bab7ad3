"""Why a worker sees a segment or a row that is stored here, over HTTP: for administrators, and without any value."""

from functools import partial
from typing import Annotated

from pydantic import Field

from datasync.api import models
from datasync.api.explain import RuleOutcome
from datasync.api.routes import Answer, Call, Parameters
from datasync.api.views import operator_of_data, reader_here
from datasync.domain.errors import RequestError
from datasync.domain.ids import StreamId
from datasync.domain.limits import SEQUENCE_MAX
from datasync.views import why

Number = Annotated[int, Field(ge=0, lt=1 << 63)]


class WhyParameters(Parameters):
    """What is asked about, a segment or a row of a stream, and for whom."""

    worker: models.WorkerName
    purpose: models.Word
    segment: Annotated[Number | None, Field(description="A segment's id; or else stream and seq.")] = None
    stream: Annotated[str | None, Field(pattern=r"^[0-9a-f]{32}$", description="A stream, in any layer.")] = None
    seq: Annotated[int | None, Field(ge=0, le=SEQUENCE_MAX, description="A row's sequence number in it.")] = None


class WhyStep(Answer):
    """One step of a view, in order; `code` is empty for one that was passed."""

    name: str
    code: str
    detail: str


class Why(Answer):
    """Whether the worker sees it. `code` is SEEN, or that of the last step, which is the one that failed.

    `segment` is the one that was asked about or that holds the row. Of a segment, `columns` and `rules` are about any
    of its rows.
    """

    sees: bool
    code: str
    worker: str
    purpose: str
    collection: str
    segment: int | None
    steps: tuple[WhyStep, ...]
    rules: tuple[RuleOutcome, ...]
    columns: tuple[str, ...]
    policy_revision: int
    policy_digest: str


async def ask_why(call: Call[WhyParameters, None]) -> Why:
    """Return the steps that a view takes for what is asked about.

    Raises Forbidden for a worker that reads nothing at this node, NotFound for a segment or a stream that is not here.
    """
    asked, service = call.parameters, call.service
    policy = service.policy()
    reader = reader_here(service, policy, asked.worker)
    operator = operator_of_data(service, reader)
    question = why.Question(policy, reader, asked.purpose, _asked(asked), operator)
    vault, now = service.backend.vault, service.backend.now()
    found = await service.read(partial(why.why, vault=vault, question=question, now=now))
    return Why(
        sees=found.code == why.SEEN,
        code=found.code,
        worker=reader.id,
        purpose=asked.purpose,
        collection=found.collection,
        segment=found.segment,
        steps=tuple(map(WhyStep.model_validate, found.steps)),
        rules=tuple(map(RuleOutcome.model_validate, found.rules)),
        columns=found.columns,
        policy_revision=policy.revision,
        policy_digest=policy.digest,
    )


def _asked(asked: WhyParameters) -> int | why.Row:
    match asked.segment, asked.stream, asked.seq:
        case int(segment), None, None:
            return segment
        case None, str(stream), int(seq):
            return why.Row(StreamId(stream), seq)
        case _:
            raise RequestError("ask about a segment or about a row", fix="give segment, or else stream and seq")
