"""What happens while the watches record and roam: a wearer withdraws consent, and a new revision is rolled out.

The wearer withdraws once the cloud's statistics show rows of its watch, so there is something to withdraw. The new
revision takes the position from those statistics; it is what a pull request would change, with the number that says
that it is newer.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from datasync.demo.recordings import COLLECTION, DeviceData
from datasync.demo.town import Node, Town
from datasync.demo.watch import STATISTICS
from datasync.domain.errors import NodeStopped

COUNTER = "cloud-stats"
POLL_S = 0.2
WAIT_S_MAX = 60.0

SECOND = 2
NARROWED = (
    (b"revision: 1 ", b"revision: %d " % SECOND),
    (b"fields: [at, gps, exercise, recording]", b"fields: [at, exercise, recording]"),
)
"""What the second revision of the demo's policy changes."""


@dataclass(frozen=True, slots=True)
class Happened:
    """What was seen meanwhile: rows of the wearer that were counted before it withdrew, and how long either took."""

    withdrew: str
    counted_before: int
    withdrawal_s: float
    columns_before: tuple[str, ...]
    rollout_s: float
    recording: int
    """How many watches had not ended when the second revision was in force."""


class Meanwhile:
    """Watches the cloud's statistics and acts."""

    def __init__(self, town: Town, wearer: DeviceData, withdraw: Path, policy: bytes, all_edges: asyncio.Lock) -> None:
        """``withdraw`` is the file that tells the wearer's watch; ``policy`` the first revision, as in force.

        ``all_edges`` is held while it is waited for every edge, so that none is taken down meanwhile.
        """
        self._all_edges = all_edges
        self._town = town
        self._wearer = wearer
        self._withdraw = withdraw
        self._policy = policy

    async def run(self) -> Happened:
        """Let both happen, one after the other. Raises NodeStopped when one of them does not."""
        await until(self._is_counted, f"{self._wearer.name} to be counted")
        shown = await asyncio.to_thread(statistics, self._town.cloud)
        began = time.monotonic()
        self._withdraw.touch()
        await until(lambda: not self._is_counted(), f"{self._wearer.name} to be counted no longer")
        withdrawal_s = time.monotonic() - began
        async with self._all_edges:
            given = time.monotonic()
            await asyncio.to_thread(self._town.activate, second_revision(self._policy))
            await until(self._all_follow, "every edge to follow the second revision")
        return Happened(
            withdrew=self._wearer.name,
            counted_before=of_wearer(shown, self._wearer),
            withdrawal_s=withdrawal_s,
            columns_before=tuple(shown.column_names),
            rollout_s=time.monotonic() - given,
            recording=sum(node.is_running for node in self._town.devices),
        )

    def _is_counted(self) -> bool:
        return of_wearer(statistics(self._town.cloud), self._wearer) > 0

    def _all_follow(self) -> bool:
        return all(revision(node) == SECOND for node in self._town.servers)


async def until(reached: Callable[[], bool], what: str, wait_s: float = WAIT_S_MAX) -> None:
    """Wait until it is so. Raises NodeStopped when it takes too long."""
    deadline = time.monotonic() + wait_s
    while not await asyncio.to_thread(reached):
        if time.monotonic() > deadline:
            raise NodeStopped(f"waited {wait_s:.0f} s for {what} in vain")
        await asyncio.sleep(POLL_S)


def second_revision(first: bytes) -> bytes:
    """Return the policy that is rolled out while the watches roam."""
    for old, new in NARROWED:
        first = first.replace(old, new)
    return first


def statistics(cloud: Node) -> pa.Table:
    """Return what the cloud counts."""
    return cloud.view(COUNTER, COLLECTION, STATISTICS)


def of_wearer(shown: pa.Table, wearer: DeviceData) -> int:
    """Return how many of the rows are of the wearer's recordings."""
    own = pa.array([recording.number for recording in wearer.recordings], pa.int32())
    return int(pc.sum(pc.is_in(shown["recording"], own)).as_py() or 0)


def revision(node: Node) -> int | None:
    """Return the revision that a server follows."""
    found: int | None = node.admin.get("v1", "admin", "node")["policy_revision"]
    return found
