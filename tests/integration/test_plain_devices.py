"""Plain MQTT devices, which publish JSON: the edge captures for them, and keeps nothing that is private to its user."""

import itertools
import json
import struct
from collections.abc import Iterator
from typing import Any

import paho.mqtt.publish
import pytest

from tests.integration import rows, verdict
from tests.integration.deployment import CBD, Deployment, Server

names = (f"plain-{number}" for number in itertools.count())


@pytest.fixture
def edge(deployment: Deployment) -> Server:
    return deployment.edges[CBD]


def publish(edge: Server, device: str, payload: Any, collection: str = rows.TRIPS) -> None:
    """Publish as a plain device does; return when the broker has the message."""
    content = payload if isinstance(payload, bytes) else json.dumps(payload)
    topic = f"ds/1/d/{device}/json/{collection}"
    paho.mqtt.publish.single(topic, content, qos=1, hostname="127.0.0.1", port=edge.broker.port)


def as_json(device: str, numbers: range) -> list[dict[str, Any]]:
    """Return rows as a device without our agent would write them."""
    recorded = [rows.row_of(device, number) for number in numbers]
    return [row | {"started": row["started"].isoformat()} for row in recorded]


def seen(server: Server, worker: str, device: str) -> list[dict[str, Any]]:
    found = [row for row in verdict.view(server, worker) if row["label"].startswith(f"{device}/")]
    return sorted(found, key=lambda row: int(row["label"].split("/")[1]))


def await_rows(deployment: Deployment, server: Server, worker: str, device: str, count: int) -> list[dict[str, Any]]:
    deployment.until(lambda: len(seen(server, worker, device)) >= count, f"{count} rows at {server.name}")
    return seen(server, worker, device)


def test_rows_published_as_json_are_seen_at_the_edge_and_in_the_cloud_as_the_policy_says(deployment, edge) -> None:
    device, numbers = next(names), range(20)
    publish(edge, device, as_json(device, numbers)[0])
    publish(edge, device, as_json(device, numbers)[1:])
    visible = [number for number in numbers if rows.row_of(device, number)["mode"] != "private_road"]
    at_edge = await_rows(deployment, edge, rows.EDGE_WORKER, device, len(visible))
    pseudonyms = {row.pop("user_id") for row in at_edge}
    assert at_edge == [_edge_view(device, number) for number in visible]
    assert len(pseudonyms) == 1
    assert all(len(each) == 32 for each in pseudonyms)
    public = [form for number in numbers if (form := rows.public_form(device, number)) is not None]
    assert await_rows(deployment, deployment.cloud, rows.CLOUD_WORKER, device, len(public)) == public


def _edge_view(device: str, number: int) -> dict[str, Any]:
    row = rows.row_of(device, number)
    return {
        "gps": rows.geohash(row["gps"], 5),
        "started": row["started"].replace(minute=0, second=0, microsecond=0),
        "speed": row["speed"],
        "mode": row["mode"],
        "label": row["label"],
    }


def test_nothing_that_is_private_to_a_user_is_kept_by_a_server(deployment, edge) -> None:
    device = next(names)
    published = as_json(device, range(12))
    wrong = {**published[0], "note": ["a canary in the wrong type"], "label": f"{device}/99"}
    refused = edge.refused("ROWS_INVALID")
    publish(edge, device, published)
    publish(edge, device, wrong)
    deployment.until(lambda: edge.refused("ROWS_INVALID") == refused + 1, "the refusal")
    await_rows(deployment, edge, rows.EDGE_WORKER, device, 10)
    needles = [b"canary", f"person of {device}".encode(), f"secret {device}".encode()]
    for number in range(12):
        point = rows.row_of(device, number)["gps"]
        needles += [struct.pack("<d", point["lat"]), repr(point["lat"]).encode()]
    for server in deployment.servers:
        found = {(needle, where) for where, content in _kept(server) for needle in needles if needle in content}
        assert found == set()
    assert any(f"{device}/3".encode() in content for _, content in verdict.haystacks(edge))


def _kept(server: Server) -> Iterator[tuple[str, bytes]]:
    """What a server has; what its broker keeps of messages on their way is not its own."""
    return ((where, content) for where, content in verdict.haystacks(server) if "mosquitto" not in where)


DEEP = b"[" * 100_000
BAD_PAYLOADS = [
    pytest.param("ROWS_INVALID", rows.TRIPS, b"", id="empty"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b"{", id="torn"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b"\xff\xfe\x00", id="no text"),
    pytest.param("ROWS_INVALID", rows.TRIPS, DEEP, id="deep"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b"7", id="a number"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b"[]", id="no rows"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b"[{}, 7]", id="a row that is none"),
    pytest.param("ROWS_INVALID", rows.TRIPS, json.dumps([{}] * 10_001).encode(), id="too many rows"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"speed": "fast"}', id="text for a number"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"speed": 1e999}', id="an infinite number"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"speed": NaN}', id="no number"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"speed": ' + b"9" * 5_000 + b"}", id="a huge number"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"mode": "\\ud800"}', id="half a character"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"started": "2026-01-01T00:00:00"}', id="a time without zone"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"started": "9999-12-31T23:59:59-23:59"}', id="a time beyond time"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"gps": {"lat": 1}}', id="half a point"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"altitude": 7}', id="unknown field"),
    pytest.param("ROWS_INVALID", rows.TRIPS, b'{"\\ud800": 7}', id="unknown field that is no text"),
    pytest.param("MESSAGE_TOO_LARGE", rows.TRIPS, json.dumps({"mode": "x" * (1 << 20)}).encode(), id="over 1 MiB"),
    pytest.param("COLLECTION_UNKNOWN", "journeys", b"{}", id="unknown collection"),
]


@pytest.mark.parametrize(("code", "collection", "payload"), BAD_PAYLOADS)
def test_bad_json_is_refused_with_its_code_and_the_edge_goes_on(deployment, edge, code, collection, payload) -> None:
    device, before = next(names), edge.refused(code)
    publish(edge, device, payload, collection)
    deployment.until(lambda: edge.refused(code) > before, f"the refusal {code}")
    assert edge.refused(code) == before + 1
    publish(edge, device, as_json(device, range(1)))
    await_rows(deployment, edge, rows.EDGE_WORKER, device, 1)
    assert edge.metric("datasync_failures_total") == 0


def test_a_name_that_is_none_is_refused(deployment, edge) -> None:
    before = edge.refused("MESSAGE_INVALID")
    publish(edge, "Not A Name", as_json("x", range(1)))
    deployment.until(lambda: edge.refused("MESSAGE_INVALID") == before + 1, "the refusal")


def test_a_device_that_signs_for_itself_may_not_publish_json(deployment, edge) -> None:
    device = deployment.device("signing")
    device.start()
    deployment.until(device.is_at_work, "the device to record")
    deployment.until(lambda: edge.account(device.name).state == "active", "the device to attach")
    before = edge.refused("NOT_ATTACHED")
    publish(edge, device.name, as_json(device.name, range(1)))
    deployment.until(lambda: edge.refused("NOT_ATTACHED") == before + 1, "the refusal")
    assert device.stop() == 0


def test_what_is_published_while_the_edge_is_down_is_captured_when_it_is_back(deployment, edge) -> None:
    device = next(names)
    edge.kill()
    for number in range(6):
        publish(edge, device, as_json(device, range(number, number + 1)))
    edge.start()
    deployment.until(edge.is_at_work, "the edge to be back")
    found = await_rows(deployment, edge, rows.EDGE_WORKER, device, 6)
    assert [row["label"] for row in found] == [f"{device}/{number}" for number in range(6)]
