"""Parts of messages: strict types with bounds, and what is signed or sealed by itself inside a message.

Every field has a type and a bound, unknown fields are refused, and nothing is coerced: a signer may be right and still
be malicious. Streams are named by id; ``Coverage`` says which sequence numbers of which streams somebody has.
"""

import re
from typing import Annotated, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)

from datasync.domain import limits
from datasync.domain.errors import MessageError
from datasync.domain.ids import NodeName, StreamId, is_hex_id, node_name
from datasync.domain.ranges import RangeSet
from datasync.protocol import cbor
from datasync.security import points

_DIGEST = re.compile(r"[0-9a-f]{64}")


def _ranges(value: object) -> RangeSet:
    if isinstance(value, RangeSet):
        return value
    if not isinstance(value, list) or len(value) > 2 * limits.RANGES_MAX:
        raise ValueError(f"a range set is a list of at most {2 * limits.RANGES_MAX} bounds")
    if not all(type(bound) is int and 0 <= bound <= limits.SEQUENCE_MAX for bound in value):
        raise ValueError(f"bounds are whole numbers up to {limits.SEQUENCE_MAX}")
    ranges = RangeSet.from_list(value)
    if ranges.to_list() != value:
        raise ValueError("ranges come in order and do not touch")  # so that there is one encoding for each set
    return ranges


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("a digest has 64 hexadecimal digits")
    return value


def _text(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a name has no control characters")
    return value


def _hex_id(value: object) -> str:
    if not isinstance(value, str) or not is_hex_id(value):
        raise ValueError("an id has 32 hexadecimal digits")
    return value


def _stream_key(value: bytes) -> bytes:
    points.verify_key(value)
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
Time = Annotated[int, Field(ge=-limits.SEQUENCE_MAX, le=limits.SEQUENCE_MAX)]
Constant = (
    bool
    | Annotated[int, Field(ge=-limits.SEQUENCE_MAX, le=limits.SEQUENCE_MAX)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(max_length=limits.META_TEXT_CHARACTERS_MAX)]
)
Nonce = Annotated[bytes, Field(min_length=16, max_length=16)]
Key = Annotated[bytes, Field(min_length=32, max_length=32)]
StreamKey = Annotated[bytes, AfterValidator(_stream_key)]
Certificate = Annotated[bytes, Field(max_length=4096)]
Name = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARACTERS_MAX), AfterValidator(_text)]
Digest = Annotated[str, PlainValidator(_digest)]
Text = Annotated[str, Field(max_length=1024)]


class Model(BaseModel):
    """A part of a message: strict, closed and immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Part = TypeVar("Part", bound=Model)
Parsed = TypeVar("Parsed")


class StreamNote(Model):
    """A stream made known: its key, and what it carries."""

    public_key: StreamKey
    collection: Name
    tier: Annotated[int, Field(ge=0, le=2)]


class DerivedStream(StreamNote):
    """A stream that a giver made of an original one for the receiving operator, and the terms on which it gives it.

    ``purposes`` None: for all; ``retain_ms`` from the time of capture, None: for ever; ``onward``: it may be given on.
    ``rule`` of the policy's ``revision`` says so, None: none does.
    """

    stands_for: Stream
    purposes: Annotated[list[Name], Field(max_length=limits.CONSENTS_PER_DEVICE_MAX)] | None
    retain_ms: Annotated[int, Field(ge=0, lt=1 << 46)] | None
    onward: bool
    operator: Name
    rule: Name | None
    revision: Counter


class SealedSegment(Model):
    """A segment in handover: its metadata, and its body under a key that only the device can give."""

    stream: Stream
    collection: Name
    tier: Annotated[int, Field(ge=0, le=2)]
    seq_first: Counter
    seq_last: Counter
    rows: Annotated[int, Field(ge=0, le=limits.SEGMENT_ROWS_MAX)]
    captured: Moment
    time_min_ms: Time | None
    time_max_ms: Time | None
    policy_digest: Digest
    meta: Annotated[dict[Name, Constant], Field(max_length=limits.META_ENTRIES_MAX)]
    hash: Digest
    safe: bool
    key_id: HexId
    body: Annotated[bytes, Field(max_length=limits.SEGMENT_BYTES_MAX)]


class ConsentStatement(Model):
    """What a subject said for one stream and purpose, signed with the stream's key."""

    public_key: StreamKey
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


class EraseStatement(Model):
    """A subject wants a stream, the ``generation``-th of its kind, erased everywhere; signed with the stream's key."""

    public_key: StreamKey
    generation: Annotated[int, Field(ge=0, le=limits.GENERATION_MAX)]
    stamp: Moment
    signature: Annotated[bytes, Field(min_length=64, max_length=64)]

    def signed_bytes(self) -> bytes:
        """Return what the signature is over."""
        return cbor.dumps(["datasync/erase", self.public_key, self.generation, self.stamp])


