"""Coverage-guided fuzzing of the parsers, with atheris: ``python -m tests.fuzz.run --seconds 300 [TARGET…]``.

The time is shared by the targets, each in a process of its own. An input that brings a fault to light is kept in
``.fuzz/``, and ``python -m tests.fuzz.run --input FILE TARGET`` gives it to the target again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz the targets one after another; return 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=300, help="for all of them together (default: %(default)s)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="only give the targets this input")
    said = parser.parse_args()
    names = said.targets or list(TARGETS)
    if said.input is not None:
        for name in names:
            TARGETS[name].take(said.input.read_bytes())
        return 0
    failed = [name for name in names if not fuzz(name, max(1, said.seconds // len(names)))]
    print(f"fuzzed {', '.join(names)}: " + (f"{', '.join(failed)} failed" if failed else "no fault found"))
    return 1 if failed else 0


def fuzz(name: str, seconds: int) -> bool:
    """Return whether a target took all that it was given."""
    return not subprocess.call([sys.executable, "-m", "tests.fuzz.one", name, str(seconds)])


if __name__ == "__main__":
    sys.exit(main())
