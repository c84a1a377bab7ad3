"""The demo's findings for people and for programs."""

from collections import defaultdict
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from datasync.ai.experiment import STAGES
from datasync.demo.comparing import Comparison
from datasync.demo.findings import Findings


def as_json(found: Findings) -> dict[str, Any]:
    """Return the findings as plain values."""
    places = {"devices": found.devices, "edges": found.edges, "cloud": found.cloud}
    return {
        "seconds": round(found.seconds, 1),
        "clean": found.is_clean,
        "rows_recorded": found.devices.expected,
        "rows_lost": sum(each.lost for each in places.values()),
        "rows_duplicated": sum(each.duplicated for each in places.values()),
        "rows_changed": sum(each.changed + each.foreign for each in places.values()),
        "leaked": len(found.leaks.leaked),
        "comparison": {place: asdict(each) for place, each in places.items()},
        "held": [asdict(each) for each in found.held],
        "sights": [asdict(each) for each in found.sights],
        "handovers": {
            "count": len(found.journeys),
            "planned": sum(journey["planned"] for journey in found.journeys),
            "interruption_ms_p50": found.interruption_ms(0.5),
            "interruption_ms_p95": found.interruption_ms(0.95),
            "journeys": list(found.journeys),
        },
        "learning": found.learning.to_dict() if found.learning else {"missing": found.learning_missing},
        "leaks": asdict(found.leaks),
    }


def show(found: Findings, console: Console) -> None:
    """Print the findings as tables."""
    _show_held(found, console)
    _show_sights(found, console)
    _show_handovers(found, console)
    _show_comparison(found, console)
    _show_learning(found, console)
    _show_leaks(found, console)
    verdict = "nothing lost, doubled, changed or leaked" if found.is_clean else "NOT CLEAN: see above"
    console.print(f"[bold]{verdict}[/bold], {found.seconds:.0f} s")


def _show_held(found: Findings, console: Console) -> None:
    table = Table("place", "tier", "segments", "rows", title="What each place holds")
    for each in found.held:
        table.add_row(each.place, each.tier, f"{each.segments:,}", f"{each.rows:,}")
    console.print(table)


def _show_sights(found: Findings, console: Console) -> None:
    table = Table("worker", "purpose", "field", "sees", "why", title="What each worker may see of motion")
    for each in found.sights:
        sees = " → ".join(each.chain) if each.chain else "as it is"
        table.add_row(
            each.worker, each.purpose, each.field, sees if each.allowed else f"nothing ({each.code})", each.why
        )
    console.print(table)


def _show_handovers(found: Findings, console: Console) -> None:
    table = Table("handovers", "count", "interruption p50", "p95", "degraded", title="Handovers")
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for journey in found.journeys:
        groups["planned" if journey["planned"] else "reactive"].append(dict(journey))
    for kind, journeys in sorted(groups.items()):
        times = sorted(journey["interruption_ms"] for journey in journeys)
        degraded = sum(journey["mode"] != "full" for journey in journeys)
        table.add_row(kind, str(len(times)), f"{_at(times, 0.5)} ms", f"{_at(times, 0.95)} ms", str(degraded))
    console.print(table)


def _show_comparison(found: Findings, console: Console) -> None:
    table = Table(
        "where",
        "expected",
        "found",
        "lost",
        "duplicated",
        "foreign",
        "changed",
        title="Every row, compared with its source",
    )
    for place, each in (("devices", found.devices), ("edges together", found.edges), ("cloud", found.cloud)):
        table.add_row(place, *_counts(each))
    console.print(table)


def _show_learning(found: Findings, console: Console) -> None:
    if found.learning is None:
        console.print(f"Learning: not compared: {found.learning_missing}")
        return
    table = Table(
        "stage", "held-out windows", "of what the edge saw before", title="Accuracy, mean over seeds and edges"
    )
    for stage in STAGES:
        table.add_row(stage, f"{found.learning.mean(stage):.3f}", f"{found.learning.old_mean(stage):.3f}")
    console.print(table)
    console.print(found.learning.sentence)


def _show_leaks(found: Findings, console: Console) -> None:
    leaks = found.leaks
    console.print(
        f"Leaks: {len(leaks.leaked)} found of {leaks.needles} planted strings, names and coordinates in "
        f"{leaks.bytes_searched / 1e6:.0f} MB outside the devices (files, brokers' traffic, decrypted segments); "
        f"control: the same search finds {leaks.control_found} of {leaks.control_wanted} on the devices"
    )
    for place, needle in leaks.leaked:
        console.print(f"  LEAKED {needle} at {place}")


def _counts(each: Comparison) -> list[str]:
    return [f"{count:,}" for count in asdict(each).values()]


def _at(times: list[int], share: float) -> int:
    return times[min(len(times) - 1, int(share * len(times)))]