class EraseReceipt(Model):
    """A place's word that it erased a stream, and what was deleted there; signed by the place.

    ``rows`` and ``segments`` are those of the stream and of what stood for it; ``keys`` the data keys that these were
    encrypted under. Of a stream that never was at the place they are 0. ``models`` are those that have learned from the
    stream, by what became of them there.
    """

    stream: Stream
    stamp: Moment
    place: Node
    segments: Counter
    rows: Counter
    keys: Counter
    models_deleted: Counter = 0
    models_retrain: Counter = 0
    models_reported: Counter = 0
    erased_ms: Moment

    CONTEXT: ClassVar[str] = "datasync/erased"


EraseStatements = Annotated[list[EraseStatement], Field(min_length=1, max_length=limits.ERASE_STATEMENTS_MAX)]
EraseReceipts = Annotated[
    list[Annotated[bytes, Field(max_length=limits.ERASE_RECEIPT_BYTES_MAX)]],
    Field(max_length=limits.ERASE_RECEIPTS_MAX),
]
Consents = Annotated[list[ConsentStatement], Field(max_length=1024)]
StreamNotes = Annotated[list[StreamNote], Field(max_length=limits.STREAMS_PER_DEVICE_MAX)]
DerivedStreams = Annotated[list[DerivedStream], Field(max_length=limits.STREAMS_PER_DEVICE_MAX)]
SealedSegments = Annotated[list[SealedSegment], Field(max_length=limits.SEGMENTS_PER_MESSAGE_MAX)]
PlainSegments = Annotated[list[bytes], Field(max_length=limits.SEGMENTS_PER_MESSAGE_MAX)]
_Checkpoint = Annotated[bytes, Field(max_length=limits.CHECKPOINT_BYTES_MAX)]
Checkpoints = Annotated[list[_Checkpoint], Field(max_length=limits.SEGMENTS_PER_MESSAGE_MAX)]
CarriedCheckpoints = Annotated[list[_Checkpoint], Field(max_length=limits.CHECKPOINTS_CARRIED_MAX)]


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


class LineageView(Model):
    """A view that a model was trained on: positions above ``after`` up to ``until``, shown under these policies."""

    collection: Name
    purpose: Name
    after: Moment
    until: Moment
    policies: Annotated[list[Digest], Field(max_length=limits.MODEL_POLICIES_MAX)]


class ModelLineage(Model):
    """A node's word on where a model comes from, as far as it knows; signed by the node.

    ``digest`` is the artefact's SHA-256. The streams that it was itself trained on are told as their number and the
    SHA-256 of their ids, sorted, one after the other, so that the record names nobody's and can still be checked.
    """

    model: HexId
    name: Name
    worker: Name
    node: Node
    label: Annotated[int, Field(ge=0, le=2)]
    parent: HexId | None
    parent_digest: Digest | None
    views: Annotated[list[LineageView], Field(max_length=limits.MODEL_VIEWS_MAX)]
    streams: Counter
    streams_digest: Digest
    policy: Digest
    digest: Digest
    size_bytes: Annotated[int, Field(ge=0, le=limits.MODEL_BYTES_MAX)]
    created_ms: Moment

    CONTEXT: ClassVar[str] = "datasync/model"


class LogHead(Model):
    """Where a log of a node ends: its last entry's number and hash."""

    log: Name
    number: Annotated[int, Field(ge=1, le=limits.SEQUENCE_MAX)]
    hash: Digest


LogHeads = Annotated[list[LogHead], Field(min_length=1, max_length=limits.LOGS_MAX)]


class HeadStatement(Model):
    """The cloud's signed word that a node said that its logs end so; ``stamp`` is that node's."""

    node: Node
    heads: LogHeads
    stamp: Moment

    CONTEXT: ClassVar[str] = "datasync/log-heads"


KeyLists = Annotated[
    dict[Node, Annotated[list[Key], Field(max_length=limits.PREVIOUS_MAX)]], Field(max_length=limits.EDGES_MAX)
]


class SessionKeys(Model):
    """What an attach seals to its target: the new session key, and by edge those under which state may arrive.

    An edge seals under the key of the last attach that reached it, which the device cannot know while it was not
    confirmed; so there can be several for one edge.
    """

    session: Key
    previous: KeyLists


class KeyRing(Model):
    """What a device keeps: its present session key, and by edge those since the last attach confirmed there."""

    session: Key
    by_edge: KeyLists


def decode_part(model: type[Part], body: bytes) -> Part:
    """Return a part that was signed or sealed by itself, such as an :class:`AttachToken`."""
    return parse_as(TypeAdapter(model), body)


def parse_as(adapter: TypeAdapter[Parsed], body: bytes) -> Parsed:
    """Return the value of a type that CBOR encodes. Raises MessageError."""
    value = cbor.loads(body)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise MessageError(f"field {field or 'message'}: {first['msg']}") from error
