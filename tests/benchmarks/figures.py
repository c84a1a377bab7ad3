"""Figures: each the median of repeated measurements with the least and the greatest, and the load beside it.

A peer that datasync is to be compared with is measured by a section of its own in the same run (see
:mod:`tests.benchmarks.run`); ``key`` is the name under which a program, or a ratio, finds a figure.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ROWS_PER_S, MICROSECONDS, MILLISECONDS, TIMES = "rows/s", "µs", "ms", "x"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity. ``load`` is the machine's load average (1 minute) when it had been measured."""

    key: str
    what: str
    unit: str
    median: float
    lowest: float
    highest: float
    repetitions: int
    load: float
    note: str = ""


def figure(key: str, what: str, unit: str, values: Sequence[float], note: str = "") -> Figure:
    """Return the figure of repeated measurements."""
    load = os.getloadavg()[0]
    return Figure(key, what, unit, statistics.median(values), min(values), max(values), len(values), load, note)


def seconds_each(work: Callable[[], object], rounds: int, repetitions: int) -> list[float]:
    """Return what one call takes in seconds, the mean of ``rounds``, once for each repetition; one call warms up."""
    work()
    return [_seconds(work, rounds) / rounds for _ in range(repetitions)]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which about a share of the ordered values lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _seconds(work: Callable[[], object], rounds: int) -> float:
    began = time.perf_counter()
    for _ in range(rounds):
        work()
    return time.perf_counter() - began
