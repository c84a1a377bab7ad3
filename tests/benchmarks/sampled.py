"""Runs a module as ``python -m`` does, under a sampler that SIGUSR1 starts and SIGUSR2 stops.

Usage: ``python -m tests.benchmarks.sampled RESULT.json -m MODULE ARGUMENT…``
"""

import json
import runpy
import signal
import sys
from pathlib import Path

from tests.benchmarks.sampler import Sampler


def main() -> None:
    """Run the module; its exit is this program's."""
    _, result, option, module, *arguments = sys.argv
    assert option == "-m", option
    sampler = Sampler()
    signal.signal(signal.SIGUSR1, lambda *_: sampler.start())
    signal.signal(signal.SIGUSR2, lambda *_: _write(Path(result), sampler))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _write(result: Path, sampler: Sampler) -> None:
    unfinished = result.with_suffix(".part")
    unfinished.write_text(json.dumps(sampler.stop()))
    unfinished.rename(result)


if __name__ == "__main__":
    main()
