"""Uploading: what a device owes the edge that serves it, segments and the checkpoints that sign them."""

from datasync.domain.errors import BodyDamaged, KeyUnavailable
from datasync.domain.tiers import Place
from datasync.handover.whereabouts import Whereabouts
from datasync.nodes.node import Node, Turn
from datasync.nodes.signing import Signing
from datasync.protocol import topics
from datasync.protocol.messages import Ack, Attached, Upload
from datasync.security.trust import Peer
from datasync.store import segments, streams
from datasync.store.segments import State, StoredSegment
from datasync.sync import progress
from datasync.sync.progress import NOTHING
from datasync.sync.sender import Sender
from datasync.sync.signing import StreamKey


class Uploading:
    """The way of one device's segments to its edge."""

    def __init__(self, node: Node, stream_key: StreamKey, sign_ms: int) -> None:
        self._node = node
        self._sender = Sender(node.kit.window_bytes, node.kit.retry_ms)
        self.signing = Signing(node, stream_key, sign_ms, self._sender.is_flying)

    def restart(self) -> None:
        """Begin again from the database: the device's edge is another one, or what it sent is in doubt."""
        self._sender.restart()

    def duties(self, turn: Turn, edge: Peer, here: Whereabouts) -> None:
        """Send what is due to the edge that the device is at."""
        for message in self._sender.due(turn.tx, turn.now):
            if opened := self._opened(turn, message):
                self._send(turn, edge, here, opened, self.signing.with_segments(turn, message))
        turn.effects.wake(self._sender.deadline_ms)
        if loose := self.signing.loose(turn):
            self._send(turn, edge, here, [], loose)

    def acknowledge(self, turn: Turn, ack: Ack) -> None:
        """Take note of what the edge has."""
        self._sender.acknowledge(ack.durable)
        self.signing.acknowledge(progress.acknowledge(turn.tx, ack.durable, ack.safe, ack.signed))

    def resume(self, turn: Turn, attached: Attached, *, arrived: bool) -> None:
        """Go on from what an edge has that the device attached to, or that has more now."""
        for stream in streams.of_device(turn.tx, self._node.name):
            if stream.tier <= Place.EDGE.highest_tier:
                told = (of.get(stream.stream, NOTHING) for of in (attached.has, attached.safe, attached.signed))
                progress.resume(turn.tx, stream, *told)
        self.signing.look_again()
        if arrived:
            self._sender.restart()
        else:
            self._sender.look_again()

    def _send(self, turn: Turn, edge: Peer, here: Whereabouts, opened: list[bytes], signatures: list[bytes]) -> None:
        upload = Upload(incarnation=here.incarnation, epoch=here.epoch, segments=opened, checkpoints=signatures)
        self._node.send_sealed(turn, edge.name, topics.device_segments(self._node.name), edge, upload)

    def _opened(self, turn: Turn, stored: list[StoredSegment]) -> list[bytes]:
        """Return segments as they were made; one that the disk damaged is kept back and noted."""
        bodies = segments.bodies(turn.tx, [each.id for each in stored])
        opened = []
        for each in stored:
            try:
                body = bodies.get(each.id, b"")
                opened.append(self._node.kit.vault.decrypt(each.stream, each.key_id, each.seq_first, body))
            except (KeyUnavailable, BodyDamaged) as error:
                self._node.note(turn, f"stream {each.stream}", error)
                segments.mark_these(turn.tx, [each.id], State.LOCAL, from_states=[State.WAITING])
                self._sender.forget(each)
        return opened
