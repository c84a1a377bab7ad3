"""A subject's rights on the command line, at a running edge: of a plain device, which has no place of its own."""

import json
import time
from typing import Any

import paho.mqtt.publish
import pytest

from tests.unit.cli.conftest import Site

PATIENCE_S = 30.0


def where(site: Site, subject: str, node: str = "edge") -> dict[str, Any]:
    told: dict[str, Any] = json.loads(site.done("subject", "where", subject, "--url", site.url(node), "--json"))
    return told


@pytest.fixture
def streams(site: Site) -> list[str]:
    """The streams of a row that a plain device published, once they are at the edge and the public one in the cloud."""
    row = {"user_id": "u3", "at": "2026-01-01T10:00:00Z", "ax": 0.25, "exercise": "ABD", "note": "secret"}
    topic = "ds/1/d/scale-3/json/motion"
    paho.mqtt.publish.single(topic, json.dumps(row), qos=1, hostname="127.0.0.1", port=site.broker["edge"])
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        ended = site.datasync("subject", "where", "scale-3", "--url", site.url("edge"), "--json")
        held = json.loads(ended.stdout)["streams"] if ended.returncode == 0 else []
        public = [each["stream"] for each in held if each["tier"] == "public"]
        if public and site.datasync("subject", "where", *public, "--url", site.url("cloud")).returncode == 0:
            return [each["stream"] for each in held]
    raise AssertionError("the row never arrived")


def test_where_it_is_is_told_it_is_erased_and_where_that_was_is_told(site: Site, streams: list[str]) -> None:
    told = site.done("subject", "where", "scale-3", "--url", site.url("edge"))
    assert all(stream in told for stream in streams)
    ended = site.datasync("subject", "erase", "scale-3", "--url", site.url("edge"), "--json")
    assert ended.returncode == 0, ended.stderr
    erased = json.loads(ended.stdout)
    assert ({each["stream"] for each in erased["erased"]}, erased["awaited"]) == (set(streams), [])
    assert {receipt["place"] for each in erased["erased"] for receipt in each["receipts"]} == {"acme/cbd", "acme/cloud"}
    for node in ("edge", "cloud"):
        assert all(where(site, stream, node)["erased"] for stream in streams)
    assert where(site, "scale-3")["streams"] == []
    assert "acme/cloud" in site.done("subject", "where", streams[0], "--url", site.url("edge"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("where", "nobody"), "NOT_FOUND"),
        (("where",), "CONFIG_INVALID"),
        (("erase", "nobody"), "ERASURE_FOREIGN"),
        (("export", "scale-3", "--output", "never.zip"), "ERASURE_FOREIGN"),
    ],
)
def test_what_cannot_be_is_said_with_its_code(site: Site, words: tuple[str, ...], code: str) -> None:
    ended = site.datasync("subject", *words, "--url", site.url("edge"))
    assert ended.returncode == 1
    assert code in ended.stderr
    assert "--config" in site.datasync("subject", *words).stderr
