"""What must hold when a simulated world has come to rest, row by row."""

from datasync.nodes.device import DeviceNode
from tests.simulation.crossing import CrossingSimulator
from tests.simulation.crossing_verdict import check_edges
from tests.simulation.erasing import ErasingSimulator
from tests.simulation.erasing_verdict import check_erasures, move_on
from tests.simulation.rows import row_of, sequence
from tests.simulation.simulator import Simulator
from tests.simulation.world import Walk


def check(simulator: ErasingSimulator) -> None:
    """Compare every row at every place with what the devices' programs recorded. Raises AssertionError."""
    check_erasures(simulator)
    _check_rows(simulator)
    if simulator.granted:
        move_on(simulator)
        check_erasures(simulator)
        _check_rows(simulator)


def _check_rows(simulator: ErasingSimulator) -> None:
    for walk in simulator.walks:
        _check_device(simulator, walk)
        if not isinstance(simulator, CrossingSimulator):
            _check_edges(simulator, walk)
    if isinstance(simulator, CrossingSimulator):
        check_edges(simulator)
    _check_cloud(simulator)


def _check_device(simulator: Simulator, walk: Walk) -> None:
    rows = simulator.rows_at(walk.process)
    assert sequence(rows, "edge-private") == list(range(walk.rows - walk.first_row)), simulator.describe()
    private = [(number, columns) for tier, number, columns in rows if tier == "user-private"]
    expected = [
        (place, {name: row_of(walk.process.name, number)[name] for name in ("who", "secret")})
        for generation in walk.generations
        for place, number in enumerate(generation)
        if number >= walk.first_private
    ]
    assert sorted(private, key=str) == sorted(expected, key=str), simulator.describe()


def _check_edges(simulator: Simulator, walk: Walk) -> None:
    node = walk.process.node
    assert isinstance(node, DeviceNode)
    for edge in simulator.edges:
        rows = simulator.rows_at(simulator.edges[edge], walk.process.name)
        if edge != node.whereabouts.edge:
            assert rows == [], f"{edge} still shows rows of {walk.process.name}\n{simulator.describe()}"
            continue
        assert {tier for tier, _, _ in rows} == {"edge-private", "public"}
        assert sequence(rows, "edge-private") == list(range(walk.rows - walk.first_row)), simulator.describe()
        for tier, number, columns in rows:
            said = row_of(walk.process.name, walk.first_row + number)
            assert "secret" not in columns
            assert said["who"] not in columns.values()
            if tier == "edge-private":
                assert columns["number"] == said["number"]


def _check_cloud(simulator: Simulator) -> None:
    labels = sorted(str(columns["label"]) for _, _, columns in simulator.rows_at(simulator.cloud))
    expected = sorted(
        str(row_of(walk.process.name, number)["label"])
        for walk in simulator.walks
        for number in range(walk.first_row, walk.rows)
        if row_of(walk.process.name, number)["label"] != "hush"
    )
    assert labels == expected, simulator.describe()
    assert {tier for tier, _, _ in simulator.rows_at(simulator.cloud)} == {"public"}
