"""One smartwatch of the demo: a user's program with a device agent in it, run as a process of its own.

It records its rows in order, keeps its wearer's document of progress, and roams where its data say, while it records;
then it waits until everything is safe and prints, as its last line, what it found on itself. Its wearer agrees to be
counted in statistics. One who is to change that mind does so when told by a file, as a person by what a screen shows.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from datasync.demo import progress
from datasync.demo.comparing import Comparison, compare
from datasync.demo.recordings import CHANNELS, COLLECTION, PRIVATE, DeviceData, load
from datasync.domain.errors import NodeStopped
from datasync.handover.states import DeviceState
from datasync.nodes.agent import Device
from datasync.store import handovers

PIECE_ROWS = 1_000
ROWS_PER_S = 50
STATISTICS = "research.stats"
WAIT_S_MAX = 60.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Journey:
    """One handover as the device lived it; the interruption is from its leave to the next edge's word, in ms."""

    source: str
    target: str
    planned: bool
    mode: str
    interruption_ms: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a watch prints in the end."""

    rows: int
    private_rows: int
    comparison: Comparison
    progress_kept: bool
    journeys: tuple[Journey, ...]


def main() -> int:
    """Run one watch to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--index", type=int, required=True, help="which of the devices this is")
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--start-ms", type=int, required=True, help="when the first sample was taken")
    parser.add_argument("--speed", type=float, required=True, help="times real time; 0 is as fast as it goes")
    parser.add_argument("--withdraw", type=Path, help="stop being counted once this file is there")
    parser.add_argument("--revision", type=int, required=True, help="of the policy, which it waits for in the end")
    said = parser.parse_args()
    data = load(said.seed, said.devices, start_ms=said.start_ms).devices[said.index]
    with Device(said.config) as device:
        until(lambda: device.has_policy, "the policy")
        device.consent(STATISTICS, given=True)
        _record(device, data, said.speed, said.withdraw)
        device.flush()  # its last changes of progress may still be gathered, and are owed to nobody until then
        until(lambda: is_safe(device), "all rows to be safe")
        until(lambda: device.policy_revision == said.revision, f"revision {said.revision} of the policy")
        print(json.dumps(asdict(_told(device, data))), flush=True)
    return 0


def _record(device: Device, data: DeviceData, speed: float, withdraw: Path | None) -> None:
    moves = list(data.moves)
    began = time.monotonic()
    row = 0
    while row < data.rows.num_rows:
        if moves and moves[0].row <= row:
            move = moves.pop(0)
            until(lambda: _is_attached(device), "the previous handover")
            device.move(move.edge, planned=move.planned)
        end = min(row + PIECE_ROWS, data.rows.num_rows, moves[0].row if moves else data.rows.num_rows)
        piece = data.rows.slice(row, end - row)
        device.record(COLLECTION, piece, wait=True)
        device.record(progress.COLLECTION, [progress.change(data, piece, end)])
        row = end
        if withdraw is not None and row >= data.rows.num_rows // 2:
            until(withdraw.exists, "being counted")
            device.consent(STATISTICS, given=False)
            withdraw = None
        print(json.dumps({"rows": row}), flush=True)
        if speed > 0:
            time.sleep(max(0.0, began + row / (ROWS_PER_S * speed) - time.monotonic()))


def _told(device: Device, data: DeviceData) -> Told:
    seen = device.view("watch-coach", COLLECTION, "service.coaching").read_all()
    private = sum(each == PRIVATE for each in data.rows["exercise"].to_pylist())
    documents = device.view("watch-coach", progress.COLLECTION, "service.coaching").read_all().to_pylist()
    kept = [progress.comparable(each) for each in documents] == [progress.expected(data)]
    return Told(data.rows.num_rows, private, compare(data.rows, seen, CHANNELS), kept, _journeys(device))


def _journeys(device: Device) -> tuple[Journey, ...]:
    with device.read() as tx:
        rows = sorted(handovers.all(tx), key=lambda row: row.epoch)
    return tuple(
        Journey(row.detail["from"], row.peer or "", row.planned, row.phase, (row.active_ms or 0) - (row.frozen_ms or 0))
        for row in rows
        if row.detail["from"] is not None
    )


def _is_attached(device: Device) -> bool:
    here = device.whereabouts
    return here.state is DeviceState.ATTACHED and here.wish is None


def is_safe(device: Device) -> bool:
    """Whether an edge serves the device in full, and all of its rows and consents are safe there."""
    return _is_attached(device) and device.whereabouts.mode == "full" and device.owed() == 0


def until(reached: Callable[[], bool], what: str) -> None:
    """Wait until it is so. Raises NodeStopped when it takes too long."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not reached():
        if time.monotonic() > deadline:
            raise NodeStopped(f"waited {WAIT_S_MAX:.0f} s for {what} in vain")
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
