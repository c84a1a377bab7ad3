"""A device signs what it captured, many small segments at once, and sees to it that its edge gets the signatures.

A collection is signed when enough rows are unsigned, or some time after it was signed last: a reading now and then is
signed as it is taken, and of many that come fast only some signatures are made. A checkpoint goes with the segments
that it signs; where those were sent before, it goes by itself.
"""

from collections.abc import Callable, Iterable, Sized

from datasync.domain import limits
from datasync.domain.tiers import Place
from datasync.nodes.node import Node, Turn
from datasync.store import checkpoints, streams
from datasync.store.checkpoints import Standing
from datasync.store.segments import State, StoredSegment
from datasync.sync.signing import StreamKey, sign

SIGN_ROWS = 64
"""Unsigned rows of a collection that are signed at once: a signature takes about 50 us, so 1 us a row at most."""


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
        self._look_ms: int | None = None

    def begin(self, turn: Turn) -> None:
        """Sign what the process before could not any more."""
        for each in streams.of_device(turn.tx, self._node.name):
            if each.have - each.signed:
                self._unsigned[each.collection] = SIGN_ROWS

    def captured(self, collection: str, rows: int) -> None:
        """Take note of rows that are to be signed."""
        self._unsigned[collection] = self._unsigned.get(collection, 0) + rows

    def look_again(self, turn: Turn) -> None:
        """Send by itself what is owed to an edge that the device attached to."""
        self._loose.clear()
        self._look_ms = turn.now.steady_ms

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
        self._look_soon(turn, signing)
        return [each.body for each in signing]

    def loose(self, turn: Turn) -> list[bytes]:
        """Return the checkpoints to send by themselves, which are looked for again until they are acknowledged."""
        if self._look_ms is not None and turn.now.steady_ms >= self._look_ms:
            owed = checkpoints.owed_of_sent(turn.tx, limit=limits.CHECKPOINTS_CARRIED_MAX)
            self._loose |= {each.id: each.body for each in owed}
            self._look_ms = None
        loose, self._loose = list(self._loose.values()), {}
        self._look_soon(turn, loose)
        turn.effects.wake(self._look_ms)
        return loose

    def carried(self, turn: Turn) -> list[bytes]:
        """Return, everything signed, the checkpoints that the edge before may not have heard of."""
        self.duties(turn, everything=True)
        return [each.body for each in checkpoints.owed_of_sent(turn.tx, limit=limits.CHECKPOINTS_CARRIED_MAX)]

    def _look_soon(self, turn: Turn, sent: Sized) -> None:
        if sent and self._look_ms is None:
            self._look_ms = turn.now.steady_ms + self._node.kit.retry_ms

    def _sign(self, turn: Turn, collection: str) -> None:
        del self._unsigned[collection]
        self._signed_ms[collection] = turn.now.steady_ms
        layers = [each for each in streams.of_device(turn.tx, self._node.name) if each.collection == collection]
        kept = [each for each in layers if each.tier > Place.EDGE.highest_tier]
        sign(turn.tx, kept, self._stream_key, Standing.KNOWN)
        for made in sign(turn.tx, [each for each in layers if each not in kept], self._stream_key, Standing.OWED):
            if any(each.state is not State.WAITING or self._is_flying(each.id) for each in made.segments):
                self._loose[made.id] = made.data
