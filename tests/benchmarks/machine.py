"""What the figures were measured on: the machine, its programs, and how busy it was with other things."""

import os
import platform
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pyarrow as pa

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def conditions(folder: Path) -> dict[str, str | int]:
    """Return what to say beside the figures; ``folder`` is where the databases are."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "system": platform.platform(),
        "databases on": _filesystem(folder),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "pyarrow": pa.__version__,
        "mosquitto": _first_line([mosquitto(), "-h"]),
        "commit": _first_line(["git", "describe", "--always", "--dirty"]),
    }


def mosquitto() -> str:
    """Return the broker's program; Debian keeps it out of users' PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin") or "mosquitto"


def cpu_seconds(process: int) -> float:
    """Return the processor time that a process has used, its threads and the kernel's work for it included."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """Return the type of the file system that a folder is on: on tmpfs a commit costs nothing."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    over = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    point, kind = max(over, key=lambda each: len(each[0]))
    return f"{kind} at {point}"


def _first_line(command: list[str]) -> str:
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    except OSError:
        lines = []
    return lines[0] if lines else "unknown"
