"""An edge's way to the cloud: public segments and their consents, sent until the cloud has them.

Nothing goes anywhere that no checkpoint signs: what is not verified yet waits, and is owed when it is. What cannot be
read is kept back and counted.
"""

from datasync.domain.errors import BodyDamaged, KeyUnavailable, SegmentInvalid
from datasync.domain.ids import NodeName
from datasync.nodes.links import BACKBONE
from datasync.nodes.node import Node, Turn
from datasync.nodes.telling import Telling
from datasync.protocol import topics
from datasync.protocol.messages import Forward, Stored
from datasync.protocol.parts import ConsentStatement, decode_part
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import checkpoints, consents, segments, streams
from datasync.store.opening import open_segment
from datasync.store.segments import State, StoredSegment
from datasync.sync.sender import Sender


class Forwarding:
    """What one edge owes the cloud."""

    def __init__(self, node: Node, telling: Telling) -> None:
        self._node = node
        self._telling = telling
        self.sender = Sender(node.kit.window_bytes, node.kit.retry_ms)
        self._consents_due_ms = 0
        node.on(Stored, self._on_stored, Role.CLOUD)

    def duties(self, turn: Turn, cloud: Peer) -> None:
        """Send what is due."""
        for message in self.sender.due(turn.tx, turn.now):
            signed = {each.id: blob for each in message if (blob := self._opened(turn, each)) is not None}
            if signed:
                signatures = [each.body for each in checkpoints.of_segments(turn.tx, signed)]
                forward = Forward(segments=list(signed.values()), checkpoints=signatures, consents=[])
                self._send(turn, cloud, forward)
        turn.effects.wake(self.sender.deadline_ms)
        waiting = consents.waiting(turn.tx, limit=256)
        if waiting and turn.now.steady_ms >= self._consents_due_ms:
            self._consents_due_ms = turn.now.steady_ms + self._node.kit.retry_ms
            statements = [decode_part(ConsentStatement, each.statement) for each in waiting]
            self._send(turn, cloud, Forward(segments=[], checkpoints=[], consents=statements))
        if waiting:
            turn.effects.wake(self._consents_due_ms)

    def _send(self, turn: Turn, cloud: Peer, forward: Forward) -> None:
        self._node.send_sealed(turn, BACKBONE, topics.cloud_in(self._node.name), cloud, forward)

    def _opened(self, turn: Turn, each: StoredSegment) -> bytes | None:
        """Return the segment as its stream made it; None when it is erased meanwhile, unsigned, or damaged."""
        body = segments.bodies(turn.tx, [each.id]).get(each.id)
        if body is None:
            self.sender.forget(each)
            return None
        if each.checkpoint is None:
            self._keep_back(turn, each)
            return None
        try:
            return open_segment(self._node.kit.vault, each, body).data
        except (SegmentInvalid, KeyUnavailable, BodyDamaged) as error:
            self._node.note(turn, f"stream {each.stream}", error)
            self._keep_back(turn, each)
            return None

    def _keep_back(self, turn: Turn, each: StoredSegment) -> None:
        segments.mark_these(turn.tx, [each.id], State.LOCAL, from_states=[State.WAITING])
        self.sender.forget(each)

    def _on_stored(self, turn: Turn, peer: Peer, stored: Stored) -> None:
        self.sender.acknowledge(stored.durable)
        known = streams.get(turn.tx, stored.durable)
        for stream, ranges in stored.durable.items():
            if (here := known.get(stream)) is None:
                continue
            segments.mark(turn.tx, stream, ranges, State.SAFE, from_states=[State.WAITING])
            streams.put_safe(turn.tx, {stream: here.safe | ranges})
            if here.device is not None:
                self._telling.add(turn, NodeName(here.device), safe={stream: ranges})
        keys = {(each.stream, each.purpose, each.stamp) for each in stored.consents}
        waiting = consents.waiting(turn.tx, limit=1024) if keys else []
        done = [each for each in waiting if (each.stream, each.purpose, each.stamp.pack()) in keys]
        consents.mark(turn.tx, done, State.SAFE)
