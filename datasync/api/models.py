"""The models of what is asked and answered as JSON. Times are milliseconds since 1970."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from datasync.api.routes import Answer, Body, Parameters
from datasync.store.audit import Event

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
VIEW_ROWS_MAX = 10_000_000
TOKEN_DAYS = 30
TOKEN_DAYS_MAX = 3_650
PURPOSES_MAX = 64


class FormatName(StrEnum):
    """The formats of a view."""

    ARROW = "arrow"
    JSONL = "jsonl"
    CSV = "csv"


WorkerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="A worker of the policy.")]
Word = Annotated[str, Field(min_length=1, max_length=128)]
After = Annotated[str | None, Field(max_length=256, description="The `next` of the page before.")]
Limit = Annotated[int, Field(ge=1, le=PAGE_MAX, description="How many to list at most.")]
Next = Annotated[str | None, Field(description="What to pass as `after` for the next page; null on the last one.")]


class ViewParameters(Parameters):
    """What to read, from where on, and how."""

    collection: Word
    purpose: Annotated[Word, Field(description="Why it is read; the policy lists the purposes.")]
    after: Annotated[
        int, Field(ge=0, lt=1 << 63, description="The cursor that the last answer gave; 0 reads from the start.")
    ] = 0
    limit: Annotated[
        int | None,
        Field(
            ge=1,
            le=VIEW_ROWS_MAX,
            description="Read no more segments than hold this many rows (before rules hide some), but at least one.",
        ),
    ] = None
    format: Annotated[FormatName | None, Field(description="Goes before the Accept header.")] = None


class Page(Parameters):
    """Which page of a list."""

    after: After = None
    limit: Limit = PAGE_DEFAULT


class HandoverPage(Page):
    """Which handovers, the newest first."""

    device: Word | None = None
    phase: Word | None = None


class WorkerPath(Parameters):
    """Which worker."""

    worker: WorkerName


class Health(Answer):
    """The process answers."""

    status: str = "ok"


class PolicySummary(Answer):
    """One revision of the policy; `active` is true for at most one."""

    revision: int
    digest: str
    received_ms: int
    active: bool


class PolicyRefused(Answer):
    """Why the last policy that was refused here was: the code, and what it said."""

    code: str
    detail: str
    at_ms: int


class NodeSummary(Answer):
    """This node."""

    name: str
    place: str
    operator: str
    version: str
    now_ms: int
    policy_revision: int | None
    policy_digest: str | None
    policy_refused: PolicyRefused | None
    revocations: Annotated[dict[str, int], Field(description="By operator, the number of its revocation list.")]
    certificate_expires_ms: int
    certificate_warning: Annotated[str | None, Field(description="Said when the certificate expires soon.")]
    erasure_awaited: Annotated[list[str], Field(description="Who has not confirmed yet that it erased what it must.")]
    compaction_owed: Annotated[list[str], Field(description="Of erased `keys` and `rows`, which files may still hold.")]
    compacted_ms: Annotated[dict[str, int], Field(description="When files were last rewritten for the sake of each.")]
    not_ready: list[str]


class Waiting(Answer):
    """What of a device's data waits to be sent on from here."""

    segments: int = 0
    rows: int = 0
    bytes: int = 0


class Device(Answer):
    """Where a device is attached, as this node knows it; the higher (incarnation, epoch) is the later."""

    device: str
    state: str
    edge: str | None
    previous: str | None
    incarnation: int
    epoch: int
    mode: str | None
    policy_revision: Annotated[int | None, Field(description="As it said last; null where it was not heard of.")] = None
    since_ms: int
    updated_ms: int
    waiting: Waiting = Waiting()


class Devices(Answer):
    """One page of devices by name."""

    devices: list[Device]
    next: Next


class Edge(Answer):
    """An edge that this node has heard of; `devices` counts those that it serves, as far as is known here."""

    name: str
    operator: str
    address: str | None
    load: float | None
    policy_revision: Annotated[int | None, Field(description="As it said last; null when it has no policy.")]
    seen_ms: int
    devices: int


