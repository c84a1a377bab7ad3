"""What is measured: rates, each the median of its repetitions with their spread."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured rate: the median of the repetitions, and their least and greatest."""

    what: str
    rows_per_s: float
    lowest: float
    highest: float
    note: str = ""


def figure(what: str, rates: Sequence[float], note: str = "") -> Figure:
    """Return the figure of repeated rates."""
    return Figure(what, statistics.median(rates), min(rates), max(rates), note)
