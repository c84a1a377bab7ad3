"""Generated positions: near the edge that serves, half-way when moving, smooth all along."""

import numpy as np
import pytest

from datasync.demo.positions import CBD, DOCKS, walk

MOVES = [(10_000, DOCKS), (22_000, CBD)]


@pytest.fixture
def path():
    return walk(np.random.default_rng(1), 30_000, CBD, MOVES)


def test_a_device_stays_around_its_edge_and_crosses_at_its_moves(path):
    for row, site in ((0, CBD), (5_000, CBD), (16_000, DOCKS), (29_000, CBD)):
        assert np.abs(path[row] - (site.lat, site.lon)).max() < 0.002


def test_a_device_is_half_way_at_a_move(path):
    middle = np.array([(CBD.lat + DOCKS.lat) / 2, (CBD.lon + DOCKS.lon) / 2])
    assert np.abs(path[10_000] - middle).max() < 0.002


def test_a_device_never_jumps(path):
    assert np.abs(np.diff(path, axis=0)).max() < 5e-6  # about 20 m/s at 50 Hz


def test_no_two_positions_are_the_same(path):
    assert len(np.unique(path, axis=0)) == len(path)


def test_the_same_seed_walks_the_same_way():
    first, again, other = (walk(np.random.default_rng(seed), 5_000, CBD, []) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
