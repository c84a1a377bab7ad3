"""What an edge that is full refuses, and what the cloud is never told."""

import json

from datasync.nodes.edge import EdgeNode, EdgeSettings
from datasync.nodes.links import DEVICES
from datasync.nodes.node import Arrival
from datasync.nodes.roster import Patience
from tests.unit.nodes.wire import CBD, CLOUD, WATCH, Wire


def test_an_edge_that_serves_as_many_devices_as_it_may_refuses_others_and_goes_on_with_its_own(net: Wire) -> None:
    edge = net.nodes[CBD]
    edge.build = lambda: EdgeNode(edge.kit, EdgeSettings(CLOUD, Patience(), devices_max=1))
    net.restart(CBD)
    row = {"who": "bob", "number": 7, "label": "seven", "secret": "s"}
    net.give(CBD, Arrival(DEVICES, "ds/1/d/plain-1/json/steps", json.dumps([row]).encode()))
    assert net.count("refused", "EDGE_FULL") == 1
    assert edge.rows() == {}
    net.record(1)
    assert edge.rows() == {"public": 1, "edge-private": 1}


def test_nothing_in_the_cloud_says_whose_a_stream_is(net: Wire) -> None:
    net.record(1, 2)
    net.wait(1_000)
    held = net.nodes[CLOUD].held()
    assert len(held["streams"]) == 1
    knows = {name for name, rows in held.items() if any(WATCH in str(value) for row in rows for value in row)}
    assert knows <= {"attachments"}, "where a device is, and nothing of its streams"
    streams = [row[0] for row in held["streams"]]
    assert not any(stream in str(row) for row in held["attachments"] for stream in streams)
