"""A device signs what it captured, many small segments at once, and sees to it that its edge gets the signatures.

A collection is signed when enough rows are unsigned, or some time after it was signed last: a reading now and then is
signed as it is taken, and of many that come fast only some signatures are made. A checkpoint goes with the segments
that it signs; where those were sent before, it goes by itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from datasync.domain import limits
from datasync.domain.tiers import Place, Tier
from datasync.nodes.node import Node, Turn
from datasync.store import checkpoints, streams
from datasync.store.checkpoints import Standing, StoredCheckpoint
from datasync.store.segments import State, StoredSegment
from datasync.sync.signing import StreamKey, sign

SIGN_ROWS = 64
"""Unsigned rows of a collection that are signed at once: a signature takes about 50 us, so 1 us a row at most."""


PATIENCE = 4
"""How many times longer than for segments to wait for an answer: it comes later, and a repetition costs a message."""


@dataclass(frozen=True, slots=True)
class _Retry:
    """When a checkpoint that was sent is sent again, and how long after the last time that is."""

    due_ms: int
    interval_ms: int


class Signing:
    """What one device has to sign, and which signatures are under way."""

    def __init__(self, node: Node, stream_key: StreamKey, sign_ms: int, is_flying: Callable[[int], bool]) -> None:
        """``sign_ms`` is the time between two signatures of a collection; 0 signs with every capture.

        ``is_flying(id)`` says whether a segment was sent and not heard of.
        """
        self._node = node
        self._is_flying = is_flying
        self._stream_key = stream_key
        self._sign_ms = sign_ms
        self._unsigned: dict[str, int] = {}
        self._signed_ms: dict[str, int] = {}
        self._loose: dict[int, bytes] = {}
        self._sent: dict[int, _Retry] = {}
        self._looked = False

    def begin(self, turn: Turn) -> None:
        """Sign what the process before could not any more."""
        for each in streams.of_device(turn.tx, self._node.name):
            if each.have - each.signed:
                self._unsigned[each.collection] = SIGN_ROWS

    def captured(self, collection: str, rows: int) -> None:
        """Take note of rows that are to be signed."""
        self._unsigned[collection] = self._unsigned.get(collection, 0) + rows

    def look_again(self) -> None:
        """Send by itself what is owed to an edge that the device attached to."""
        self._loose.clear()
        self._sent.clear()
        self._looked = False

    def acknowledge(self, known: Iterable[StoredCheckpoint]) -> None:
        """The edge has these."""
        for each in known:
            self._sent.pop(each.id, None)

    def duties(self, turn: Turn, *, everything: bool = False) -> None:
        """Sign what is due, or all."""
        for collection, rows in list(self._unsigned.items()):
            due_ms = self._signed_ms.get(collection, turn.now.steady_ms - self._sign_ms) + self._sign_ms
            if everything or rows >= SIGN_ROWS or turn.now.steady_ms >= due_ms:
                self._sign(turn, collection)
            else:
                turn.effects.wake(due_ms)

    def with_segments(self, turn: Turn, sent: Iterable[StoredSegment]) -> list[bytes]:
        """Return the checkpoints to send with these segments."""
        signing = checkpoints.of_segments(turn.tx, [each.id for each in sent])
        for each in signing:
            self._loose.pop(each.id, None)
            if each.standing is Standing.OWED:
                self._note_sent(turn, each.id)
        return [each.body for each in signing]

    def loose(self, turn: Turn) -> list[bytes]:
        """Return the checkpoints to send by themselves; what is not acknowledged is sent again."""
        if not self._looked:
            owed = checkpoints.owed_of_sent(turn.tx, limit=limits.CHECKPOINTS_CARRIED_MAX)
            self._loose |= {each.id: each.body for each in owed if each.id not in self._sent}
            self._looked = len(owed) < limits.CHECKPOINTS_CARRIED_MAX
        overdue = [number for number, each in self._sent.items() if each.due_ms <= turn.now.steady_ms]
        for each in checkpoints.get(turn.tx, overdue):
            if each.standing is Standing.OWED:
                self._loose[each.id] = each.body
            else:
                del self._sent[each.id]
        loose, self._loose = self._loose, {}
        for number in loose:
            self._note_sent(turn, number)
        turn.effects.wake(min((each.due_ms for each in self._sent.values()), default=None))
        return list(loose.values())

    def carried(self, turn: Turn) -> list[bytes]:
        """Return, everything signed, the checkpoints that the edge before may not have heard of."""
        self.duties(turn, everything=True)
        return [each.body for each in checkpoints.owed_of_sent(turn.tx, limit=limits.CHECKPOINTS_CARRIED_MAX)]

    def _note_sent(self, turn: Turn, number: int) -> None:
        before = self._sent.get(number)
        interval_ms = 2 * before.interval_ms if before else PATIENCE * self._node.kit.retry_ms
        interval_ms = min(interval_ms, limits.RETRY_MS_MAX)
        self._sent[number] = _Retry(turn.now.steady_ms + interval_ms, interval_ms)

    def _sign(self, turn: Turn, collection: str) -> None:
        del self._unsigned[collection]
        self._signed_ms[collection] = turn.now.steady_ms
        layers = [each for each in streams.of_device(turn.tx, self._node.name) if each.collection == collection]
        for made in sign(turn.tx, layers, self._stream_key, _standing):
            leaves = _standing(made.segments[0].tier) is Standing.OWED
            if leaves and any(each.state is not State.WAITING or self._is_flying(each.id) for each in made.segments):
                self._loose[made.id] = made.data


def _standing(tier: Tier) -> Standing:
    """Return how far a device's checkpoint is when it is made: what never leaves it is owed to nobody."""
    return Standing.OWED if tier <= Place.EDGE.highest_tier else Standing.KNOWN
