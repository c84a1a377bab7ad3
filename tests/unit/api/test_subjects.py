"""A subject's rights over the API: what is held is told, only their own device gives it away or erases it."""

import io
import json
import zipfile

import pytest

from datasync.domain.clock import HybridTime
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Place, Tier
from datasync.protocol import cbor, cose
from datasync.protocol.parts import EraseReceipt
from datasync.security.identity import Ed25519PrivateKey
from datasync.store import audit, erasures, streams, terms
from datasync.store.erasures import Erased, Erasure, Receipt
from datasync.store.streams import Stream
from datasync.store.terms import Terms

A, B, C = (StreamId(letter * 32) for letter in "abc")
ROW = {"speed": 1.5, "mode": "tram", "user_id": "ann"}


def where(api, subject):
    return api.get(f"/v1/subjects/{subject}/where").json


def receipt(stream, place):
    said = EraseReceipt(stream=stream, stamp=5, place=NodeName(place), segments=2, rows=20, keys=1, erased_ms=9)
    headers = {cose.HEADER_X5CHAIN: b"certificate"}
    return cose.sign(Ed25519PrivateKey.generate(), b"context", cbor.dumps(said.model_dump()), headers)


def entomb(api, stream, *places):
    """Let a stream be erased, with receipts of some places; the last one's is awaited."""
    with api.node.database.write() as tx:
        erasures.add(tx, Erasure(stream, HybridTime(7, 1), b"signed", Erased(), "trips", shredded=True))
        for place in places[:-1]:
            erasures.put_receipt(tx, Receipt(stream, place, receipt(stream, place)))
        erasures.expect(tx, [stream], places[-1:])


@pytest.fixture
def device(node, api):
    """The same, as if the node were the device watch-1."""
    node.name, node.place = NodeName("watch-1"), Place.DEVICE
    return api


def test_what_is_held_of_a_device_is_told_by_stream(api):
    api.node.capture("watch-1", [ROW, ROW])
    api.node.capture("watch-2", [ROW])
    told = where(api, "watch-1")
    assert {(each["collection"], each["segments"], each["rows"]) for each in told["streams"]} == {("trips", 1, 2)}
    assert (told["node"], told["place"], told["erased"], told["awaited"]) == ("acme/cbd", "edge", [], [])
    stream = told["streams"][0]["stream"]
    assert [each["stream"] for each in where(api, stream)["streams"]] == [stream]


def test_what_another_operator_gave_in_a_streams_place_is_told_with_it(api):
    on = Terms(
        stream=B, stands_for=A, purposes=None, retain_ms=None, onward=False, operator="globex", rule="H1", revision=1
    )
    with api.node.database.write() as tx:
        for stream in (A, B):
            streams.add(tx, Stream(stream, b"k" * 32, "watch-1", "trips", Tier.PUBLIC), api.node.now())
        terms.add(tx, on)
    assert {each["stream"]: each["stands_for"] for each in where(api, A)["streams"]} == {A: None, B: A}


@pytest.mark.parametrize("subject", ["watch-9", C, "no such name!"])
def test_of_whom_nothing_is_known_is_not_found(api, subject):
    assert api.get(f"/v1/subjects/{subject}/where").problem() == (404, "NOT_FOUND")


def test_an_erased_stream_is_told_by_its_id_and_all_of_them_only_to_their_own_device(api):
    entomb(api, A, "acme/cbd", "acme/cloud")
    (told,) = where(api, A)["erased"]
    assert (told["stream"], told["keys_destroyed"], told["awaited"]) == (A, True, ["acme/cloud"])
    assert [(each["place"], each["rows"]) for each in told["receipts"]] == [("acme/cbd", 20)]
    assert api.get("/v1/subjects/acme%2Fcbd/where").problem() == (404, "NOT_FOUND")


def test_a_device_tells_everything_that_was_erased_and_who_is_awaited(device):
    entomb(device, A, "acme/cbd", "acme/cloud")
    entomb(device, B, "watch-1", "acme/docks")
    told = where(device, "watch-1")
    assert ([each["stream"] for each in told["erased"]], told["awaited"]) == ([A, B], ["acme/cloud", "acme/docks"])
    assert device.get("/v1/admin/node").json["erasure_awaited"] == ["acme/cloud", "acme/docks"]


def test_an_export_has_the_rows_and_is_noted_in_the_audit_log(device):
    device.node.capture("watch-1", [ROW, ROW])
    answer = device.get("/v1/subjects/watch-1/export?format=arrow")
    assert answer.content_type == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
    assert {each["rows"] for each in manifest["streams"]} == {2}
    with device.node.database.read() as tx:
        assert [(each.subject, each.detail) for each in audit.page(tx, event="export")] == [
            ("watch-1", {"format": "arrow"})
        ]


def test_erasing_is_handed_to_the_node(device):
    answer = device.post("/v1/subjects/watch-1/erase", json={"collection": "trips", "everything": True})
    assert (answer.status, answer.json) == (202, {"id": "watch-1", "streams": [A]})
    device.post("/v1/subjects/watch-1/erase", json={})
    assert device.node.wanted == [("watch-1", "trips", True), ("watch-1", None, False)]


@pytest.mark.parametrize(
    ("method", "what", "body"),
    [
        ("GET", "export", None),
        ("POST", "erase", {}),
        ("POST", "consent", {"purpose": "improve.train", "given": False}),
    ],
)
def test_an_edge_gives_nothing_away_and_says_nothing_for_a_subject(api, method, what, body):
    options = {} if body is None else {"json": body}
    assert api.ask(method, f"/v1/subjects/watch-1/{what}", **options).problem() == (403, "ERASURE_FOREIGN")


def test_what_is_no_device_cannot_be_erased(device):
    assert device.post("/v1/subjects/NO%20NAME/erase", json={}).problem() == (400, "REQUEST_INVALID")


def test_consent_is_told_and_said_under_the_subject_too(device):
    said = device.post("/v1/subjects/watch-1/consent", json={"purpose": "improve.train", "given": False})
    assert (said.status, said.json["given"]) == (200, False)
    assert device.get("/v1/subjects/watch-1/consent").json["consents"] == []


@pytest.mark.parametrize("what", ["where", "export", "consent"])
def test_a_workers_token_opens_nothing_of_it(api, what):
    token = api.node.enrol("router")
    assert api.get(f"/v1/subjects/watch-1/{what}", token=token).problem() == (403, "FORBIDDEN")
