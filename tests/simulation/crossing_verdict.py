"""What must hold in a world of two operators, row by row: at rest after the faults, and after a last crossing."""

from collections import Counter
from collections.abc import Iterable

from datasync.domain.ids import operator_of
from datasync.nodes.device import DeviceNode
from tests.simulation.crossing import ACME, FIELDS, CrossingSimulator, Held
from tests.simulation.rows import row_of
from tests.simulation.world import Walk

MARGIN_MS = 1_000
"""Around the end of a row's time it may be there or not: clocks differ, and a node looks now and then."""


def check_edges(simulator: CrossingSimulator) -> None:
    """Look at all edges, then let every device cross once more, and look again. Raises AssertionError."""
    pseudonyms = _at_all_edges(simulator)
    for walk in simulator.walks:
        _cross(simulator, walk, pseudonyms)
    _at_all_edges(simulator)


def _at_all_edges(simulator: CrossingSimulator) -> set[object]:
    """Check every row at every edge; return the pseudonyms that devices give."""
    held = {
        (edge, walk.process.name): simulator.held(process, walk.process.name)
        for edge, process in simulator.edges.items()
        for walk in simulator.walks
    }
    pseudonyms = {
        row.columns["who"] for rows in held.values() for row in rows if not row.derived and "who" in row.columns
    }
    for walk in simulator.walks:
        node = walk.process.node
        assert isinstance(node, DeviceNode)
        for edge in simulator.edges:
            rows = held[edge, walk.process.name]
            assert edge == node.whereabouts.edge or rows == [], f"{edge} still has rows of {walk.process.name}"
            _check_rows(simulator, walk, rows, pseudonyms)
            assert edge not in ACME or not any(row.derived for row in rows), f"{edge} has what may not go on"
    return pseudonyms


def _check_rows(simulator: CrossingSimulator, walk: Walk, rows: Iterable[Held], pseudonyms: set[object]) -> None:
    twice = [key for key, times in Counter((row.tier, row.number) for row in rows).items() if times > 1]
    assert not twice, f"twice: {twice}\n{simulator.describe()}"
    for row in rows:
        said = row_of(walk.process.name, walk.first_row + row.number)
        assert row.visible, simulator.describe()
        assert not {said["who"], said["secret"]} & set(row.columns.values())
        assert row.columns.get("number", said["number"]) == said["number"]
        if row.derived:
            assert set(row.columns) == (FIELDS if row.tier == "edge-private" else set()), row
            assert row.columns.get("who") not in pseudonyms, "a pseudonym crossed as it was"
            assert row.captured_ms + simulator.retain_ms > simulator.now_ms - MARGIN_MS, f"{row} is over"


def _cross(simulator: CrossingSimulator, walk: Walk, pseudonyms: set[object]) -> None:
    given = walk is not simulator.walks[0] and simulator.words.random() < 0.7
    origin, before, target = simulator.cross(walk, given=given)
    after = simulator.held(simulator.edges[target], walk.process.name)
    _check_rows(simulator, walk, after, pseudonyms)
    originals = {(row.tier, row.number) for row in before if not row.derived}
    arrived = {(row.tier, row.number) for row in after}
    where = f"{walk.process.name} crossed from {origin} to {target}\n{simulator.describe()}"
    if operator_of(origin) == "borealis":
        assert arrived == (originals if simulator.back else set()), where
        assert not any(row.derived for row in after), where
    else:
        kept = {
            (row.tier, row.number)
            for row in before
            if row.captured_ms + simulator.retain_ms > simulator.now_ms + MARGIN_MS
        }
        assert arrived >= (kept if given else set()), where
        assert arrived <= (originals if given else set()), where
        assert all(row.derived for row in after), where
    simulator.counts["rows that crossed at last"] += len(arrived)
