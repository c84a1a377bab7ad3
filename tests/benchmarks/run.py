"""Benchmarks: ``make bench``. Every figure is measured in this run, on real processes and a real Mosquitto.

What is on: split and transforms by the demo's policy (13 fields, 8 transform steps), one signature for each segment
and message, sealing to the edge, encryption at rest at device and edge, acknowledgement after the edge's commit with
``synchronous=FULL``, and meanwhile the edge's forwarding to the cloud. No peer is measured beside it yet.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from datasync.demo.recordings import COLLECTION
from datasync.demo.town import Node, Town
from datasync.views.client import open_view
from tests.benchmarks import parts
from tests.benchmarks.figures import Figure, figure
from tests.benchmarks.site import site

SINGLE_DEVICES = 8


def main() -> int:
    """Measure everything, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    said = parser.parse_args()
    repetitions, rows, single_rows = (1, 20_000, 50) if said.quick else (5, 100_000, 200)
    load = os.getloadavg()[0]
    figures = [
        *parts.measure(repetitions),
        *_ingest(repetitions, rows, single_rows),
    ]
    print(f"{os.cpu_count()} cores, load average {load:.1f} before and {os.getloadavg()[0]:.1f} after")
    for each in figures:
        print(
            f"{each.what:58} {each.rows_per_s:12,.0f} rows/s  ({each.lowest:,.0f} to {each.highest:,.0f}) {each.note}"
        )
    if said.json is not None:
        said.json.write_text(json.dumps({"load": load, "figures": [asdict(each) for each in figures]}, indent=2))
    return 0


def _ingest(repetitions: int, rows: int, single_rows: int) -> list[Figure]:
    batched, single, views, notes = [], [], [], []
    for number in range(repetitions):
        _say(f"ingest and views, repetition {number + 1} of {repetitions}")
        names = ["bulk", *(f"single-{index}" for index in range(SINGLE_DEVICES))]
        with tempfile.TemporaryDirectory() as folder, site(Path(folder), names) as town:
            result = _source(town.devices[:1], rows, 1000)
            batched.append(result["rows"] / result["seconds"])
            views += _views(town)
            result = _source(town.devices[1:], single_rows, 1)
            single.append(result["rows"] / result["seconds"])
            notes.append((result["p50_ms"], result["p95_ms"]))
    latency = (
        f"p50 {statistics.median(n[0] for n in notes):.1f} ms, p95 {statistics.median(n[1] for n in notes):.1f} ms"
    )
    return [
        figure("ingest device → edge, 1000-row batches, 1 device", batched),
        figure(f"ingest device → edge, single rows, {SINGLE_DEVICES} devices, each acked", single, latency),
        figure("view over HTTP as Arrow, 1000-row segments, 2 layers", views),
    ]


def _source(nodes: Sequence[Node], rows: int, batch: int) -> dict[str, float]:
    for node in nodes:
        config = node.config.read_text()
        node.config.write_text(f"{config}\n[capture]\nflush_rows = {batch}\n")
    command = [sys.executable, "-m", "tests.benchmarks.source", "--rows", str(rows), "--batch", str(batch), "--config"]
    done = subprocess.run([*command, *(str(node.config) for node in nodes)], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _views(town: Town) -> list[float]:
    edge = town.edges[0]

    def read() -> int:
        return open_view(edge.url, edge.tokens["edge-trainer"], COLLECTION, "improve.train").read_all().num_rows

    return [rate(read) for _ in range(3)]


def rate(work: Callable[[], int]) -> float:
    """Return rows per second of work that returns how many rows it did."""
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