class Edges(Answer):
    """One page of edges by name."""

    edges: list[Edge]
    next: Next


class WorkerSummary(Answer):
    """A registered worker. `in_policy` says whether the active policy names it; without that it reads nothing."""

    worker: str
    created_ms: int
    expires_ms: int | None
    purposes: list[str] | None
    in_policy: bool


class Workers(Answer):
    """One page of workers by name."""

    workers: list[WorkerSummary]
    next: Next


class Registration(Body):
    """A worker to register."""

    worker: WorkerName
    expires_days: Annotated[int, Field(ge=1, le=TOKEN_DAYS_MAX)] = TOKEN_DAYS
    purposes: Annotated[
        list[Word] | None,
        Field(min_length=1, max_length=PURPOSES_MAX, description="Left out, all purposes that the policy allows."),
    ] = None


class Registered(Answer):
    """A registered worker with its token, which is shown this once: only its SHA-256 is kept."""

    worker: str
    token: str
    expires_ms: int | None
    purposes: list[str] | None
    in_policy: bool


class Revocations(Answer):
    """A revocation list that is in force here."""

    operator: str
    number: int
    certificates: int


class Policies(Answer):
    """Every revision that is known here, the newest first."""

    policies: list[PolicySummary]


class Activated(Answer):
    """The policy that is active now."""

    id: str
    revision: int
    digest: str


class HandoverVerdict(Answer):
    """What became of one collection: at the source how much was given and kept, and why; at the target who made it."""

    action: str
    rule: str | None
    by: str | None = None
    why: str | None = None
    given_segments: int | None = None
    given_rows: int | None = None
    kept_segments: int | None = None
    kept_rows: int | None = None


class Handover(Answer):
    """One handover as this node takes part in it; a time is null until that point is reached.

    `verdicts` are by collection, where a source took any or a target got what was made for it.
    """

    handover: str
    device: str
    role: str
    peer: str | None
    phase: str
    incarnation: int
    epoch: int
    planned: bool
    started_ms: int
    frozen_ms: int | None
    active_ms: int | None
    finished_ms: int | None
    segments: int
    rows: int
    bytes: int
    verdicts: dict[str, HandoverVerdict]


class Handovers(Answer):
    """One page of handovers, the newest first."""

    handovers: list[Handover]
    next: Next


class LogPage(Parameters):
    """Which entries of which log, in their order: of views or of administration, of that all or those of one kind."""

    kind: Literal["views", "administration"] | Event = "views"
    after: int = Field(default=0, ge=0, description="The number of the last entry seen.")
    limit: int = Field(default=100, ge=1, le=1000)


class LogEntry(Answer):
    """One event of one view: opened, refused, or read to its end or until it broke off."""

    number: int
    at_ms: int
    event: str
    worker: str
    collection: str
    purpose: str
    revision: int
    digest: str
    code: str
    rules: list[str]
    fields: list[str]
    rows: int
    bytes: int
    hash: str


class AuditEntry(Answer):
    """Who changed what at this node, or was refused."""

    number: int
    at_ms: int
    event: str
    actor: str
    subject: str
    detail: dict[str, Any]
    hash: str


class Log(Answer):
    """One page of a log: of views in `entries`, or of administration."""

    entries: list[LogEntry]
    administration: list[AuditEntry]


class HandoverRequest(Body):
    """A handover to start."""

    device: Word
    target: Annotated[str, Field(description="The edge to move to, for example acme/docks.")]


class HandoverStarted(Answer):
    """The handover was begun; its row in the list shows how far it is."""

    device: str
    target: str


class Stored(Answer):
    """How much of one collection and tier is stored here."""

    collection: str
    tier: str
    segments: int
    rows: int
    bytes: int


class StoredAll(Answer):
    """What is stored here, by collection and tier."""

    stored: list[Stored]
