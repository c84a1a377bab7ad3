"""The nodes that run as processes, in a deterministic world that does its worst to them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.crossing import simulator_of
from tests.simulation.verdict import check

SEEDS = int(os.environ.get("DATASYNC_SIMULATION_SEEDS", "100"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: the simulator decides what a crash loses, the disk would only be slow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_row_ends_where_it_belongs_exactly_once(seed: int, folder: Path) -> None:
    simulator = simulator_of(seed, folder)
    try:
        simulator.run()
        check(simulator)
    except BaseException:
        print(f"replay with: .venv/bin/python -m tests.simulation.run --seed {seed}")
        raise
    finally:
        simulator.close()
