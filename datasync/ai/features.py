"""Windows of a view and the features that learners see of them.

A view is a table of samples; a learner sees windows: ``window`` consecutive samples of one recording with one
label, described by features that are named after the channels they come from (``log_std(ax)``). Names, not
positions, tie windows to learners: the cloud sees fewer channels than an edge, and its learner must still fit.

Every feature is even: it stays the same when a channel is negated, because the same watch on the other wrist
mirrors its axes.

Invariants: no window spans two recordings, two labels, or a gap in ``sample`` (rows that the policy lifted to a
higher tier are missing from a view, and a window over the seam would show motion that never was).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasync.domain.errors import LearningError

Floats = npt.NDArray[np.float64]

RATE_HZ = 50.0
"""Samples per second of the recordings unless said otherwise."""

BANDS_HZ = (0.0, 1.0, 2.5, np.inf)
"""Bounds of the bands whose share of a window's energy is a feature: slow, moderate and fast motion."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows as features: ``values`` (n, f), one name per column, and for each window its label and origin."""

    names: tuple[str, ...]
    values: Floats
    labels: npt.NDArray[np.str_]
    groups: npt.NDArray[np.int64]
    """The recording that each window comes from."""
    starts: npt.NDArray[np.int64]
    """The ``sample`` of each window's first row."""

    def __len__(self) -> int:
        return len(self.values)

    def of(self, groups: Collection[int]) -> "Windows":
        """Return the windows that come from these recordings."""
        chosen = np.isin(self.groups, np.fromiter(groups, np.int64, len(groups)))
        return Windows(self.names, self.values[chosen], self.labels[chosen], self.groups[chosen], self.starts[chosen])


def windows(
    table: pa.Table,
    channels: Sequence[str],
    *,
    window: int = 100,
    step: int = 50,
    rate_hz: float = RATE_HZ,
    label: str | None = "exercise",
) -> Windows:
    """Cut ``table`` into windows of ``window`` samples, one every ``step``, and describe each by its features.

    The table has int columns ``recording`` and ``sample``, the channels as numbers, and the label as text (with
    ``label=None`` the windows carry empty labels, as for inference). Rows may come in any order; rows with a null
    in one of these columns count as missing. Raises LearningError when a column is absent or a size is wrong.
    """
    if window < 4 or step < 1:
        raise LearningError(f"a window has at least 4 samples and a step at least 1, not {window} and {step}")
    rows = _sorted_rows(table, ["recording", "sample", *channels, *([label] if label else [])])
    groups, samples = (rows[name].to_numpy().astype(np.int64) for name in ("recording", "sample"))
    labels = np.array(rows[label].to_pylist(), np.str_) if label else np.full(len(groups), "", np.str_)
    firsts = _window_firsts(groups, samples, labels, window, step)
    signal = np.column_stack([rows[name].to_numpy().astype(np.float64) for name in channels])
    names, values = describe(signal[firsts[:, None] + np.arange(window)], channels, rate_hz)
    return Windows(names, values, labels[firsts], groups[firsts], samples[firsts])


def describe(signal: Floats, channels: Sequence[str], rate_hz: float) -> tuple[tuple[str, ...], Floats]:
    """Return the features' names and values (n, f) of windows of samples (n, window, channels)."""
    described = [(f"{name}({channel})", of(signal[:, :, column], rate_hz))
                 for name, of in CHANNEL_FEATURES.items()
                 for column, channel in enumerate(channels)]  # fmt: skip
    described += [(f"correlation({first},{second})", _correlation(signal[:, :, i], signal[:, :, j]))
                  for (i, first), (j, second) in combinations(enumerate(channels), 2)]  # fmt: skip
    return tuple(name for name, _ in described), np.column_stack([values for _, values in described])


def _sorted_rows(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    if absent := [name for name in columns if name not in table.column_names]:
        raise LearningError(f"the view has no column {absent[0]!r}", fix=f"it has {', '.join(table.column_names)}")
    return table.select(columns).drop_null().sort_by([("recording", "ascending"), ("sample", "ascending")])


def _window_firsts(
    groups: npt.NDArray[np.int64], samples: npt.NDArray[np.int64], labels: npt.NDArray[np.str_], window: int, step: int
) -> npt.NDArray[np.int64]:
    """Return the row of each window's first sample, for rows in order."""
    seams = (np.diff(groups) != 0) | (np.diff(samples) != 1) | (labels[1:] != labels[:-1])
    bounds = np.concatenate([[0], np.flatnonzero(seams) + 1, [len(groups)]])
    return np.concatenate(
        [np.arange(first, last - window + 1, step, dtype=np.int64) for first, last in pairwise(bounds)]
    )


def _centred(signal: Floats) -> Floats:
    return np.asarray(signal - signal.mean(axis=1, keepdims=True))


def _energy(signal: Floats, rate_hz: float) -> tuple[Floats, Floats]:
    """Return the frequencies above 0 in Hz, and the energy of each window at each of them."""
    spectrum = np.abs(np.fft.rfft(_centred(signal), axis=1)[:, 1:])
    return np.fft.rfftfreq(signal.shape[1], 1 / rate_hz)[1:].astype(np.float64), np.asarray(spectrum**2)


def _dominant_hz(signal: Floats, rate_hz: float) -> Floats:
    frequencies, energy = _energy(signal, rate_hz)
    return np.asarray(frequencies[energy.argmax(axis=1)])


def _band(low_hz: float, high_hz: float) -> Callable[[Floats, float], Floats]:
    def share(signal: Floats, rate_hz: float) -> Floats:
        frequencies, energy = _energy(signal, rate_hz)
        inside = (frequencies > low_hz) & (frequencies <= high_hz)
        return np.asarray(energy[:, inside].sum(axis=1) / (energy.sum(axis=1) + _TINY))

    return share


def _correlation(first: Floats, second: Floats) -> Floats:
    """Return the absolute correlation of two channels; 0 where one of them is constant."""
    covariance = (_centred(first) * _centred(second)).mean(axis=1)
    return np.asarray(np.abs(covariance) / (first.std(axis=1) * second.std(axis=1) + _TINY))


_TINY = 1e-9

CHANNEL_FEATURES: dict[str, Callable[[Floats, float], Floats]] = {
    "abs_mean": lambda signal, _: np.abs(signal.mean(axis=1)),
    "log_std": lambda signal, _: np.log(signal.std(axis=1) + 0.05),
    "rms": lambda signal, _: np.sqrt((signal**2).mean(axis=1)),
    "log_jerk": lambda signal, _: np.log(np.abs(np.diff(signal, axis=1)).mean(axis=1) + 0.01),
    "dominant_hz": _dominant_hz,
    **{f"energy_{low}_{high}_hz": _band(low, high) for low, high in pairwise(BANDS_HZ)},
}
"""What describes one channel in one window. The floors inside the logarithms are about the sensors' noise."""
