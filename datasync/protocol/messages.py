"""The messages that nodes exchange: one strict model for each, CBOR on the wire.

A message is only ever read after its envelope was verified, but its signer may still be wrong or malicious: every
field has a type and a bound, unknown fields are refused, and nothing is coerced. Streams are named by id;
``Coverage`` says which sequence numbers of which streams somebody has.
"""

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from datasync.domain import limits
from datasync.domain.errors import MessageError
from datasync.domain.ids import NodeName, StreamId, is_hex_id, node_name
from datasync.domain.ranges import RangeSet
from datasync.protocol import cbor


def _ranges(value: object) -> RangeSet:
    if isinstance(value, RangeSet):
        return value
    if not isinstance(value, list) or len(value) > 2 * limits.RANGES_MAX:
        raise ValueError(f"a range set is a list of at most {2 * limits.RANGES_MAX} bounds")
    if not all(type(bound) is int and 0 <= bound <= limits.SEQUENCE_MAX for bound in value):
        raise ValueError(f"bounds are whole numbers up to {limits.SEQUENCE_MAX}")
    return RangeSet.from_list(value)


def _hex_id(value: object) -> str:
    if not isinstance(value, str) or not is_hex_id(value):
        raise ValueError("an id has 32 hexadecimal digits")
    return value


def _node(value: object) -> NodeName:
    if not isinstance(value, str):
        raise ValueError("a name is text")
    return node_name(value)


Ranges = Annotated[RangeSet, PlainValidator(_ranges), PlainSerializer(RangeSet.to_list)]
Stream = Annotated[StreamId, PlainValidator(_hex_id)]
HexId = Annotated[str, PlainValidator(_hex_id)]
Node = Annotated[NodeName, PlainValidator(_node)]
Coverage = Annotated[dict[Stream, Ranges], Field(max_length=limits.STREAMS_PER_DEVICE_MAX * 16)]
Counter = Annotated[int, Field(ge=0, le=limits.SEQUENCE_MAX)]
Moment = Annotated[int, Field(ge=0, lt=1 << 63)]
Nonce = Annotated[bytes, Field(min_length=16, max_length=16)]
Key = Annotated[bytes, Field(min_length=32, max_length=32)]
Certificate = Annotated[bytes, Field(max_length=4096)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=1024)]


class Model(BaseModel):
    """A part of a message: strict, closed and immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Part = TypeVar("Part", bound=Model)
Parsed = TypeVar("Parsed")


class Message(Model):
    """A whole message; ``t`` names its kind on the wire."""

    def encode(self) -> bytes:
        """Return the message as CBOR."""
        return cbor.dumps(self.model_dump())


class StreamNote(Model):
    """A stream made known: its key, and what it carries."""

    public_key: Key
    collection: Name
    tier: Annotated[int, Field(ge=0, le=2)]


class SealedSegment(Model):
    """A segment in handover: its metadata, and its body under a key that only the device can give."""

    stream: Stream
    collection: Name
    tier: Annotated[int, Field(ge=0, le=2)]
    seq_first: Counter
    seq_last: Counter
    rows: Annotated[int, Field(ge=0, le=limits.SEGMENT_ROWS_MAX)]
    captured: Moment
    time_min_ms: int | None
    time_max_ms: int | None
    policy_digest: Annotated[str, Field(max_length=64)]
    meta: Annotated[dict[str, str | int | float | bool], Field(max_length=32)]
    hash: Annotated[str, Field(min_length=64, max_length=64)]
    safe: bool
    key_id: HexId
    body: Annotated[bytes, Field(max_length=limits.SEGMENT_BYTES_MAX)]


class ConsentStatement(Model):
    """What a subject said for one stream and purpose, signed with the stream's key."""

    public_key: Key
    purpose: Name
    given: bool
    stamp: Moment
    signature: Annotated[bytes, Field(min_length=64, max_length=64)]

    def signed_bytes(self) -> bytes:
        """Return what the signature is over."""
        return cbor.dumps(["datasync/consent", self.public_key, self.purpose, self.given, self.stamp])


class ConsentKey(Model):
    """Which statement: its stream, its purpose and when it was made."""

    stream: Stream
    purpose: Name
    stamp: Moment


Consents = Annotated[list[ConsentStatement], Field(max_length=1024)]
StreamNotes = Annotated[list[StreamNote], Field(max_length=limits.STREAMS_PER_DEVICE_MAX)]
SealedSegments = Annotated[list[SealedSegment], Field(max_length=limits.SEGMENTS_PER_MESSAGE_MAX)]
SignedSegments = Annotated[list[bytes], Field(max_length=limits.SEGMENTS_PER_MESSAGE_MAX)]


class Visit(Model):
    """One edge that a device attached to, and under which incarnation and epoch."""

    edge: Node
    incarnation: Counter
    epoch: Counter


