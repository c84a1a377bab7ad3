"""What must hold when a simulated world has come to rest, row by row."""

from datasync.nodes.device import DeviceNode
from tests.simulation.crossing import CrossingSimulator
from tests.simulation.crossing_verdict import check_edges
from tests.simulation.rows import row_of, sequence
from tests.simulation.simulator import Simulator, Walk


def check(simulator: Simulator) -> None:
    """Compare every row at every place with what the devices' programs recorded. Raises AssertionError."""
    for walk in simulator.walks:
        _check_device(simulator, walk)
        if not isinstance(simulator, CrossingSimulator):
            _check_edges(simulator, walk)
    if isinstance(simulator, CrossingSimulator):
        check_edges(simulator)
    _check_cloud(simulator)


def _check_device(simulator: Simulator, walk: Walk) -> None:
    rows = simulator.rows_at(walk.process)
    assert sequence(rows, "user-private") == list(range(walk.rows)), simulator.describe()
    for tier, number, columns in rows:
        if tier == "user-private":
            said = row_of(walk.process.name, number)
            assert columns == {"who": said["who"], "secret": said["secret"]}


def _check_edges(simulator: Simulator, walk: Walk) -> None:
    node = walk.process.node
    assert isinstance(node, DeviceNode)
    for edge in simulator.edges:
        rows = simulator.rows_at(simulator.edges[edge], walk.process.name)
        if edge != node.whereabouts.edge:
            assert rows == [], f"{edge} still shows rows of {walk.process.name}\n{simulator.describe()}"
            continue
        assert {tier for tier, _, _ in rows} == {"edge-private", "public"}
        assert sequence(rows, "edge-private") == list(range(walk.rows)), simulator.describe()
        for tier, number, columns in rows:
            said = row_of(walk.process.name, number)
            assert "secret" not in columns
            assert said["who"] not in columns.values()
            if tier == "edge-private":
                assert columns["number"] == said["number"]


def _check_cloud(simulator: Simulator) -> None:
    labels = sorted(str(columns["label"]) for _, _, columns in simulator.rows_at(simulator.cloud))
    expected = sorted(
        str(row_of(walk.process.name, number)["label"])
        for walk in simulator.walks
        for number in range(walk.rows)
        if row_of(walk.process.name, number)["label"] != "hush"
    )
    assert labels == expected, simulator.describe()
    assert {tier for tier, _, _ in simulator.rows_at(simulator.cloud)} == {"public"}
