"""Consent statements on their way.

Each is signed with its stream's key, so that whoever passes it on need not be believed.
"""

from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidSignature
from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.clock import HybridTime
from datasync.domain.errors import Conflict, MessageError, NotFound, PolicyMissing, SignatureInvalid
from datasync.domain.ids import StreamId, stream_id
from datasync.domain.tiers import Place, Tier
from datasync.nodes.node import Node, Turn
from datasync.policy.problems import nearest
from datasync.protocol import cbor
from datasync.protocol.parts import ConsentKey, ConsentStatement, decode_part
from datasync.security import points
from datasync.store import consents, streams
from datasync.store.consents import Consent, Said
from datasync.store.segments import State
from datasync.store.streams import Stream
from datasync.sync.capture import own_streams

_SAID = "said"
"""By purpose, what the device's subject said last, and when."""


def take_consents(
    tx: Connection, place: Place, statements: Iterable[ConsentStatement], known: Mapping[StreamId, Stream]
) -> list[ConsentKey]:
    """Store the statements of known streams and return which those are; the others are to be sent again.

    ``known`` are the streams of one device, or at the cloud those that are spoken of. Raises SignatureInvalid when a
    statement was not signed by its stream, and MessageError when a device has too many; then none was stored.
    """
    ours = [each for each in statements if stream_id(each.public_key) in known]
    for each in ours:
        _verify(each)
    if ours and place is Place.EDGE:
        _check_number(tx, ours, known)
    taken = []
    for each in ours:
        stream = known[stream_id(each.public_key)]
        consents.put(tx, as_stored(stream.stream, each, _arrived(place, stream.tier)))
        taken.append(ConsentKey(stream=stream.stream, purpose=each.purpose, stamp=each.stamp))
    return taken


def _arrived(place: Place, tier: Tier) -> State:
    """The state of what a stream said when it arrives: an edge owes it to the cloud where that has the stream."""
    return State.WAITING if place is Place.EDGE and tier is Tier.PUBLIC else State.LOCAL


def stated(tx: Connection, spoken_of: Iterable[StreamId]) -> list[ConsentStatement]:
    """Return what these streams are known to have said, as they signed it."""
    return [decode_part(ConsentStatement, each.statement) for each in consents.of_streams(tx, spoken_of)]


class Voice:
    """What a device's subject said, for every stream that the device has and for those that it opens later."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._repeated: set[str] = set()

    def say(self, turn: Turn, purpose: str, given: bool) -> None:
        """Allow a purpose of the policy, or ``roaming``, from now on, or no longer allow it.

        Raises PolicyMissing, NotFound, and Conflict when there are more consents than move in one message.
        """
        policy = self._node.policy
        if policy is None:
            raise PolicyMissing("there is no policy yet that says what may be allowed")
        if purpose not in policy.basis:
            raise NotFound(f"the policy has no purpose {purpose!r}", fix=nearest(purpose, policy.basis))
        now = Said(given, self._node.stamp(turn.now))
        said = consents.said(turn.tx) | {purpose: now}
        known = streams.of_device(turn.tx, self._node.name)
        if len(said) * len(known) > limits.CONSENTS_PER_DEVICE_MAX:
            raise Conflict(f"{len(known)} streams have consents for {len(said) - 1} purposes already")
        consents.put_said(turn.tx, said)
        for stream in known:
            self._state(turn, stream, purpose, now)

    def repeat(self, turn: Turn, collection: str) -> None:
        """Say again, for the streams of a collection that rows were captured of, what was said before they were."""
        if collection in self._repeated:
            return
        self._repeated.add(collection)
        for stream in own_streams(turn.tx, self._node.name, collection).values():
            for purpose, said in consents.said(turn.tx).items():
                self._state(turn, stream, purpose, said)

    def tell_again(self, turn: Turn) -> None:
        """Let everything be sent again: the edge that had it may be gone, and another one serves the device."""
        known = [stream.stream for stream in streams.of_device(turn.tx, self._node.name)]
        told = [each for each in consents.of_streams(turn.tx, known) if each.state is State.SAFE]
        consents.mark(turn.tx, told, State.WAITING)

    def statements(self, turn: Turn) -> list[ConsentStatement]:
        """Return what edges may know, for one that must not show anything before it knows it."""
        known = streams.of_device(turn.tx, self._node.name)
        within = [stream.stream for stream in known if stream.tier <= Place.EDGE.highest_tier]
        return [decode_part(ConsentStatement, each.statement) for each in consents.of_streams(turn.tx, within)]

    def begin_anew(self, turn: Turn) -> None:
        """What is captured from now on says the same under stamps of its own: the old ones would link it to the old."""
        self._repeated.clear()
        said = {
            purpose: Said(each.given, self._node.stamp(turn.now)) for purpose, each in consents.said(turn.tx).items()
        }
        consents.put_said(turn.tx, said)

    def forget(self) -> None:
        """Under another policy a collection may have other streams."""
        self._repeated.clear()

    def _state(self, turn: Turn, stream: Stream, purpose: str, said: Said) -> None:
        key = self._node.kit.identity.stream_key(stream.collection, stream.tier, stream.generation)
        unsigned = ConsentStatement(
            public_key=stream.public_key,
            purpose=purpose,
            given=said.given,
            stamp=said.stamp.pack(),
            signature=bytes(64),
        )
        statement = unsigned.model_copy(update={"signature": key.sign(unsigned.signed_bytes())})
        state = State.LOCAL if stream.tier is Tier.USER_PRIVATE else State.WAITING
        consents.put(turn.tx, as_stored(stream.stream, statement, state))


def as_stored(stream: StreamId, said: ConsentStatement, state: State) -> Consent:
    """Return a statement as the store keeps it."""
    stamp, signed = HybridTime.unpack(said.stamp), cbor.dumps(said.model_dump())
    return Consent(stream, said.purpose, said.given, stamp, signed, state)


def _check_number(tx: Connection, ours: Iterable[ConsentStatement], known: Iterable[StreamId]) -> None:
    said = {(each.stream, each.purpose) for each in consents.of_streams(tx, known)}
    said |= {(stream_id(each.public_key), each.purpose) for each in ours}
    if len(said) > limits.CONSENTS_PER_DEVICE_MAX:
        raise MessageError(f"a device has at most {limits.CONSENTS_PER_DEVICE_MAX} consents", fix="use fewer purposes")


def _verify(said: ConsentStatement) -> None:
    try:
        points.verify_key(said.public_key).verify(said.signature, said.signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise SignatureInvalid(f"the consent for {said.purpose!r} is not signed by its stream") from error
