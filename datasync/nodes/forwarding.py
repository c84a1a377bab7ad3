"""An edge's way to the cloud: public segments and their consents, sent until the cloud has them.

What came in a handover was stored as it came, still sealed; it is verified here before it goes anywhere. What does
not verify is kept back and counted: it is nobody's data.

What the cloud has is told to the devices now and then, in one message for all of it: nothing waits for that word, and
one that is lost with this edge is asked for again.
"""

from datasync.domain.errors import BodyDamaged, KeyUnavailable, MessageError, SegmentInvalid
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.ranges import RangeSet
from datasync.handover import accounts
from datasync.handover.states import EdgeState
from datasync.nodes.node import Node, Turn
from datasync.nodes.source import BACKBONE, DEVICES
from datasync.protocol import segment, topics
from datasync.protocol.messages import Ack, Forward, Stored
from datasync.protocol.parts import ConsentStatement, decode_part
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import consents, segments, streams
from datasync.store.segments import State, StoredSegment
from datasync.sync.sender import Sender

TELL_MS = 100
"""How long a device may have to wait for the word that something is safe."""

_ANNOUNCED = (
    "stream",
    "collection",
    "tier",
    "seq_first",
    "seq_last",
    "rows",
    "captured",
    "time_min_ms",
    "time_max_ms",
    "policy_digest",
    "meta",
)
"""What a segment's stored metadata repeat of its header."""


class Forwarding:
    """What one edge owes the cloud."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.sender = Sender(node.kit.window_bytes, node.kit.retry_ms)
        self._consents_due_ms = 0
        self._safe: dict[NodeName, dict[StreamId, RangeSet]] = {}
        self._tell_due_ms = 0
        node.on(Stored, self._on_stored, Role.CLOUD)

    def duties(self, turn: Turn, cloud: Peer) -> None:
        """Send what is due."""
        for message in self.sender.due(turn.tx, turn.now):
            signed = [blob for each in message if (blob := self._signed(turn, each)) is not None]
            if signed:
                self._send(turn, cloud, Forward(segments=signed, consents=[]))
        turn.effects.wake(self.sender.deadline_ms)
        waiting = consents.waiting(turn.tx, limit=256)
        if waiting and turn.now.steady_ms >= self._consents_due_ms:
            self._consents_due_ms = turn.now.steady_ms + self._node.kit.retry_ms
            statements = [decode_part(ConsentStatement, each.statement) for each in waiting]
            self._send(turn, cloud, Forward(segments=[], consents=statements))
        if waiting:
            turn.effects.wake(self._consents_due_ms)
        self._tell(turn)

    def _send(self, turn: Turn, cloud: Peer, forward: Forward) -> None:
        self._node.send_sealed(turn, BACKBONE, topics.cloud_in(self._node.name), cloud, forward)

    def _signed(self, turn: Turn, each: StoredSegment) -> bytes | None:
        """Return the segment as its stream signed it; None when it is erased meanwhile, or does not verify."""
        body = segments.bodies(turn.tx, [each.id]).get(each.id)
        if body is None:
            self.sender.forget(each)
            return None
        try:
            signed = self._node.kit.vault.decrypt(each.stream, each.key_id, each.seq_first, body)
            if not each.verified:
                check_same(segment.parse(signed), each)
                segments.mark_verified(turn.tx, [each.id])
        except (MessageError, KeyUnavailable, BodyDamaged) as error:
            self._node.note(turn, f"stream {each.stream}", error)
            numbers = RangeSet.of([(each.seq_first, each.seq_last)])
            segments.mark(turn.tx, each.stream, numbers, State.LOCAL, from_states=[State.WAITING])
            self.sender.forget(each)
            return None
        return signed

    def _on_stored(self, turn: Turn, peer: Peer, stored: Stored) -> None:
        self.sender.acknowledge(stored.durable)
        known = streams.get(turn.tx, stored.durable)
        if not self._safe:
            self._tell_due_ms = turn.now.steady_ms + TELL_MS
        for stream, ranges in stored.durable.items():
            if (here := known.get(stream)) is None:
                continue
            segments.mark(turn.tx, stream, ranges, State.SAFE, from_states=[State.WAITING])
            streams.put_safe(turn.tx, {stream: here.safe | ranges})
            if here.device is not None:
                told = self._safe.setdefault(NodeName(here.device), {})
                told[stream] = told.get(stream, RangeSet()) | ranges
        keys = {(each.stream, each.purpose, each.stamp) for each in stored.consents}
        waiting = consents.waiting(turn.tx, limit=1024) if keys else []
        done = [each for each in waiting if (each.stream, each.purpose, each.stamp.pack()) in keys]
        consents.mark(turn.tx, done, State.SAFE)

    def _tell(self, turn: Turn) -> None:
        """Tell devices what is safe, if it is time."""
        if self._safe and turn.now.steady_ms < self._tell_due_ms:
            turn.effects.wake(self._tell_due_ms)
            return
        for device, safe in self._safe.items():
            account = accounts.load(turn.tx, device)
            if account.state is EdgeState.ACTIVE and account.token:
                ack = Ack(incarnation=account.served[0], epoch=account.served[1], durable={}, safe=safe)
                self._node.send(turn, DEVICES, topics.device_down(device), ack)
        self._safe.clear()


def check_same(arrived: segment.Segment, each: StoredSegment) -> None:
    """Raise SegmentInvalid unless a segment is the one that its stored metadata say."""
    header = arrived.header
    if each.hash != arrived.hash or any(getattr(each, name) != getattr(header, name) for name in _ANNOUNCED):
        raise SegmentInvalid(f"the segment at {each.seq_first} of stream {each.stream} is not what was announced")
