"""Recorded decisions, asked again of another policy: which of them it would not have taken.

The log knows who read what for which purpose and what was answered, and nothing of the node where it happened. So each
question is asked as at a node of the worker's own operator; where the answer was that the data are with another, it is
asked as at a node of another. Consent is not part of the answers: it is asked again of each stream that is read.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasync.domain.errors import AccessDenied, LogInvalid, NotFound
from datasync.domain.limits import LOG_LINE_BYTES_MAX, SEQUENCE_MAX
from datasync.policy.answers import ALLOW
from datasync.policy.compiled import Policy
from datasync.policy.decide import view_rules, worker

_ANOTHER = ""
"""An operator that no worker works for."""

_Number = Annotated[int, Field(ge=0, le=SEQUENCE_MAX)]


class Recorded(BaseModel):
    """One line of the decision log, as ``datasync audit show --json`` prints it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    number: Annotated[int, Field(ge=1, le=SEQUENCE_MAX)]
    at_ms: _Number
    event: Literal["opened", "refused", "read"]
    worker: str
    collection: str
    purpose: str
    revision: _Number
    digest: str
    code: str
    rules: tuple[str, ...]
    fields: tuple[str, ...]
    rows: _Number
    bytes: _Number
    hash: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy answers: ALLOW with the rules that take part and the fields that are shown, or why not."""

    code: str
    rules: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A recorded decision and another policy's answer to it; ``differs`` says in which ways they are not the same."""

    recorded: Recorded
    answer: Answer
    differs: tuple[str, ...]

    def to_data(self) -> Mapping[str, Any]:
        """Return the difference as plain data."""
        was, now = self.recorded, self.answer
        return {
            "number": was.number, "event": was.event, "worker": was.worker, "collection": was.collection,
            "purpose": was.purpose, "differs": list(self.differs), "detail": now.detail,
            "was": {"code": was.code, "rules": list(was.rules), "fields": list(was.fields), "revision": was.revision},
            "now": {"code": now.code, "rules": list(now.rules), "fields": list(now.fields)},
        }  # fmt: skip


def read_lines(lines: Iterable[bytes]) -> Iterator[Recorded]:
    """Yield the decisions of a log, one line at a time. Raises LogInvalid at the first line that is none."""
    for number, line in enumerate(lines, 1):
        if len(line) > LOG_LINE_BYTES_MAX:
            raise LogInvalid("the line is too long", where=f"line {number}", fix=f"at most {LOG_LINE_BYTES_MAX} bytes")
        try:
            yield Recorded.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            detail = f"{place}: {first['msg']}" if place else first["msg"]
            fix = "give what `datasync audit show --json` printed"
            raise LogInvalid(detail, where=f"line {number}", fix=fix) from None


def replay(policy: Policy, recorded: Iterable[Recorded]) -> Iterator[Difference]:
    """Yield for each decision how the policy's answer differs; in no way, for most."""
    for each in recorded:
        answer = _answer(policy, each)
        yield Difference(each, answer, tuple(_differences(each, answer)))


def _answer(policy: Policy, asked: Recorded) -> Answer:
    operator = _ANOTHER if asked.code == "NO_OPERATOR" else None
    try:
        rules = view_rules(policy, worker(policy, asked.worker), asked.collection, asked.purpose, operator=operator)
    except AccessDenied as denied:
        return Answer(denied.reason, detail=denied.detail)
    except NotFound as error:
        return Answer(error.code, detail=error.detail)
    return Answer(ALLOW, rules.rules, tuple(rules.schema.names))


def _differences(was: Recorded, now: Answer) -> Iterator[str]:
    if was.code != now.code:
        if ALLOW not in (was.code, now.code):
            yield f"refused as {now.code}, not as {was.code}"
        else:
            yield f"allowed, was refused as {was.code}" if now.code == ALLOW else f"refused as {now.code}, was allowed"
    elif now.code == ALLOW:
        if gained := [name for name in now.fields if name not in was.fields]:
            yield f"gains {', '.join(gained)}"
        if lost := [name for name in was.fields if name not in now.fields]:
            yield f"loses {', '.join(lost)}"
        if {*was.rules} != {*now.rules}:
            yield f"by {', '.join(sorted(now.rules))}, was by {', '.join(sorted(was.rules))}"
