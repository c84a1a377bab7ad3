"""Devices that are measured: programs with a ``datasync.Device`` each, in a process that has nothing else to do.

A row counts as done when the edge has acknowledged every layer of it that may leave the device, after the edge's commit
with ``synchronous=FULL``, and the device has noted that in its own database: it has no waiting segment then. A program
can only ask for that. It asks every millisecond, later less often, so that asking takes little of the processor: up to
a sixteenth of a latency is that of the question.

Talks by lines: says ``ready`` when all devices are attached and have sent rows once, begins at the next line, says
what it found as JSON, and ends when its input ends.
"""

import argparse
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pyarrow as pa

from datasync.demo.recordings import COLLECTION, SUBJECTS_MAX, load
from datasync.handover.states import DeviceState
from datasync.nodes.agent import Device
from datasync.store.segments import State

POLL_S = 0.001
POLL_SHARE = 1 / 16
"""How long to wait before asking again, of the time waited so far."""

WAIT_S_MAX = 120.0
START_MS = 1_800_000_000_000
AT_EDGE, AT_CLOUD = (State.WAITING,), (State.WAITING, State.DURABLE)
"""What is not yet durable at the edge, and what is not yet safe in the cloud."""


class Recorder:
    """One device, and the program that records with it."""

    def __init__(self, device: Device, database: Path, rows: pa.RecordBatch) -> None:
        self.latencies_ms: list[float] = []
        self.at_edge_s = 0.0
        self._device = device
        self._rows = rows
        self._database = sqlite3.connect(f"file:{database}?mode=ro", uri=True, check_same_thread=False)

    def begin(self, batch: int) -> None:
        """Wait until the device is attached; send rows once, for which streams and keys are made."""
        _until(lambda: self._device.has_policy and self._device.whereabouts.state is DeviceState.ATTACHED)
        self._device.record(COLLECTION, self._rows.slice(0, batch), wait=True)
        self.wait_for(AT_CLOUD)

    def record(self, count: int, batch: int) -> None:
        """Record rows in batches: large ones as fast as they go, single ones each when the last is done."""
        for start in range(0, count, batch):
            began = time.perf_counter()
            piece = self._rows.slice(start % (self._rows.num_rows - batch), batch)
            self._device.record(COLLECTION, piece, wait=batch == 1)
            if batch == 1:
                self.wait_for(AT_EDGE)
                self.latencies_ms.append((time.perf_counter() - began) * 1_000)
        self._device.flush()
        self.wait_for(AT_EDGE)
        self.at_edge_s = time.time()

    def wait_for(self, states: tuple[State, ...]) -> None:
        """Return when no segment is in one of these states."""
        _until(lambda: not self._has(states))

    def close(self) -> None:
        self._database.close()

    def _has(self, states: tuple[State, ...]) -> bool:
        listed = ", ".join(str(int(state)) for state in states)
        (found,) = self._database.execute(
            f"SELECT EXISTS (SELECT 1 FROM segments WHERE state IN ({listed}))"
        ).fetchone()
        return bool(found)


def main() -> int:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, required=True, help="of each device")
    parser.add_argument("--batch", type=int, required=True)
    said = parser.parse_args()
    rows = load(1, SUBJECTS_MAX, start_ms=START_MS).devices[0].rows
    with ExitStack() as stack:
        recorders = []
        for config in said.configs:
            device = stack.enter_context(Device(config))
            recorders.append(stack.enter_context(closing(Recorder(device, config.parent / "data.db", rows))))
        for each in recorders:
            each.begin(said.batch)
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(_measure(recorders, said.rows, said.batch)), flush=True)
        sys.stdin.read()
    return 0


def _measure(recorders: list[Recorder], rows: int, batch: int) -> dict[str, object]:
    began_s, cpu_s = time.time(), time.process_time()
    threads = [threading.Thread(target=each.record, args=(rows, batch)) for each in recorders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in recorders:
        each.wait_for(AT_CLOUD)
    return {
        "began_s": began_s,
        "at_edge_s": max(each.at_edge_s for each in recorders),
        "at_cloud_s": time.time(),
        "cpu_s": time.process_time() - cpu_s,
        "latencies_ms": [latency for each in recorders for latency in each.latencies_ms],
    }


def _until(reached: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not reached():
        waited_s = time.monotonic() - began
        if waited_s > WAIT_S_MAX:
            raise TimeoutError(f"waited {WAIT_S_MAX:.0f} s in vain")
        time.sleep(max(POLL_S, waited_s * POLL_SHARE))


if __name__ == "__main__":
    sys.exit(main())
