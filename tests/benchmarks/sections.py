"""The sections of the benchmarks: each measures one thing and adds its figures.

What a later comparison needs is another section, which measures the peer in the same run and on the same machine, and
adds a figure that has the peer's name in its key.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.benchmarks import decisions, parts, reading, shares, splitting
from tests.benchmarks.figures import MILLISECONDS, ROWS_PER_S, TIMES, Figure, figure, quantile
from tests.benchmarks.ingest import Outcome, record
from tests.benchmarks.shares import Shares
from tests.benchmarks.site import Site, site

BATCH = 1_000
VIEWS = {
    "view.http": "view over HTTP as Arrow: 2 layers, 1 deny, consent; 9 columns",
    "view.in_process": "the same view, read in one process",
    "view.http.all": "view over HTTP as Arrow: 2 layers; 12 columns",
    "view.http.cloud": "view over HTTP as Arrow, in the cloud: 1 layer, 1 deny; 6 columns",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: ``single_rows`` are those of all devices together, ``devices`` how many at one time."""

    repetitions: int
    batched_rows: int
    single_rows: int
    devices: tuple[int, ...]
    tls: bool = False
    """Whether every connection is TLS, where whole nodes are measured."""


@dataclass(slots=True)
class Found:
    """What was found so far, and where to say what is being done."""

    say: Callable[[str], None]
    figures: list[Figure] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)


def _parts(scale: Scale, found: Found) -> None:
    found.say("the parts by themselves")
    found.figures += parts.measure(scale.repetitions)


def _split(scale: Scale, found: Found) -> None:
    found.say("the split alone on one core")
    found.figures += splitting.measure(scale.repetitions)


def _decisions(scale: Scale, found: Found) -> None:
    found.figures += decisions.measure(scale.repetitions, found.say)


def _batches(scale: Scale, found: Found) -> None:
    """Batches from one device, then the views of what it sent."""
    outcomes: list[Outcome] = []
    views: dict[str, list[float]] = defaultdict(list)
    for number in range(scale.repetitions):
        found.say(f"{BATCH}-row batches and views, {number + 1} of {scale.repetitions}")
        with _fresh_site(["batches"], scale) as place:
            outcomes.append(record(place, ["batches"], scale.batched_rows, BATCH))
            for key, rates in reading.rates(place):
                views[key] += rates
    what = f"ingest device → edge, {BATCH}-row batches, 1 device"
    found.figures += [
        figure("ingest.batches", what, ROWS_PER_S, [each.rows / each.at_edge_s for each in outcomes], _cost(outcomes)),
        figure("ingest.batches.cloud", "the same, until the cloud has what is public", ROWS_PER_S,
               [each.rows / each.at_cloud_s for each in outcomes]),
        *(figure(key, what, ROWS_PER_S, views[key]) for key, what in VIEWS.items()),
    ]  # fmt: skip


def _protection(scale: Scale, found: Found) -> None:
    """What TLS and the envelope cost together: batches with both and with neither, by turns."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(scale.repetitions):
        for protected in (True, False):
            found.say(f"{'with' if protected else 'without'} TLS and envelope, {number + 1} of {scale.repetitions}")
            with _fresh_site(["batches"], replace(scale, tls=protected), bare=not protected) as place:
                outcome = record(place, ["batches"], scale.batched_rows, BATCH)
            rates[protected].append(outcome.rows / outcome.at_edge_s)
    what = f"ingest device → edge, {BATCH}-row batches"
    ratios = [with_both / neither for with_both, neither in zip(rates[True], rates[False], strict=True)]
    found.figures += [
        figure("ingest.protected", f"{what}, TLS and envelope", ROWS_PER_S, rates[True]),
        figure("ingest.unprotected", f"{what}, neither", ROWS_PER_S, rates[False]),
        figure("ingest.protection", "    the share that is left with both", TIMES, ratios),
    ]


def _singles(scale: Scale, found: Found) -> None:
    """Single rows, each done before the same device records the next."""
    for count in scale.devices:
        names = [f"single-{index}" for index in range(count)]
        outcomes = []
        for number in range(scale.repetitions):
            found.say(f"single rows, {count} devices, {number + 1} of {scale.repetitions}")
            with _fresh_site(names, scale) as place:
                outcomes.append(record(place, names, max(1, scale.single_rows // max(count, 4)), 1))
        found.figures += _single_figures(count, outcomes)


def _single_figures(count: int, outcomes: Sequence[Outcome]) -> Iterable[Figure]:
    key, what = f"ingest.single.{count}", f"ingest device → edge, single rows, {count} at a time"
    yield figure(key, what, ROWS_PER_S, [each.rows / each.at_edge_s for each in outcomes], _cost(outcomes))
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        latencies_ms = [quantile(each.latencies_ms, share) for each in outcomes]
        yield figure(f"{key}.{name}", f"    from record() to done, {name}", MILLISECONDS, latencies_ms)


def _cost(outcomes: Sequence[Outcome]) -> str:
    """Return the processor time of each process for a row, the mean of all repetitions."""
    rows = sum(each.rows for each in outcomes)
    used = {name: sum(each.cpu_s[name] for each in outcomes) for name in outcomes[0].cpu_s}
    each = (f"{name} {1e6 * seconds / rows:,.1f}" for name, seconds in used.items())
    return f"processor time, µs per row: {', '.join(each)}"


def _profile(scale: Scale, found: Found) -> None:
    found.say(f"where the time goes: {BATCH}-row batches")
    found.shares += shares.measure(f"{BATCH}-row batches", 1, 2 * scale.batched_rows, BATCH)
    found.say("where the time goes: single rows")
    found.shares += shares.measure("single rows", 1, scale.single_rows // 2, 1)


@contextmanager
def _fresh_site(devices: Sequence[str], scale: Scale, *, bare: bool = False) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), devices, tls=scale.tls, bare=bare) as place:
        yield place


SECTIONS: Mapping[str, Callable[[Scale, Found], None]] = {
    "parts": _parts,
    "split": _split,
    "decisions": _decisions,
    "batches": _batches,
    "protection": _protection,
    "singles": _singles,
    "profile": _profile,
}
UNASKED = frozenset({"profile"})
"""Sections that run only when they are asked for."""
