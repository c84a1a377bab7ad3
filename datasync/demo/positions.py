"""Generated positions: where a device might have been while it recorded.

The recordings have no positions, so these are made up: a smooth walk with seeded noise that stays around the edge
that serves the device and crosses to the next one around each move. They have the precision and the smoothness of
a phone's fused position, and nothing else in common with the subjects, who exercised indoors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Site:
    """An edge and where it stands, in degrees (WGS 84)."""

    edge: str
    lat: float
    lon: float


CBD = Site("acme/cbd", -37.8136, 144.9631)
DOCKS = Site("acme/docks", -37.8150, 144.9480)
SITES = (CBD, DOCKS)

CROSSING_ROWS = 9_000
"""How long a crossing takes: three minutes at 50 Hz, as on a tram."""

STRAY_DEGREES = 0.0004
"""How far the walk strays from its line: about 40 m (standard deviation)."""

STRAY_ROWS = 3_000
"""How many rows a stray is smoothed over: a minute."""


def walk(rng: np.random.Generator, rows: int, home: Site, moves: Sequence[tuple[int, Site]]) -> Floats:
    """Return ``rows`` positions (rows, 2: lat, lon in degrees) from ``home``; each move is a row and a site.

    At a move's row the device is half-way between the two sites.
    """
    stops = [home, *(site for _, site in moves)]
    line = np.empty((rows, 2))
    bounds = [0, *(row for row, _ in moves), rows]
    for site, first, last in zip(stops, bounds[:-1], bounds[1:], strict=True):
        line[first:last] = site.lat, site.lon
    return _smoothed(line, CROSSING_ROWS) + _stray(rng, rows)


def _stray(rng: np.random.Generator, rows: int) -> Floats:
    noise = _smoothed(rng.standard_normal((rows + 2 * STRAY_ROWS, 2)), STRAY_ROWS)[STRAY_ROWS:-STRAY_ROWS]
    return np.asarray(noise * (STRAY_DEGREES / noise.std(axis=0)))


def _smoothed(values: Floats, width: int) -> Floats:
    """Return the values after two moving averages that together span ``width`` rows; the ends count as lasting."""
    half = width // 4
    for _ in range(2):
        padded = np.pad(values, [(half, half), (0, 0)], mode="edge")
        sums = np.cumsum(np.vstack([np.zeros(2), padded]), axis=0)
        values = (sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1)
    return values
