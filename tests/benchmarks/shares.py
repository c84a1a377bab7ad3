"""Where the time goes: the device and the edge once more, under the sampler, which itself slows them a little.

The shares are of processor time by stage, and of the real time of the thread in which a node's transactions run; that
thread's ``waiting for work`` says how far from busy it was.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.ingest import record
from tests.benchmarks.site import site
from tests.benchmarks.stages import IDLE

FUNCTIONS_SHOWN = 15
WRITTEN_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Shares:
    """One process's time: ``stages`` in µs of processor time for each row, ``node`` in shares of the thread's time."""

    what: str
    process: str
    rows: int
    samples: int
    cpu_us_per_row: float
    stages: dict[str, float]
    node: dict[str, float]
    functions: dict[str, float]


def measure(what: str, devices: int, rows: int, batch: int) -> list[Shares]:
    """Return the shares of a process with the devices, and of their edge, while each device records ``rows`` rows."""
    names = [f"sampled-{index}" for index in range(devices)]
    with tempfile.TemporaryDirectory() as temporary:
        results = {name: Path(temporary) / f"{name}.json" for name in ("device", "edge")}
        with site(Path(temporary), names, edge_samples=results["edge"]) as place:
            outcome = record(place, names, rows, batch, device_samples=results["device"])
            return [_shares(what, name, outcome.rows, _written(path)) for name, path in results.items()]


def lines(shares: Shares) -> list[str]:
    """Return a table of one process's time, the largest share first."""
    total = sum(shares.stages.values())

    def line(name: str, width: int, used: float) -> str:
        return f"{name:{width}} {used / total:6.1%} {used:11.2f} µs/row"

    stages = [
        f"  {line(stage, 32, used)} {shares.node.get(stage, 0.0):14.1%}"
        for stage, used in [*_largest(shares.stages), (IDLE, 0.0)]
    ]
    functions = [f"    {line(name, 56, used)}" for name, used in _largest(shares.functions)[:FUNCTIONS_SHOWN]]
    return [
        f"{shares.what}, {shares.process}: {shares.cpu_us_per_row:.2f} µs of processor time per row",
        f"  {shares.samples} samples{'':16} of its processor time      of the node thread",
        *stages,
        "    the functions with most of it, with what they call outside of datasync",
        *functions,
    ]


def _largest(shares: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda each: -each[1])


def _written(path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + WRITTEN_S_MAX
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the sampler did not write {path}")
        time.sleep(0.01)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _shares(what: str, process: str, rows: int, found: dict[str, Any]) -> Shares:
    node_s = sum(found["node_s"].values()) or 1.0
    return Shares(
        what,
        process,
        rows,
        found["samples"],
        1e6 * found["process_cpu_s"] / rows,
        {stage: 1e6 * seconds / rows for stage, seconds in found["cpu_s"].items()},
        {stage: seconds / node_s for stage, seconds in found["node_s"].items()},
        {name: 1e6 * seconds / rows for name, seconds in found["functions_s"].items()},
    )
