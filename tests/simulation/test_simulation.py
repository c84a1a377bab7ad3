"""The nodes that run as processes, in a deterministic world that does its worst to them."""

import os
from pathlib import Path

import pytest

from tests.simulation.simulator import Simulator
from tests.simulation.verdict import check

SEEDS = int(os.environ.get("DATASYNC_SIMULATION_SEEDS", "100"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_row_ends_where_it_belongs_exactly_once(seed: int, tmp_path: Path) -> None:
    simulator = Simulator(seed, tmp_path)
    try:
        simulator.run()
        check(simulator)
    except BaseException:
        print(f"replay with: .venv/bin/python -m tests.simulation.run --seed {seed}")
        raise
    finally:
        simulator.close()
