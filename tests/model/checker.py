"""SPIN at work: a case becomes a verifier in C, which searches the states within bounded memory and time.

A search is *exhaustive* when every state that can be reached was visited; with ``bits`` it is *bitstate*: states are
remembered by hashes in a bit field, so some may be taken for others and missed, and what it finds is still true.
"""

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.model.cases import Case

MODEL = Path(__file__).with_name("handover.pml")
DEPTH_MAX = 20_000
BUILD_SECONDS_MAX = 120
HASH_BITS = 20
"""The size of the table that finds states again: a larger one would cost small searches more than it saves."""

_INCOMPLETE = {
    "max search depth too small": f"some runs are longer than {DEPTH_MAX} steps",
    "reached -DMEMLIM bound": "it may take no more memory",
}


class ToolMissing(Exception):
    """A program is not there that the check needs."""


class ModelBroken(Exception):
    """The model is no Promela, or its verifier no C."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search came to. ``violation`` says what does not hold, ``trail`` are the steps to it."""

    case: Case
    states: int
    transitions: int
    depth: int
    seconds: float
    cut_short: str | None
    violation: str | None
    trail: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the search found nothing and, unless it only remembers hashes, visited every state."""
        return self.violation is None and (self.cut_short is None or self.case.bits is not None)

    def __str__(self) -> str:
        kind = f"bitstate, 2^{self.case.bits} bits" if self.case.bits else "exhaustive"
        if self.violation:
            kind = "until a violation"
        elif self.cut_short:
            kind = f"cut short, as {self.cut_short}"
        return (
            f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth:,}, "
            f"{self.seconds:.1f} s ({kind})"
        )


def check(case: Case) -> Outcome:
    """Search all states of a case. Raises ToolMissing, ModelBroken."""
    for program, package in ("spin", "spin"), ("cc", "gcc libc6-dev"):
        if shutil.which(program) is None:
            raise ToolMissing(f"no {program} here: apt-get install {package}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _build(case, folder)
        started = time.monotonic()
        said, is_late = _search(case, folder)
        outcome = _parse(case, said, is_late, time.monotonic() - started)
        return outcome if outcome.violation is None else _explained(outcome, folder)


def _build(case: Case, folder: Path) -> None:
    shutil.copy(MODEL, folder)
    _tool(folder, "spin", *case.switches, "-a", MODEL.name)
    bits = ["-DBITSTATE"] if case.bits else ["-DCOLLAPSE"]
    flags = ["-O1", "-w", "-DSAFETY", "-DNOREDUCE", f"-DMEMLIM={case.memory_mb}", *bits]
    _tool(folder, "cc", *flags, "-o", "pan", "pan.c")


def _search(case: Case, folder: Path) -> tuple[str, bool]:
    """Return what the verifier said, and whether its time was over before it was done."""
    options = [f"-w{case.bits}", "-k3"] if case.bits else [f"-w{HASH_BITS}"]
    command = ["timeout", "--signal=INT", str(case.seconds), "./pan", f"-m{DEPTH_MAX}", "-n", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr, done.returncode == 124


def _parse(case: Case, said: str, is_late: bool, seconds: float) -> Outcome:
    if "depth reached" not in said:
        raise ModelBroken(said[-2000:])
    cut_short = next((why for sign, why in _INCOMPLETE.items() if sign in said), None)
    violation = re.search(r"pan:1: (.*?)(?: \(at depth|$)", said, re.MULTILINE)
    return Outcome(
        case,
        states=_number(r"([\d.e+]+) states, stored", said),
        transitions=_number(r"([\d.e+]+) transitions", said),
        depth=_number(r"depth reached (\d+)", said),
        seconds=seconds,
        cut_short=f"{case.seconds} s are over" if is_late else cut_short,
        violation=violation and violation[1],
    )


def _explained(outcome: Outcome, folder: Path) -> Outcome:
    """Replay the verifier's trail: the steps of the model say themselves what they do."""
    case = outcome.case
    said = _tool(folder, "spin", *case.switches, "-t", "-T", MODEL.name)
    steps = []
    for line in said.splitlines():
        if line.startswith("spin:"):
            break
        steps.append(line.strip())
    broken = next((step for step in steps if "does not hold" in step), outcome.violation)
    return Outcome(
        case,
        outcome.states,
        outcome.transitions,
        outcome.depth,
        outcome.seconds,
        outcome.cut_short,
        broken,
        tuple(steps),
    )


def _tool(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS_MAX)
    said = done.stdout + done.stderr
    if done.returncode != 0:
        raise ModelBroken(f"{' '.join(command)}:\n{said[-2000:]}")
    return said


def _number(pattern: str, said: str) -> int:
    found = re.search(pattern, said)
    return int(float(found[1])) if found else 0
