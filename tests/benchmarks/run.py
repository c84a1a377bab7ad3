"""Benchmarks: ``make bench``. Every figure is measured in this run: real processes, sockets, Mosquitto, databases.

Measured are the demo's rows under the demo's policy: 13 columns, 8 transform steps, 3 layers, of which 2 leave the
device. A row is done when the edge has acknowledged both after its commit with synchronous=FULL and the device has
noted that durably. Meanwhile the edge forwards what is public to the cloud.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from tests.benchmarks import machine
from tests.benchmarks.figures import Figure
from tests.benchmarks.sections import SECTIONS, UNASKED, Found, Scale
from tests.benchmarks.shares import lines

FULL = Scale(repetitions=5, batched_rows=200_000, single_rows=800, devices=(1, 8, 64))
QUICK = Scale(repetitions=1, batched_rows=30_000, single_rows=160, devices=(1, 8))


def main() -> int:
    """Measure, print tables, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repetition, fewer rows and devices")
    parser.add_argument("--profile", action="store_true", help="also where device and edge spend their time")
    parser.add_argument("--tls", action="store_true", help="with TLS on every connection of batches and singles")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="these sections only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    said = parser.parse_args()
    wanted = said.only or [name for name in SECTIONS if name not in UNASKED]
    if said.profile and "profile" not in wanted:
        wanted.append("profile")
    scale = replace(QUICK if said.quick else FULL, tls=said.tls)
    conditions = machine.conditions(Path(tempfile.gettempdir()))
    load_before = os.getloadavg()
    found = Found(_progress())
    for name in wanted:
        SECTIONS[name](scale, found)
    print(__doc__)
    print("\n".join(f"{name}: {value}" for name, value in conditions.items()))
    print(f"TLS: {'on every connection' if said.tls else 'none'}")
    print(f"load average of 1, 5, 15 minutes: {_words(load_before)} before, {_words(os.getloadavg())} after\n")
    _show(found)
    if said.json is not None:
        measured = {"figures": [asdict(each) for each in found.figures], "shares": [asdict(e) for e in found.shares]}
        said.json.write_text(json.dumps({"conditions": conditions, "load_before": load_before, **measured}, indent=2))
    return 0


def _show(found: Found) -> None:
    if found.figures:
        print(f"{'':76}{'median':>12}        {'least':>12}{'greatest':>12}   load")
    for each in found.figures:
        print(_line(each))
        if each.note:
            print(f"    {each.note}")
    for shares in found.shares:
        print("", *lines(shares), sep="\n")


def _line(each: Figure) -> str:
    numbers = f"{_number(each.median):>12} {each.unit:6} {_number(each.lowest):>12}{_number(each.highest):>12}"
    return f"{each.what:76}{numbers}  {each.load:5.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def _words(load: tuple[float, float, float]) -> str:
    return ", ".join(f"{each:.1f}" for each in load)


def _progress() -> Callable[[str], None]:
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {what}", file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
