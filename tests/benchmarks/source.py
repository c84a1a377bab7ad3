"""A device that is measured: records rows and says when the edge has them durably.

Run as a process of its own, so that device and edge share nothing but the machine. A row counts as done when the
edge has acknowledged, after its commit with ``synchronous=FULL``, every layer that may leave the device.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from datasync.demo.recordings import COLLECTION, SUBJECTS_MAX, load
from datasync.handover.states import DeviceState
from datasync.nodes.agent import Device
from datasync.store import segments
from datasync.store.segments import State

POLL_S = 0.001
WAIT_S_MAX = 120.0


def main() -> int:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--rows", type=int, required=True, help="of each device")
    parser.add_argument("--batch", type=int, required=True)
    said = parser.parse_args()
    rows = pa.Table.from_batches([load(1, SUBJECTS_MAX, start_ms=1_800_000_000_000).devices[0].rows])
    results: list[dict[str, object]] = []
    devices = [Device(path) for path in said.config]
    for device in devices:
        device.__enter__()
        _until(lambda device=device: device.has_policy and device.whereabouts.state is DeviceState.ATTACHED)
    began = time.perf_counter()
    threads = [
        threading.Thread(target=_measure, args=(device, rows, said.rows, said.batch, results)) for device in devices
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for device in devices:
        device.close()
    latencies_ms = sorted(each for result in results for each in result["latencies_ms"])  # type: ignore[attr-defined]
    print(json.dumps({"rows": said.rows * len(devices), "seconds": seconds, **_quantiles(latencies_ms)}), flush=True)
    return 0


def _measure(device: Device, rows: pa.Table, count: int, batch: int, results: list[dict[str, object]]) -> None:
    """Record ``count`` rows in batches: large ones as fast as they go, single ones each when the last is done."""
    latencies_ms = []
    for start in range(0, count, batch):
        began = time.perf_counter()
        device.record(COLLECTION, rows.slice(start % (rows.num_rows - batch), batch), wait=batch == 1)
        if batch == 1:
            _until(lambda: _waiting(device) == 0)
            latencies_ms.append((time.perf_counter() - began) * 1000)
    device.flush()
    _until(lambda: _waiting(device) == 0)
    results.append({"latencies_ms": latencies_ms})


def _waiting(device: Device) -> int:
    with device.read() as tx:
        return segments.count(tx, [State.WAITING])


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError("the edge did not acknowledge in time")
        time.sleep(POLL_S)


def _quantiles(ordered_ms: list[float]) -> dict[str, float]:
    if not ordered_ms:
        return {}
    return {"p50_ms": statistics.median(ordered_ms), "p95_ms": ordered_ms[int(0.95 * (len(ordered_ms) - 1))]}


if __name__ == "__main__":
    sys.exit(main())
