"""Fuzzing of one target in this process, which ends with it: ``python -m tests.fuzz.one TARGET SECONDS``."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["datasync", "yaml"]):
    from tests.fuzz.targets import TARGETS

FOUND = Path(".fuzz")
INPUT_S_MAX = 10
MEMORY_MIB_MAX = 2_048


def main(name: str, seconds: str) -> None:
    """Fuzz until the time is over, or a fault is found: then the input is kept in the folder ``.fuzz``."""
    target = TARGETS[name]
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds()):
            (Path(folder) / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-timeout={INPUT_S_MAX}", f"-rss_limit_mb={MEMORY_MIB_MAX}"]
        atheris.Setup([sys.argv[0], *limits, "-verbosity=0", f"-artifact_prefix={FOUND}/{name}-", folder], target.take)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
