"""Two visits to another operator's edge, and what its coach then sees: one wearer agreed to roaming, one did not."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datasync.demo import progress
from datasync.demo.comparing import Comparison, compare
from datasync.demo.recordings import COLLECTION, PRIVATE, DemoData, DeviceData
from datasync.demo.town import Node, Town
from datasync.domain.errors import NodeStopped

COACHING = "service.coaching"
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Visit:
    """What the other operator's coach sees of a device that came.

    ``rows`` are compared with all that may move; ``columns`` are those with any value; ``documents`` are of progress.
    ``linked`` says whether a pseudonym is one that the device's own operator sees.
    """

    device: str
    agreed: bool
    rows: Comparison
    columns: tuple[str, ...]
    documents: tuple[dict[str, object], ...]
    linked: bool
    ms: int

    @property
    def is_clean(self) -> bool:
        """Whether the other operator has what the policy says: all of that with consent, and nothing without."""
        moved = self.rows.found > 0 and len(self.documents) == 1
        return self.rows.is_clean and not self.linked and (moved if self.agreed else not self.documents)


async def visits(town: Town, data: DemoData) -> tuple[Visit, ...]:
    """Let the first device visit with its wearer's consent, and the second, if there is one, without."""
    at_home = await asyncio.to_thread(_pseudonyms, town.edges)
    found = []
    for node, device, agreed in zip(town.devices, data.devices, (True, False), strict=False):
        before = await asyncio.to_thread(_documents, town.hub)
        ms = await _go(node, town.hub, agree=agreed)
        found.append(await asyncio.to_thread(_look, town.hub, device, agreed, before, at_home, ms))
    return tuple(found)


async def _go(node: Node, hub: Node, *, agree: bool) -> int:
    said = ["--config", str(node.config), "--edge", str(hub.name), *(["--agree"] if agree else [])]
    node.run([sys.executable, "-m", "datasync.demo.visit", *said])
    while node.is_running:
        await asyncio.sleep(POLL_S)
    printed = node.log.read_text(errors="replace")
    if node.process is not None and node.process.returncode:
        raise NodeStopped(f"the visit of {node.name} failed", where=str(node.log), fix=printed[-2000:])
    return int(json.loads(printed.splitlines()[-1])["ms"])


def _look(
    hub: Node, device: DeviceData, agreed: bool, before: Sequence[dict[str, object]], at_home: set[str], ms: int
) -> Visit:
    seen = hub.view("hub-coach", COLLECTION, COACHING)
    own = pa.array([recording.number for recording in device.recordings], pa.int32())
    of_device = seen.filter(pc.is_in(seen["recording"], own))
    may_move = pa.Table.from_batches([device.rows]).filter(pc.not_equal(device.rows["exercise"], PRIVATE))
    documents = tuple(each for each in _documents(hub) if each not in before)
    return Visit(
        device=device.name,
        agreed=agreed,
        rows=compare(may_move if agreed else may_move.slice(0, 0), of_device, ()),
        columns=tuple(name for name in of_device.column_names if of_device[name].null_count < of_device.num_rows),
        documents=documents,
        linked=bool(set(of_device["user_id"].to_pylist()) & at_home),
        ms=ms,
    )


def _documents(hub: Node) -> list[dict[str, object]]:
    found = hub.view("hub-coach", progress.COLLECTION, COACHING)
    return [progress.comparable(each) for each in found.to_pylist()]


def _pseudonyms(edges: Sequence[Node]) -> set[str]:
    return {name for edge in edges for name in edge.view("edge-coach", COLLECTION, COACHING)["user_id"].to_pylist()}
