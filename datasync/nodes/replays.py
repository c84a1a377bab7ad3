"""What may not be said twice: the few messages that would have an effect again.

Nearly all messages are idempotent: they are ordered by (incarnation, epoch), by revision, by stamp or by sequence
numbers, so an old one that a broker repeats changes nothing (docs/SECURITY.md has the table). Here is what is left. A
beacon is only the latest if none that was issued later is known. An administrator's advice is carried out once, and
only while it is fresh: a broker may also withhold it.
"""

from sqlalchemy import Connection

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import MessageReplayed
from datasync.domain.limits import PEERS_CACHED_MAX
from datasync.protocol.messages import Advise, Beacon
from datasync.security.recent import Recent
from datasync.security.trust import Peer
from datasync.store import registers

ADVICE_AGE_MS_MAX = 600_000
"""How old an advice may be, and how far ahead, by the clock of the edge that is to follow it."""

_ADVISED = "advised"


class LatestBeacons:
    """The stamp of each node's latest beacon, by the clock of that node, which never goes back."""

    def __init__(self) -> None:
        self._stamps: Recent[tuple[str, str], int] = Recent(PEERS_CACHED_MAX)

    def check(self, peer: Peer, beacon: Beacon) -> None:
        """Raise MessageReplayed for a beacon older than one that was heard; the same one again is fine."""
        signer = (peer.operator, peer.name)
        if beacon.stamp < (self._stamps.get(signer) or 0):
            raise MessageReplayed(f"the beacon of {peer.name} is older than the one that is known")
        self._stamps.put(signer, beacon.stamp)


def check_advice(tx: Connection, advise: Advise, now: Instant) -> None:
    """Raise MessageReplayed for an advice that is not newer than the last one, or not of these minutes."""
    age_ms = now.wall_ms - HybridTime.unpack(advise.stamp).wall_ms
    if abs(age_ms) > ADVICE_AGE_MS_MAX:
        raise MessageReplayed(
            f"the advice to move {advise.device} is {age_ms // 1000} s old", fix="advise again, or set the clocks"
        )
    if advise.stamp <= registers.get(tx, _ADVISED, 0):
        raise MessageReplayed(f"the advice to move {advise.device} was taken before, or a later one was")
    registers.put(tx, _ADVISED, advise.stamp)