class AttachToken(Model):
    """A device's signed word on which edge serves it from this epoch on.

    ``previous`` lists the edges since the last one that confirmed, that one first: state may be at any of them.
    """

    device: Node
    incarnation: Counter
    epoch: Counter
    edge: Node
    nonce: Nonce
    previous: Annotated[list[Visit], Field(max_length=limits.PREVIOUS_MAX)]
    handover: HexId | None

    CONTEXT: ClassVar[str] = "datasync/attach"

    @property
    def order(self) -> tuple[int, int]:
        """Incarnation and epoch, which compare as a pair."""
        return self.incarnation, self.epoch


class Beacon(Message):
    """A node says that it is there; ``nonce`` is what a device without warning answers in its attach."""

    t: Literal["beacon"] = "beacon"
    name: Node
    nonce: Nonce
    load: Annotated[float, Field(ge=0)]
    issued_ms: Moment


class Hint(Message):
    """A device tells its edge where it will likely go next."""

    t: Literal["hint"] = "hint"
    epoch: Counter
    candidates: Annotated[list[Node], Field(min_length=1, max_length=8)]


class Advise(Message):
    """The cloud asks an edge to move a device."""

    t: Literal["advise"] = "advise"
    device: Node
    target: Node


class Prepare(Message):
    """Source to target: a device may come; this is what would move."""

    t: Literal["prepare"] = "prepare"
    handover: HexId
    device: Node
    incarnation: Counter
    epoch: Counter
    streams: StreamNotes
    manifest: Coverage
    root: Annotated[str, Field(min_length=64, max_length=64)]


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
    """Source to target before the move: ciphertext only."""

    t: Literal["segments"] = "segments"
    handover: HexId
    device: Node
    segments: SealedSegments


class SegmentsAck(Message):
    """Target to source: this is durable here. ``epoch`` is 0 before the attach."""

    t: Literal["segments-ack"] = "segments-ack"
    device: Node
    incarnation: Counter
    epoch: Counter
    has: Coverage


class Ready(Message):
    """Source to device: the target has your state; attach there with this nonce."""

    t: Literal["ready"] = "ready"
    handover: HexId
    target: Node
    nonce: Nonce
    root: Annotated[str, Field(min_length=64, max_length=64)]
    certificate: Certificate


class Attach(Message):
    """Device to target: I am yours from this epoch on; the session keys are sealed to you."""

    t: Literal["attach"] = "attach"
    incarnation: Counter
    epoch: Counter
    token: Annotated[bytes, Field(max_length=16_384)]
    session: Annotated[bytes, Field(max_length=4096)]
    streams: StreamNotes


class SessionKeys(Model):
    """What an attach seals to its target: the new session key, and by edge those under which state may arrive."""

    session: Key
    previous: Annotated[dict[Node, Key], Field(max_length=limits.PREVIOUS_MAX)]


class Fence(Message):
    """Target to source: the device's token. Freeze, and send what I lack."""

    t: Literal["fence"] = "fence"
    token: Annotated[bytes, Field(max_length=16_384)]
    has: Coverage


class Delta(Message):
    """Source to target after the freeze: what it lacks, the hot set first.

    ``hot`` and ``complete`` say that nothing of the hot set, or nothing at all, is left to send.
    """

    t: Literal["delta"] = "delta"
    device: Node
    incarnation: Counter
    epoch: Counter
    streams: StreamNotes
    segments: SealedSegments
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
    """Edge to device: the attach took effect. ``missing`` lists the edges whose state has not all arrived."""

    t: Literal["attached"] = "attached"
    incarnation: Counter
    epoch: Counter
    mode: Literal["full", "degraded"]
    missing: Annotated[list[Node], Field(max_length=limits.PREVIOUS_MAX)]
    has: Coverage
    safe: Coverage


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
    """Device to edge: segments, all layers of a batch together; sealed to the edge."""

    t: Literal["upload"] = "upload"
    incarnation: Counter
    epoch: Counter
    segments: SignedSegments


class Ack(Message):
    """Edge to device: what is durable here and what is safe, of the streams concerned."""

    t: Literal["ack"] = "ack"
    incarnation: Counter
    epoch: Counter
    durable: Coverage
    safe: Coverage


class Forward(Message):
    """Edge to cloud: public segments and consents of their streams; sealed to the cloud."""

    t: Literal["forward"] = "forward"
    segments: SignedSegments
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
    consents: Annotated[list[ConsentKey], Field(max_length=1024)]


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
    digest: Annotated[str, Field(min_length=64, max_length=64)]
    source: Annotated[bytes, Field(max_length=limits.POLICY_BYTES_MAX)]


AnyMessage = (
    Beacon
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
    | Rejected
    | PolicyBundle
)

_MESSAGES: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="t")])


def decode(body: bytes) -> AnyMessage:
    """Return the message in an envelope's body. Raises MessageError for anything else."""
    return _validated(_MESSAGES, body)


def decode_part(model: type[Part], body: bytes) -> Part:
    """Return a part that was signed or sealed by itself, such as an :class:`AttachToken`."""
    return _validated(TypeAdapter(model), body)


def _validated(adapter: TypeAdapter[Parsed], body: bytes) -> Parsed:
    value = cbor.loads(body)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise MessageError(f"field {field or 'message'}: {first['msg']}") from error
