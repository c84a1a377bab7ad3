"""Made-up motion with known structure: a few exercises that differ by frequency, on channels that may be absent."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest

from datasync.ai.features import Windows, windows

FREQUENCY_HZ = {"slow": 0.5, "middle": 2.0, "fast": 8.0}
TURNS = {"left": 1.0, "right": 6.0}


def motion(exercise: str, channels: Sequence[str], samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """``a`` tells slow, middle and fast apart; only ``w`` tells left and right apart."""
    seconds = np.arange(samples) / 50
    hertz = {"a": FREQUENCY_HZ.get(exercise, 4.0), "w": TURNS.get(exercise, 3.0)}
    return {
        channel: np.sin(2 * np.pi * hertz[channel] * seconds + rng.uniform(0, 6)) + 0.05 * rng.standard_normal(samples)
        for channel in channels
    }


@pytest.fixture
def table() -> Callable[..., pa.Table]:
    def make(exercises: Sequence[str], channels: Sequence[str] = ("a", "w"), samples: int = 1_000, seed: int = 0):
        rng = np.random.default_rng(seed)
        return pa.concat_tables([
            pa.table({
                **motion(exercise, channels, samples, rng),
                "exercise": [exercise] * samples,
                "recording": np.full(samples, number, np.int32),
                "sample": np.arange(samples, dtype=np.int32),
            })
            for number, exercise in enumerate(exercises)
        ])  # fmt: skip

    return make


@pytest.fixture
def seen(table: Callable[..., pa.Table]) -> Callable[..., Windows]:
    def make(exercises: Sequence[str], channels: Sequence[str] = ("a", "w"), samples: int = 1_000, seed: int = 0):
        return windows(table(exercises, channels, samples, seed), channels)

    return make
