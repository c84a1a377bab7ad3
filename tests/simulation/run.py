"""Run simulated worlds: ``python -m tests.simulation.run --seeds 5000``, or ``--seed 7`` to replay one."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.simulation.crossing import simulator_of
from tests.simulation.verdict import check


def main() -> int:
    """Run the seeds asked for; say what was simulated, and how to replay what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this world only")
    wanted = parser.parse_args()
    seeds = range(wanted.first, wanted.first + wanted.seeds) if wanted.seed is None else [wanted.seed]
    totals: Counter[str] = Counter()
    failed = []
    started = time.monotonic()
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            simulator = simulator_of(seed, Path(folder))
            try:
                simulator.run()
                check(simulator)
            except Exception as error:
                if wanted.seed is not None:
                    raise
                failed.append(seed)
                print(f"seed {seed}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
                print(f"  replay with: .venv/bin/python -m tests.simulation.run --seed {seed}")
            finally:
                simulator.close()
            totals.update(simulator.counts)
            totals["simulated ms"] += simulator.now_ms
    hours = totals.pop("simulated ms") / 3_600_000
    print(
        f"{len(seeds)} worlds, {hours:.2f} simulated hours in {time.monotonic() - started:.0f} s, {len(failed)} failed"
    )
    for what, number in sorted(totals.items()):
        print(f"  {what}: {number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
