"""What an edge tells its devices now and then: what is safe, and which checkpoints were verified.

Nothing waits for that word, so it goes with the next acknowledgement of an upload or soon by a message of its own; one
that is lost with this edge is asked for again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from datasync.domain.ids import NodeName, StreamId
from datasync.domain.ranges import RangeSet
from datasync.handover import accounts
from datasync.handover.states import EdgeState
from datasync.nodes.links import DEVICES
from datasync.nodes.node import Node, Turn
from datasync.protocol import topics
from datasync.protocol.messages import Ack

TELL_MS = 400
"""How long a device may have to wait: long enough for both to be told at once, as each message costs it a commit."""

Ranges = Mapping[StreamId, RangeSet]


@dataclass(slots=True)
class Word:
    """What one device is to be told."""

    safe: dict[StreamId, RangeSet] = field(default_factory=dict)
    signed: dict[StreamId, RangeSet] = field(default_factory=dict)


class Telling:
    """What one edge's devices are to be told."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._words: dict[NodeName, Word] = {}
        self._due_ms = 0

    def add(self, turn: Turn, device: NodeName, *, safe: Ranges | None = None, signed: Ranges | None = None) -> None:
        """Let a device be told."""
        if not self._words:
            self._due_ms = turn.now.steady_ms + TELL_MS
        word = self._words.setdefault(device, Word())
        for told, more in ((word.safe, safe), (word.signed, signed)):
            for stream, numbers in (more or {}).items():
                told[stream] = told.get(stream, RangeSet()) | numbers

    def take(self, device: NodeName) -> Word:
        """Return what a device is to be told: it is told now."""
        return self._words.pop(device, Word())

    def duties(self, turn: Turn) -> None:
        """Tell devices, if it is time."""
        if not self._words:
            return
        if turn.now.steady_ms < self._due_ms:
            turn.effects.wake(self._due_ms)
            return
        for device, word in self._words.items():
            account = accounts.load(turn.tx, device)
            if account.state is EdgeState.ACTIVE and account.token:
                incarnation, epoch = account.served
                ack = Ack(incarnation=incarnation, epoch=epoch, durable={}, safe=word.safe, signed=word.signed)
                self._node.send(turn, DEVICES, topics.device_down(device), ack)
        self._words.clear()
