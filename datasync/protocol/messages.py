"""The messages that nodes exchange: one strict model for each, CBOR on the wire, ``t`` naming its kind.

A message is only ever read after its envelope was verified; what its fields may be is in
:mod:`datasync.protocol.parts`.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from datasync.domain import limits
from datasync.protocol import cbor
from datasync.protocol.parts import (
    CarriedCheckpoints,
    Certificate,
    Checkpoints,
    ConsentKey,
    Consents,
    Counter,
    Coverage,
    DerivedStreams,
    Digest,
    EraseReceipts,
    EraseStatements,
    HexId,
    LogHeads,
    Model,
    Moment,
    Name,
    Node,
    Nonce,
    PlainSegments,
    SealedSegments,
    Stream,
    StreamNotes,
    Text,
    parse_as,
)


class Message(Model):
    """A whole message; ``t`` names its kind on the wire."""

    def encode(self) -> bytes:
        """Return the message as CBOR."""
        return cbor.dumps(self.model_dump())


class Beacon(Message):
    """A node says that it is there.

    ``nonce`` is what a device without warning answers in its attach; ``load`` the share of an edge's capacity that is
    taken, None for a cloud, which devices do not attach to; ``revision`` that of the policy it follows, None without.
    ``stamp`` is of the node's hybrid clock, which never goes back: of two beacons the later one counts.
    """

    t: Literal["beacon"] = "beacon"
    name: Node
    nonce: Nonce
    load: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    revision: Counter | None
    stamp: Moment


class Hint(Message):
    """A device tells its edge where it will likely go next."""

    t: Literal["hint"] = "hint"
    epoch: Counter
    candidates: Annotated[list[Node], Field(min_length=1, max_length=8)]


class Advise(Message):
    """The cloud asks an edge to move a device that is registered there under this epoch; ``stamp`` says when."""

    t: Literal["advise"] = "advise"
    device: Node
    incarnation: Counter
    epoch: Counter
    target: Node
    stamp: Moment


class Prepare(Message):
    """Source to target: a device may come; this is what would move."""

    t: Literal["prepare"] = "prepare"
    handover: HexId
    device: Node
    incarnation: Counter
    epoch: Counter
    streams: StreamNotes
    manifest: Coverage
    root: Digest


class Prepared(Message):
    """Target to source: send it; this I have already."""

    t: Literal["prepared"] = "prepared"
    handover: HexId
    device: Node
    nonce: Nonce
    has: Coverage


class Refused(Message):
    """Target to source, or source to device: this handover will not be."""

    t: Literal["refused"] = "refused"
    handover: HexId | None
    device: Node
    reason: Text


class Segments(Message):
    """Source to target before the move: ciphertext only, and the checkpoints that sign it."""

    t: Literal["segments"] = "segments"
    handover: HexId
    device: Node
    segments: SealedSegments
    checkpoints: Checkpoints


class SegmentsAck(Message):
    """Target to source: this is durable here. ``epoch`` is 0 before the attach."""

    t: Literal["segments-ack"] = "segments-ack"
    device: Node
    incarnation: Counter
    epoch: Counter
    has: Coverage


class Ready(Message):
    """Source to device: the target has your state; attach there with this nonce. It counts under this epoch alone."""

    t: Literal["ready"] = "ready"
    handover: HexId
    incarnation: Counter
    epoch: Counter
    target: Node
    nonce: Nonce
    root: Digest
    certificate: Certificate


class Attach(Message):
    """Device to target: I am yours from this epoch on; the session keys are sealed to you.

    ``consents`` are all that the device's streams said, so that nothing is shown there that they forbid;
    ``checkpoints`` those that the edge before may not have heard of; ``revision`` is that of the policy it follows. An
    attach by the same token again tells the edge of another one.
    """

    t: Literal["attach"] = "attach"
    incarnation: Counter
    epoch: Counter
    token: Annotated[bytes, Field(max_length=16_384)]
    session: Annotated[bytes, Field(max_length=4096)]
    streams: StreamNotes
    consents: Consents
    checkpoints: CarriedCheckpoints
    revision: Counter | None


class Fence(Message):
    """Target to source: the device's token. Freeze, and send what I lack.

    ``consents`` and ``checkpoints`` are what the device's streams said and signed up to its attach, as the source may
    not have heard of the latest.
    """

    t: Literal["fence"] = "fence"
    token: Annotated[bytes, Field(max_length=16_384)]
    has: Coverage
    consents: Consents
    checkpoints: CarriedCheckpoints


class Delta(Message):
    """Source to target after the freeze: what it lacks, the hot set first.

    ``hot`` and ``complete`` say that nothing of the hot set, or nothing at all, is left to send. ``derived`` streams
    were made by the source for the target's operator, in the place of originals that may not move.
    """

    t: Literal["delta"] = "delta"
    device: Node
    incarnation: Counter
    epoch: Counter
    streams: StreamNotes
    derived: DerivedStreams
    segments: SealedSegments
    checkpoints: Checkpoints
    consents: Consents
    hot: bool
    complete: bool


class Superseded(Message):
    """Source to a target that a newer attach has overtaken: what I have goes to the newer one."""

    t: Literal["superseded"] = "superseded"
    device: Node
    incarnation: Counter
    epoch: Counter


class Attached(Message):
    """Edge to device: the attach took effect. ``missing`` lists the edges whose state has not all arrived.

    ``revision`` is that of the policy which the edge takes the device to follow.
    """

    t: Literal["attached"] = "attached"
    incarnation: Counter
    epoch: Counter
    mode: Literal["full", "degraded"]
    missing: Annotated[list[Node], Field(max_length=limits.SOURCES_MAX)]
    has: Coverage
    safe: Coverage
    signed: Coverage
    revision: Counter | None


class Active(Message):
    """Target to source and cloud: the device is served here now; ``full`` when nothing is left to move."""

    t: Literal["active"] = "active"
    token: Annotated[bytes, Field(max_length=16_384)]
    full: bool


class Release(Message):
    """Source to target: I hold a copy for a while and will then erase it."""

    t: Literal["release"] = "release"
    device: Node
    incarnation: Counter
    epoch: Counter


class Registered(Message):
    """Cloud to edge: the registrar has this attachment."""

    t: Literal["registered"] = "registered"
    device: Node
    incarnation: Counter
    epoch: Counter


class Upload(Message):
    """Device to edge: segments, all layers of a batch together, and checkpoints of them or of earlier ones; sealed."""

    t: Literal["upload"] = "upload"
    incarnation: Counter
    epoch: Counter
    segments: PlainSegments
    checkpoints: Checkpoints


class Ack(Message):
    """Edge to device: what is durable here, what is safe, and which checkpoints were verified here.

    All of the streams concerned alone, and no more of them than is news.
    """

    t: Literal["ack"] = "ack"
    incarnation: Counter
    epoch: Counter
    durable: Coverage
    safe: Coverage
    signed: Coverage


class Forward(Message):
    """Edge to cloud: public segments, the checkpoints that sign them, and consents of their streams; sealed."""

    t: Literal["forward"] = "forward"
    segments: PlainSegments
    checkpoints: Checkpoints
    consents: Consents


class Stored(Message):
    """Cloud to edge: what is durable there, of the streams concerned; and the consents, by stamp."""

    t: Literal["stored"] = "stored"
    durable: Coverage
    consents: Annotated[list[ConsentKey], Field(max_length=1024)]


class ConsentChange(Message):
    """Device to edge: what the subject decided."""

    t: Literal["consents"] = "consents"
    incarnation: Counter
    epoch: Counter
    statements: Consents


class ConsentAck(Message):
    """Edge to device: these consents are durable here, by stream, purpose and stamp."""

    t: Literal["consents-ack"] = "consents-ack"
    incarnation: Counter
    epoch: Counter
    consents: Annotated[list[ConsentKey], Field(max_length=1024)]


class Erase(Message):
    """Erase these streams: a device to its edge, an edge to the other edges and the cloud, all to who sends more.

    Every statement is signed by its stream, so it counts whoever passes it on.
    """

    t: Literal["erase"] = "erase"
    statements: EraseStatements


class Erased(Message):
    """To whoever said ``erase``: receipts for these streams, and from whom else receipts are awaited."""

    t: Literal["erased"] = "erased"
    streams: Annotated[list[Stream], Field(max_length=limits.ERASE_STATEMENTS_MAX)]
    receipts: EraseReceipts
    pending: Annotated[list[Node], Field(max_length=limits.EDGES_MAX)]


class Rejected(Message):
    """To the sender of a message that was refused: the stable code, and for a person the reason."""

    t: Literal["rejected"] = "rejected"
    of: Name
    code: Name
    detail: Text
    incarnation: Counter = 0
    epoch: Counter = 0


class PolicyBundle(Message):
    """The cloud's policy for all, as its source text."""

    t: Literal["policy"] = "policy"
    revision: Counter
    digest: Digest
    source: Annotated[bytes, Field(max_length=limits.POLICY_BYTES_MAX)]


class Heads(Message):
    """Edge to cloud: so my logs end now."""

    t: Literal["heads"] = "heads"
    heads: LogHeads
    stamp: Moment


class Countersigned(Message):
    """Cloud to edge: so I was told that your logs end; a :class:`~datasync.protocol.parts.HeadStatement`, signed."""

    t: Literal["countersigned"] = "countersigned"
    statement: Annotated[bytes, Field(max_length=16_384)]


AnyMessage = (
    Beacon
    | Heads
    | Countersigned
    | Hint
    | Advise
    | Prepare
    | Prepared
    | Refused
    | Segments
    | SegmentsAck
    | Ready
    | Attach
    | Fence
    | Delta
    | Superseded
    | Attached
    | Active
    | Release
    | Registered
    | Upload
    | Ack
    | Forward
    | Stored
    | ConsentChange
    | ConsentAck
    | Erase
    | Erased
    | Rejected
    | PolicyBundle
)

_MESSAGES: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="t")])


def decode(body: bytes) -> AnyMessage:
    """Return the message in an envelope's body. Raises MessageError for anything else."""
    return parse_as(_MESSAGES, body)
