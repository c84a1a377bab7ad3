"""An edge verifies the checkpoints that arrived, and shows, and owes the cloud, what they sign."""

from collections.abc import Callable, Iterable, Mapping

from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Tier
from datasync.handover import accounts
from datasync.handover.machine import Account
from datasync.handover.states import EdgeState
from datasync.nodes.node import Node, Turn
from datasync.nodes.telling import Telling
from datasync.protocol import checkpoint
from datasync.store import checkpoints, segments
from datasync.store.checkpoints import Standing
from datasync.store.segments import State, StoredSegment
from datasync.store.streams import Stream
from datasync.sync import verifying
from datasync.sync.verifying import Verified

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
        self._apply(turn, verifying.verify(turn.tx, self._up_to))
        self._up_to = checkpoints.last(turn.tx)
        if checkpoints.in_standing(turn.tx, Standing.PENDING, limit=1):
            turn.effects.wake(turn.now.steady_ms)

    def at_once(self, turn: Turn, blobs: Iterable[bytes], known: Mapping[StreamId, Stream]) -> None:
        """Verify now what is here or comes of the device's last checkpoints: what is given away waits for it."""
        checkpoints.arrive(turn.tx, map(checkpoint.parse, blobs), known)
        self._apply(turn, verifying.verify_these(turn.tx, checkpoints.pending_of(turn.tx, known)))

    def _apply(self, turn: Turn, verified: Verified) -> None:
        for stream, error in verified.failures:
            self._node.note(turn, f"stream {stream}", error)
        owners = {each.stream: NodeName(each.device) for each in verified.streams if each.device is not None}
        known = {device: accounts.load(turn.tx, device) for device in set(owners.values())}
        self._settle(turn, verified.segments, {stream: known[device] for stream, device in owners.items()})
        for stream, numbers in verified.numbers.items():
            if stream in owners and known[owners[stream]].state is EdgeState.ACTIVE:
                self._telling.add(turn, owners[stream], signed={stream: numbers})

    def _settle(self, turn: Turn, signed: list[StoredSegment], accounts_of: Mapping[StreamId, Account]) -> None:
        shown, owed = [], []
        for each in sorted(signed, key=lambda each: each.id):
            state = accounts_of[each.stream].state
            if state is EdgeState.ACTIVE:
                shown.append(each.id)
            if each.tier is Tier.PUBLIC and each.state is State.LOCAL and state not in _NEVER_OWED:
                owed.append(each.id)
        segments.show(turn.tx, shown)
        if owed:
            segments.mark_these(turn.tx, owed, State.WAITING, from_states=[State.LOCAL])
            self._look_again(owed[0])
