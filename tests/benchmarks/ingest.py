"""Durable ingest, device → edge over Mosquitto, while the edge forwards what is public to the cloud.

All of it is on: split and transforms on the device, signatures over segments and of each message, sealing to the edge,
encryption at rest in every place, acknowledgement after the edge's commit. Devices are spread over several processes,
because devices in the field do not share an interpreter and its lock.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import cpu_seconds
from tests.benchmarks.site import Site, command_of

DEVICES_PER_PROCESS = 8
STOP_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one recording took: seconds until everything was at the edge, and in the cloud; latencies in order."""

    rows: int
    at_edge_s: float
    at_cloud_s: float
    latencies_ms: tuple[float, ...]
    cpu_s: dict[str, float]
    """Processor seconds by process, from the first row until all was in the cloud."""


def record(site: Site, devices: Sequence[str], rows: int, batch: int, *, device_samples: Path | None = None) -> Outcome:
    """Let every device record ``rows`` rows in batches, all at one time, and return what it took.

    With ``device_samples`` the devices run in one process under the sampler; it, and an edge that was started so,
    sample while rows are on their way.
    """
    processes = 1 if device_samples else max(os.cpu_count() or 1, len(devices) // DEVICES_PER_PROCESS)
    groups = [devices[first::processes] for first in range(min(processes, len(devices)))]
    options = ["--rows", str(rows), "--batch", str(batch)]
    with _programs(site, groups, options, device_samples) as programs:
        sampled = [programs[0].pid, site.processes["edge"]] if device_samples else []
        before = {name: cpu_seconds(process) for name, process in site.processes.items()}
        _signal(sampled, signal.SIGUSR1)
        for program in programs:
            _tell(program)
        found = [json.loads(_line(program)) for program in programs]
        _signal(sampled, signal.SIGUSR2)
        servers = {name: cpu_seconds(process) - before[name] for name, process in site.processes.items()}
    return _outcome(found, rows * len(devices), servers)


@contextmanager
def _programs(
    site: Site, groups: Sequence[Sequence[str]], options: Sequence[str], samples: Path | None
) -> Iterator[list["subprocess.Popen[str]"]]:
    """Start the recorders of groups of devices, give them when all are ready, and end them."""
    for name in (name for group in groups for name in group):
        config = site.devices[name].config
        config.write_text(f"{config.read_text()}\n[capture]\nflush_rows = {options[-1]}\n")
    command = [*command_of(samples, bare=site.bare), "tests.benchmarks.recorder", *options]
    programs = [
        subprocess.Popen(
            [*command, *(str(site.devices[name].config) for name in group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for group in groups
    ]
    try:
        for program in programs:
            _line(program)
        yield programs
        for program in programs:
            program.communicate(timeout=STOP_S_MAX)
    finally:
        for program in programs:
            program.kill()
            program.communicate()


def _outcome(found: Sequence[dict[str, Any]], rows: int, servers: dict[str, float]) -> Outcome:
    began_s = min(each["began_s"] for each in found)
    return Outcome(
        rows,
        max(each["at_edge_s"] for each in found) - began_s,
        max(each["at_cloud_s"] for each in found) - began_s,
        tuple(sorted(latency for each in found for latency in each["latencies_ms"])),
        {"devices": sum(each["cpu_s"] for each in found)} | servers,
    )


def _tell(program: "subprocess.Popen[str]") -> None:
    assert program.stdin is not None
    program.stdin.write("go\n")
    program.stdin.flush()


def _line(program: "subprocess.Popen[str]") -> str:
    assert program.stdout is not None
    line = program.stdout.readline()
    if not line:
        raise RuntimeError(f"a recorder ended with {program.wait()}")
    return line


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)
