"""Consent over the API: what is held is listed, and only a device says more."""

import itertools

import pytest

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Place, Tier
from datasync.store import consents, streams
from datasync.store.consents import Consent
from datasync.store.segments import State
from datasync.store.streams import Stream

CONSENTS = "/v1/admin/consents"
A, B, C = (StreamId(letter * 32) for letter in "abc")

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite", "postgres"])


@pytest.fixture
def held(api):
    """Three streams of two devices and nobody, each with a yes and a no."""
    stamps = itertools.count(1)
    with api.node.database.write() as tx:
        for stream, device in ((A, "watch-1"), (B, "watch-2"), (C, None)):
            row = Stream(
                stream=stream, public_key=stream.encode(), device=device, collection="trips", tier=Tier.EDGE_PRIVATE
            )
            streams.add(tx, row, api.node.now())
            for purpose, given in (("improve.train", True), ("service.routing", False)):
                stamp = HybridTime(next(stamps), 7)
                consents.put(tx, Consent(stream, purpose, given, stamp, b"signed", State.SAFE))
    return api


def listed(api, query=""):
    return [(each["stream"], each["purpose"], each["given"]) for each in api.get(f"{CONSENTS}{query}").json["consents"]]


def test_what_is_held_is_listed_with_whose_it_is_and_when_it_was_said(held):
    page = held.get(CONSENTS).json
    assert (len(page["consents"]), page["said"], page["next"]) == (6, [], None)
    assert page["consents"][0] == {
        "device": "watch-1", "stream": A, "collection": "trips", "tier": "edge-private",
        "purpose": "improve.train", "given": True, "stamp_ms": 1, "stamp_counter": 7,
    }  # fmt: skip
    assert page["consents"][-1]["device"] is None


def test_consents_are_found_by_device_and_by_stream(held):
    assert listed(held, "?device=watch-2") == [(B, "improve.train", True), (B, "service.routing", False)]
    assert listed(held, f"?stream={C}") == [(C, "improve.train", True), (C, "service.routing", False)]
    assert listed(held, f"?stream={C}&device=watch-1") == []


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_consents_come_in_pages_and_each_once(held, limit):
    found, after = [], ""
    while True:
        page = held.get(f"{CONSENTS}?limit={limit}{after}").json
        found += [(each["stream"], each["purpose"]) for each in page["consents"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == [(stream, purpose) for stream in (A, B, C) for purpose in ("improve.train", "service.routing")]


def test_a_cursor_that_is_none_is_refused(api):
    assert api.get(f"{CONSENTS}?after=x").problem() == (400, "REQUEST_INVALID")


def test_only_a_device_may_speak(api):
    answer = api.ask("PUT", f"{CONSENTS}/improve.train", json={"given": True})
    assert answer.problem() == (403, "CONSENT_FOREIGN")


def test_a_device_says_what_its_subject_allows(api):
    api.node.place = Place.DEVICE
    before = {each["purpose"]: each for each in api.get(CONSENTS).json["said"]}
    assert before["improve.train"] == {
        "purpose": "improve.train", "basis": "contract", "given": None, "stamp_ms": None
    }  # fmt: skip
    assert set(before) == {"improve.train", "service.routing", "roaming"}
    for given in (True, False):
        answer = api.ask("PUT", f"{CONSENTS}/improve.train", json={"given": given})
        assert (answer.status, answer.json["given"]) == (200, given)
        said = {each["purpose"]: each["given"] for each in api.get(CONSENTS).json["said"]}
        assert said == {"improve.train": given, "service.routing": None, "roaming": None}


@pytest.mark.parametrize(
    ("purpose", "body", "problem"),
    [
        ("guessed", {"given": True}, (404, "NOT_FOUND")),
        ("improve.train", {"given": "yes"}, (400, "REQUEST_INVALID")),
        ("improve.train", {}, (400, "REQUEST_INVALID")),
        ("improve.train", {"given": True, "more": 1}, (400, "REQUEST_INVALID")),
    ],
)
def test_what_cannot_be_said_is_refused(api, purpose, body, problem):
    api.node.place = Place.DEVICE
    assert api.ask("PUT", f"{CONSENTS}/{purpose}", json=body).problem() == problem


def test_consent_is_for_the_administrator_alone(api):
    token = api.node.enrol("router")
    assert api.get(CONSENTS, token=token).problem() == (403, "FORBIDDEN")
    assert api.ask("PUT", f"{CONSENTS}/improve.train", token=None, json={"given": True}).problem()[0] == 401
