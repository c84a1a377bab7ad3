"""An edge verifies the checkpoints that arrived, and shows, and owes the cloud, what they sign."""

from collections.abc import Callable, Iterable, Mapping

from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Tier
from datasync.handover.states import EdgeState
from datasync.nodes.node import Node, Turn
from datasync.nodes.telling import Telling
from datasync.protocol import checkpoint
from datasync.store import attachments, checkpoints, segments
from datasync.store.checkpoints import Standing
from datasync.store.segments import Settled, State, StoredSegment
from datasync.store.streams import Stream
from datasync.sync import verifying
from datasync.sync.verifying import Verified

VERIFY_MS = 20
"""How long what arrived may wait if nothing else arrives: a turn for it alone costs more than many signatures."""

PENDING_MAX = 64
"""Checkpoints that are looked at in one turn."""

_NEVER_OWED = (EdgeState.UNKNOWN, EdgeState.PREPARED, EdgeState.CATCHING_UP, EdgeState.ERASED)
"""What an account in these states has is not, or not yet, this edge's to forward."""


class Verifying:
    """What one edge has to verify; ``look_again(id)`` is called when segments from an id on are owed to the cloud."""

    def __init__(self, node: Node, telling: Telling, look_again: Callable[[int], None]) -> None:
        self._node = node
        self._telling = telling
        self._look_again = look_again
        self._up_to = 0

    def begin(self, turn: Turn) -> None:
        """What arrived before a restart is verified at once."""
        self._up_to = checkpoints.last(turn.tx)

    def duties(self, turn: Turn) -> None:
        """Verify some of what arrived in earlier turns, so that no acknowledgement waits for it."""
        pending = checkpoints.in_standing(turn.tx, Standing.PENDING, limit=PENDING_MAX)
        if not pending:
            return
        due = list(verifying.lot(each for each in pending if each.id <= self._up_to))
        self._up_to = pending[-1].id
        if due:
            self._settle(turn, verifying.verify(turn.tx, due))
        if len(due) < len(pending):
            turn.effects.wake(turn.now.steady_ms + VERIFY_MS)

    def at_once(self, turn: Turn, blobs: Iterable[bytes], known: Mapping[StreamId, Stream]) -> None:
        """Verify now what is here or comes of the device's last checkpoints: what is given away waits for it."""
        checkpoints.arrive(turn.tx, map(checkpoint.parse, blobs), known)
        if pending := checkpoints.pending_of(turn.tx, known):
            self._settle(turn, verifying.verify(turn.tx, pending))

    def _settle(self, turn: Turn, verified: Verified) -> None:
        for stream, error in verified.failures:
            self._node.note(turn, f"stream {stream}", error)
        owners = {each.stream: NodeName(each.device) for each in verified.streams if each.device is not None}
        states = attachments.states(turn.tx, set(owners.values()))
        settled = [
            _settled(each, number, states.get(owners[each.stream], EdgeState.UNKNOWN))
            for each, number in sorted(verified.segments, key=lambda pair: pair[0].id)
        ]
        segments.settle(turn.tx, settled)
        if owed := [each.id for each in settled if each.state is State.WAITING]:
            self._look_again(owed[0])
        for stream, numbers in verified.numbers.items():
            if stream in owners and states.get(owners[stream]) == EdgeState.ACTIVE:
                self._telling.add(turn, owners[stream], signed={stream: numbers})


def _settled(each: StoredSegment, number: int, account: str) -> Settled:
    """Return what becomes of a segment by the state of its device's account."""
    is_owed = each.tier is Tier.PUBLIC and each.state is State.LOCAL and account not in _NEVER_OWED
    state = State.WAITING if is_owed else each.state
    return Settled(each.id, number, account == EdgeState.ACTIVE, state)
