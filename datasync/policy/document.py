"""The policy file format, ``datasync.policy/v1``, as types.

Only shapes are checked here (keys, types, closed sets of words); what names refer to and whether chains and conditions
make sense is checked while compiling. Nothing is coerced and no key is ignored.
"""

import itertools
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from datasync.domain.limits import NAME_CHARACTERS_MAX, SEGMENT_COLUMNS_MAX, SEQUENCE_MAX
from datasync.policy.quantities import DURATION, duration_ms
from datasync.policy.types import WRITTEN

TierLabel = Literal["public", "edge-private", "user-private"]
PlaceName = Literal["device", "edge", "cloud"]
WorkerKind = Literal["train", "infer"]
Basis = Literal["contract", "opt_in", "opt_out"]
Op = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "exists"]
DenialCode = Literal[
    "DENIED_BY", "NO_RULE", "NO_RULE_FIELD", "NO_READ_UP", "NO_PATH", "NO_PURPOSE", "NO_OPERATOR", "NO_CONSENT"
]


ALL = "*"
"""Instead of a list of fields: all of them."""


def _duration(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no duration: write a whole number and a unit, as in 30d")
    return duration_ms(value)


def _hot(value: object) -> object:
    return None if value == "all" else _duration(value)


def _sequence(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _type_text(value: object) -> object:
    """Return a field's type as text; ``[string]`` is written as a list of one."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return f"[{value[0]}]"
    return value


def _all_or_names(value: object) -> object:
    if isinstance(value, list) and ALL in value:
        raise ValueError("'*' stands alone: write fields: '*' for all, or a list of names")
    return (ALL,) if value == ALL else _sequence(value)


def _name(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=pattern, max_length=NAME_CHARACTERS_MAX)


Name = Annotated[str, _name(r"^[A-Za-z][A-Za-z0-9_]*$")]
"""A transform, collection, field or constant: letters, digits and ``_``; fields become columns."""

Word = Annotated[str, _name(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A policy, worker, purpose or rule."""

Operator = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""An operator; it is the first part of its nodes' names."""

WrittenDuration = Annotated[str, StringConstraints(pattern=f"^{DURATION}$")]
Duration = Annotated[int, BeforeValidator(_duration, json_schema_input_type=WrittenDuration)]
"""Milliseconds, written as ``30d``."""

Names = Annotated[tuple[Name, ...], Field(min_length=1), BeforeValidator(_sequence)]
Words = Annotated[tuple[Word, ...], Field(min_length=1), BeforeValidator(_sequence)]
Operators = Annotated[tuple[Operator, ...], Field(min_length=1), BeforeValidator(_sequence)]
NameOrAll = Annotated[str, _name(r"^(\*|[A-Za-z][A-Za-z0-9_]*)$")]
FieldNames = Annotated[
    tuple[NameOrAll, ...],
    Field(min_length=1),
    BeforeValidator(_all_or_names, json_schema_input_type=Literal["*"] | Names),
]
"""Names of fields, or ``(ALL,)``."""

Edge = Annotated[float, Field(ge=-(1 << 53), le=1 << 53)]
"""A number that integers and floats share exactly."""

Value = str | int | float | bool
WrittenClause = (
    tuple[Name, Literal["eq", "ne", "lt", "le", "gt", "ge"], Value]
    | tuple[Name, Literal["in", "not_in"], Annotated[tuple[Value, ...], Field(min_length=1)]]
    | tuple[Name, Literal["exists"], bool]
)
Clause = Annotated[tuple[str, Op, Any], BeforeValidator(_sequence, json_schema_input_type=WrittenClause)]
"""``[column, op, value]``."""

Where = Annotated[tuple[Clause, ...], Field(min_length=1), BeforeValidator(_sequence)]
"""Conditions that must all hold."""


class Model(BaseModel):
    """Strict and frozen; an unknown key is an error that names the known ones."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)

    @model_validator(mode="wrap")
    @classmethod
    def _name_known_keys(cls, value: Any, handler: ModelWrapValidatorHandler["Model"]) -> "Model":
        try:
            return handler(value)
        except ValidationError as error:
            known = [field.alias or name for name, field in cls.model_fields.items()]
            raise ValidationError.from_exception_data(
                cls.__name__, [_with_known(each, known) for each in error.errors(include_url=False)]
            ) from None


def _with_known(error: Any, known: list[str]) -> InitErrorDetails:
    kind, context = error["type"], dict(error.get("ctx", {}))
    if len(error["loc"]) == 1 and kind == "extra_forbidden":
        context["known"] = known
    message = error["msg"].replace("{", "{{").replace("}", "}}")
    return InitErrorDetails(type=PydanticCustomError(kind, message, context), loc=error["loc"], input=error["input"])


class Transform(Model):
    """What every transform says: where it leads from and to."""

    source: TierLabel = Field(alias="from")
    to: TierLabel


class Hmac(Transform):
    """Pseudonym under a key of the subject's device that changes every ``rotate``."""

    op: Literal["hmac"]
    key: Literal["subject"]
    rotate: Duration | None = None


class Geohash(Transform):
    """Cell of a point, as 1 to 12 base-32 digits."""

    op: Literal["geohash"]
    precision: int = Field(ge=1, le=12)


class Truncate(Transform):
    """Moment cut down to a multiple of ``unit`` since 1970."""

    op: Literal["truncate"]
    unit: Duration


class Round(Transform):
    """Number rounded to ``decimals`` digits after the point (before it when negative)."""

    op: Literal["round"]
    decimals: int = Field(ge=-9, le=9)


class Bucket(Transform):
    """Label of the interval between two edges."""

    op: Literal["bucket"]
    edges: Annotated[tuple[Edge, ...], Field(min_length=1, max_length=1000), BeforeValidator(_sequence)]

    @field_validator("edges")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in itertools.pairwise(edges)):
            raise ValueError("not increasing: write each edge once, from low to high")
        return edges


class Mask(Transform):
    """Text of which ``keep`` characters stay at one side; the rest becomes three asterisks, whatever its length."""

    op: Literal["mask"]
    keep: int = Field(ge=0, le=64)
    side: Literal["start", "end"] = "start"


class Drop(Transform):
    """Nothing: every value becomes null."""

    op: Literal["drop"]


class Constant(Transform):
    """The same value in every row, also where there was none."""

    op: Literal["constant"]
    value: Value


class DpSgd(Transform):
    """A way down for models: training with differential privacy (Abadi et al., 2016) within this budget."""

    op: Literal["dp_sgd"]
    scope: Literal["model"]
    unit: Literal["subject", "row"]
    epsilon: float = Field(gt=0, le=1_000)
    delta: float = Field(gt=0, lt=1)


class Approve(Transform):
    """A way down for models: somebody's signature under this one model."""

    op: Literal["approve"]
    scope: Literal["model"]


RowTransform = Hmac | Geohash | Truncate | Round | Bucket | Mask | Drop | Constant
ModelTransform = DpSgd | Approve
AnyTransform = Annotated[RowTransform | ModelTransform, Discriminator("op")]


Merge = Literal["lww", "counter", "max", "min", "union"]
"""How changes of a document's field become its value: the last, their sum, the extremes, all elements."""


class FieldSpec(Model):
    """One field of a collection."""

    type: Annotated[str, BeforeValidator(_type_text), WithJsonSchema(WRITTEN)]
    tier: TierLabel = "user-private"
    up: dict[PlaceName, Names] = {}
    merge: Merge | None = None


class Raise(Model):
    """Rows that are more private than their columns say."""

    to: TierLabel
    where: Where


class Mobility(Model):
    """What moves first in a handover, and whether the cloud holds sealed escrow; ``hot`` in ms, ``all`` is None."""

    hot: Annotated[int | None, BeforeValidator(_hot, json_schema_input_type=Literal["all"] | WrittenDuration)] = None
    escrow: bool = False


class CollectionSpec(Model):
    """What streams and documents have in common."""

    subject: Name
    meta: dict[Name, TierLabel] = {}
    fields: dict[Name, FieldSpec] = Field(min_length=1, max_length=SEGMENT_COLUMNS_MAX)
    raised: Annotated[tuple[Raise, ...], BeforeValidator(_sequence)] = Field(alias="raise", default=())
    mobility: Mobility = Mobility()
    retain: dict[PlaceName, Duration] | None = None


class StreamSpec(CollectionSpec):
    """Rows that are added and never changed."""

    kind: Literal["stream"]
    time: Name | None = None


class DocumentSpec(CollectionSpec):
    """Documents of a subject, told apart by ``key``, whose fields change and merge."""

    kind: Literal["document"]
    key: Name


AnyCollection = Annotated[StreamSpec | DocumentSpec, Discriminator("kind")]


class WorkerSpec(Model):
    """An AI program; further keys are its attributes, which conditions read as ``$worker.x``."""

    model_config = ConfigDict(extra="allow")

    place: PlaceName
    operator: Operator | None = None
    kind: WorkerKind
    clearance: TierLabel
    purposes: Words


class Selector(Model):
    """Which workers a rule is for: all that fit every key given."""

    worker: Word | None = None
    place: PlaceName | None = None
    kind: WorkerKind | None = None
    operator: Operator | None = None


class RuleSpec(Model):
    """Who may, or may not, read which fields of which rows."""

    id: Word
    effect: Literal["allow", "deny"]
    to: Selector
    data: Name
    fields: FieldNames | None = None
    where: Where = ()


class Withdraw(Model):
    """What a withdrawn consent sets off."""

    stop: Literal["immediately"]
    purge: Duration


class ConsentSpec(Model):
    """Whether the subject must agree, purpose by purpose; a purpose that is not listed is ``opt_in``."""

    basis: dict[Word, Basis] = {}
    roaming: Basis | None = None
    withdraw: Withdraw | None = None


class Erasure(Model):
    """What erasing a subject sets off."""

    shred: Literal["immediately"]
    compact: Duration
    models: dict[TierLabel, Literal["delete", "retrain", "report"]] = {}


class Models(Model):
    """The label of a trained model and the ways to lower it."""

    label: Literal["join_of_inputs"]
    lower_by: Names


class HandoverRule(Model):
    """What happens to a collection when a device moves from one operator's edge to another's."""

    id: Word
    source: Operator = Field(alias="from")
    to: Operator
    data: NameOrAll
    action: Literal["move", "copy", "pseudonymise", "drop"]
    max_tier: TierLabel | None = None
    fields: FieldNames | None = None
    purposes: Words | None = None
    requires: Words | None = None
    retain: Duration | None = None
    onward: bool | None = None


class Ask(Model):
    """A question to the policy; consent that is not mentioned counts as given."""

    worker: Word
    data: Name
    field: Name | None = None
    purpose: Word
    consent: dict[Word, bool] = {}


class Never(Model):
    """Tiers that a place must never hold."""

    tier: Annotated[tuple[TierLabel, ...], Field(min_length=1), BeforeValidator(_sequence)]
    place: PlaceName


class HandoverAsk(Model):
    """A question about a handover between two operators."""

    source: Operator = Field(alias="from")
    to: Operator
    data: Name


class Expect(Model):
    """The answer that a test expects: a chain of transforms, a denial, visible rows, or a handover's fields."""

    allow: Annotated[tuple[Name, ...], BeforeValidator(_sequence)] | None = None
    deny: DenialCode | None = None
    visible: Annotated[tuple[int, ...], BeforeValidator(_sequence)] | None = None
    fields: Annotated[tuple[Name, ...], BeforeValidator(_sequence)] | None = None
    by: Words | None = None


class PolicyTest(Model):
    """A test that the policy carries: run at every load."""

    name: str = Field(min_length=1)
    ask: Ask | None = None
    rows: Annotated[tuple[dict[Name, Any], ...], BeforeValidator(_sequence)] | None = None
    expect: Expect | None = None
    never: Never | None = None
    handover: HandoverAsk | None = None


class Document(Model):
    """A whole policy file."""

    format: Literal["datasync.policy/v1"] = Field(alias="schema")
    id: Word
    revision: int = Field(ge=1, le=SEQUENCE_MAX)
    places: dict[PlaceName, TierLabel] | None = None
    operators: Operators
    purposes: Words
    transforms: dict[Name, AnyTransform] = {}
    collections: dict[Name, AnyCollection] = Field(min_length=1)
    workers: dict[Word, WorkerSpec] = {}
    rules: Annotated[tuple[RuleSpec, ...], BeforeValidator(_sequence)] = ()
    consent: ConsentSpec = ConsentSpec()
    erasure: Erasure | None = None
    models: Models | None = None
    handover: Annotated[tuple[HandoverRule, ...], BeforeValidator(_sequence)] = ()
    tests: Annotated[tuple[PolicyTest, ...], BeforeValidator(_sequence)] = ()
