"""Check the model of the handover protocol: ``python -m tests.model.run``, ``--full`` for larger worlds and minutes.

``--mutant NAME`` checks a protocol without one of its precautions, ``--mutant all`` all of them: then a violation is
what is expected, and its trail is printed.
"""

import argparse
import sys

from tests.model.cases import FULL, MUTANTS, QUICK
from tests.model.checker import Outcome, ToolMissing, check


def main() -> int:
    """Check what is asked for; return 1 when something is not as it should be, 2 when a program is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the larger worlds, too: minutes, and gigabytes of memory")
    parser.add_argument("--mutant", choices=[*MUTANTS, "all"], help="a protocol that must be found wrong")
    said = parser.parse_args()
    try:
        if said.mutant:
            names = list(MUTANTS) if said.mutant == "all" else [said.mutant]
            good = [_is_caught(name) for name in names]
        else:
            good = [_holds(check(case)) for case in QUICK + (FULL if said.full else [])]
    except ToolMissing as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if all(good) else 1


def _holds(outcome: Outcome) -> bool:
    print(f"{outcome.case.name}\n  {outcome}", flush=True)
    if outcome.violation:
        _print_trail(outcome)
    return outcome.holds


def _is_caught(name: str) -> bool:
    mutant = MUTANTS[name]
    outcome = check(mutant.case)
    print(f"{name}: {mutant.what}\n  {outcome}", flush=True)
    _print_trail(outcome)
    caught = outcome.violation is not None and outcome.violation.startswith(mutant.breaks)
    print(f"  caught by {mutant.breaks}" if caught else f"  NOT caught by {mutant.breaks}", flush=True)
    return caught


def _print_trail(outcome: Outcome) -> None:
    for number, step in enumerate(outcome.trail, 1):
        print(f"  {number:3} {step}")


if __name__ == "__main__":
    sys.exit(main())
