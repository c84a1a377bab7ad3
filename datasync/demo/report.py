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
    looked = found.looked
    places = {"devices": looked.devices, "edges": looked.edges, "cloud": looked.cloud}
    return {
        "seconds": round(found.seconds, 1),
        "clean": found.is_clean,
        "faults": list(found.faults),
        "rows_recorded": looked.devices.expected,
        "rows_lost": sum(each.lost for each in places.values()),
        "rows_duplicated": sum(each.duplicated for each in places.values()),
        "rows_changed": sum(each.changed + each.foreign for each in places.values()),
        "leaked": len(found.leaks.leaked),
        "comparison": {place: asdict(each) for place, each in places.items()},
        "held": [asdict(each) for each in looked.held],
        "sights": [asdict(each) for each in looked.sights],
        "handovers": {
            "count": len(found.journeys),
            "planned": sum(journey["planned"] for journey in found.journeys),
            "interruption_ms_p50": found.interruption_ms(0.5),
            "interruption_ms_p95": found.interruption_ms(0.95),
            "journeys": list(found.journeys),
        },
        "documents": asdict(looked.documents),
        "withdrawal_and_rollout": asdict(found.happened) | asdict(looked.statistics),
        "forgotten": asdict(found.forgotten) | {"back": list(found.leaks.back), "clean": found.forgotten.is_clean},
        "visits": [asdict(each) for each in found.visits],
        "proofs": [asdict(each) for each in found.proofs],
        "learning": looked.learning.to_dict() if looked.learning else {"missing": looked.learning_missing},
        "leaks": asdict(found.leaks),
    }


def show(found: Findings, console: Console) -> None:
    """Print the findings as tables."""
    _show_held(found, console)
    _show_sights(found, console)
    _show_handovers(found, console)
    _show_comparison(found, console)
    _show_policy_at_work(found, console)
    _show_forgotten(found, console)
    _show_visits(found, console)
    _show_proofs(found, console)
    _show_learning(found, console)
    _show_leaks(found, console)
    verdict = "nothing lost, doubled, changed or leaked" if found.is_clean else f"NOT CLEAN: {', '.join(found.faults)}"
    console.print(f"[bold]{verdict}[/bold], {found.seconds:.0f} s")


def _show_held(found: Findings, console: Console) -> None:
    table = Table("place", "tier", "segments", "rows", title="What each place holds")
    for each in found.looked.held:
        table.add_row(each.place, each.tier, f"{each.segments:,}", f"{each.rows:,}")
    console.print(table)


def _show_sights(found: Findings, console: Console) -> None:
    table = Table("worker", "purpose", "field", "sees", "why", title="What each worker may see")
    for each in found.looked.sights:
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
    looked = found.looked
    for place, each in (("devices", looked.devices), ("edges together", looked.edges), ("cloud", looked.cloud)):
        table.add_row(place, *_counts(each))
    console.print(table)


def _show_policy_at_work(found: Findings, console: Console) -> None:
    documents, statistics, happened = found.looked.documents, found.looked.statistics, found.happened
    console.print(
        f"Documents: {documents.equal} of {documents.expected} wearers' progress at the edges is what was recorded, "
        f"merged from the changes of every edge that the device came by"
    )
    console.print(
        f"Consent: {happened.withdrew} was in the statistics with {happened.counted_before:,} rows, withdrew, and was "
        f"gone after {happened.withdrawal_s:.1f} s; now {statistics.withdrawn:,} of its rows are counted, and "
        f"{statistics.others.found:,} of {statistics.others.expected:,} of the others'"
    )
    gone = ", ".join(sorted(set(happened.columns_before) - set(statistics.columns)))
    numbers = sorted({str(number) for number in statistics.revisions.values()})
    console.print(
        f"Rollout: revision 2 was in force at every edge and in the cloud {happened.rollout_s:.1f} s after it was "
        f"given, while {happened.recording} watches recorded and roamed; it took {gone or 'nothing'} from the "
        f"statistics; all {len(statistics.revisions)} nodes follow revision {' and '.join(numbers)}"
    )


def _show_forgotten(found: Findings, console: Console) -> None:
    what, back = found.forgotten, found.leaks.back
    held, confirmed = {each.place: each for each in what.held}, {each.place: each for each in what.confirmed}
    table = Table("place", "had segments", "rows", "keys", "signed", "that it deleted", title="Forgetting a guest")
    for place in dict.fromkeys([*held, *confirmed]):
        had, said = held.get(place), confirmed.get(place)
        before = [f"{each:,}" for each in (had.segments, had.rows, had.keys)] if had else ["none", "", ""]
        signed = [f"after {said.seconds:.1f} s", f"{said.rows:,} rows"] if said else ["NOT", ""]
        table.add_row(place, *before, *signed)
    console.print(table)
    console.print(
        f"Asked by `{what.command}` while {what.recording} watches recorded and roamed and {what.down} was down; the "
        f"command told that {', '.join(what.awaited) or 'nobody'} was awaited, and the watch went on asking: all had "
        f"signed after {what.seconds:.1f} s, {what.seconds_after_return:.1f} s after that edge was started again"
    )
    console.print(
        f"Search: of {what.planted} values of every tier {what.planted_found} were found before, {len(back)} "
        f"now in any file or segment of any node; of {what.copies} copies made before, {what.copies_opened} open with "
        f"any key that is left; of {what.keys} destroyed keys, {what.keys_left} are in any file"
    )
    for place, needle in back:
        console.print(f"  NOT FORGOTTEN {needle} at {place}")


def _show_visits(found: Findings, console: Console) -> None:
    table = Table(
        *("device", "roaming", "rows there", "of", "columns", "documents", "same pseudonym", "after"),
        title="Visits to another operator's edge",
    )
    for each in found.visits:
        table.add_row(
            each.device,
            "agreed" if each.agreed else "refused",
            f"{each.rows.found:,}",
            f"{each.rows.expected:,}",
            ", ".join(each.columns),
            str(len(each.documents)),
            "yes" if each.linked else "no",
            f"{each.ms:,} ms",
        )
    console.print(table)


def _show_proofs(found: Findings, console: Console) -> None:
    table = Table(
        *("place", "segments", "not proven", "signatures", "acts logged", "views logged", "changed or missing"),
        title="Whose every segment is, and what was done, verified once more",
    )
    for each in found.proofs:
        numbers = (each.segments, each.unproven, each.signatures, each.entries.get("audit", 0))
        counts = [f"{number:,}" for number in (*numbers, each.entries.get("decisions", 0))]
        table.add_row(each.place, *counts, ", ".join(each.wrong) or "nothing")
    console.print(table)


def _show_learning(found: Findings, console: Console) -> None:
    learning = found.looked.learning
    if learning is None:
        console.print(f"Learning: not compared: {found.looked.learning_missing}")
        return
    table = Table(
        "stage", "held-out windows", "of what the edge saw before", title="Accuracy, mean over seeds and edges"
    )
    for stage in STAGES:
        table.add_row(stage, f"{learning.mean(stage):.3f}", f"{learning.old_mean(stage):.3f}")
    console.print(table)
    console.print(learning.sentence)


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
