"""Administration: lists, tokens, policies and handovers."""

from dataclasses import replace

import pytest

from datasync.domain.clock import Instant
from datasync.protocol import revocations
from datasync.security.revocation import RevocationList
from datasync.store import attachments, compaction, handovers, peers, policies, revisions
from datasync.store.attachments import Attachment
from datasync.store.handovers import Handover
from datasync.store.peers import KnownPeer

NOW_MS = 1_769_900_000_000

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite", "postgres"])


def attach(api, *devices, edge="acme/cbd", epoch=4):
    with api.node.database.write() as tx:
        for device in devices:
            row = Attachment(
                device=device,
                state="active",
                incarnation=1,
                epoch=epoch,
                edge=edge,
                mode="full",
                since_ms=NOW_MS,
                updated_ms=NOW_MS,
            )
            attachments.put(tx, row)


def hear_of(api, *names, role="edge"):
    with api.node.database.write() as tx:
        for name in names:
            peers.put(tx, KnownPeer(name=name, role=role, certificate=b"", load=0.25, seen_ms=NOW_MS))


def note_handover(api, number, device="watch-1", phase="done", detail=None):
    row = Handover(
        handover=f"{number:032x}",
        device=device,
        role="source",
        peer="acme/docks",
        phase=phase,
        incarnation=1,
        epoch=number,
        planned=True,
        started_ms=NOW_MS + number // 2,
        frozen_ms=NOW_MS + 10,
        active_ms=NOW_MS + 25,
        rows=100,
        detail=detail or {},
    )
    with api.node.database.write() as tx:
        handovers.put(tx, row)


def pages(api, path, key, limit):
    """Every item of a list, page by page."""
    items, after = [], ""
    while True:
        page = api.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{after}").json
        assert len(page[key]) <= limit
        items += page[key]
        if page["next"] is None:
            return items
        after = f"&after={page['next']}"


def test_the_node_says_what_it_is(api):
    node = api.get("/v1/admin/node").json
    assert (node["name"], node["place"], node["operator"]) == ("acme/cbd", "edge", "acme")
    assert (node["policy_revision"], node["policy_digest"]) == (3, api.node.policy().digest)
    assert node["now_ms"] == NOW_MS


def test_the_node_says_why_it_refused_a_policy_last(api):
    assert api.get("/v1/admin/node").json["policy_refused"] is None
    with api.node.database.write() as tx:
        policies.refuse(tx, policies.Refusal("POLICY_INVALID", "policy:3:1: wrong", NOW_MS))
    said = {"code": "POLICY_INVALID", "detail": "policy:3:1: wrong", "at_ms": NOW_MS}
    assert api.get("/v1/admin/node").json["policy_refused"] == said


def test_the_node_says_what_of_erased_things_its_files_may_still_hold(api):
    with api.node.database.write() as tx:
        compaction.owe(tx, compaction.KEYS, NOW_MS)
        compaction.done(tx, compaction.ROWS, NOW_MS)
    node = api.get("/v1/admin/node").json
    assert (node["compaction_owed"], node["compacted_ms"]) == (["keys"], {"rows": NOW_MS})


def test_the_lists_say_which_policy_each_node_follows(api):
    attach(api, "watch-1", "watch-2")
    hear_of(api, "acme/cbd", "acme/docks")
    with api.node.database.write() as tx:
        revisions.put(tx, "watch-1", 3)
        revisions.put(tx, "acme/docks", 2)
    devices, edges = api.get("/v1/admin/devices").json["devices"], api.get("/v1/admin/edges").json["edges"]
    assert [each["policy_revision"] for each in devices] == [3, None]
    assert [each["policy_revision"] for each in edges] == [None, 2]


def test_a_signed_policy_is_judged_by_its_signature(api):
    answer = api.post("/v1/admin/policies", data=b"anything", headers={"Content-Type": "application/cose"})
    assert answer.problem() == (400, "SIGNATURE_INVALID")


def test_a_node_without_a_policy_says_that_too(bare_api):
    node = bare_api.get("/v1/admin/node").json
    assert (node["policy_revision"], node["policy_digest"]) == (None, None)


def test_devices_are_listed_with_where_they_are_and_what_waits_here(api):
    attach(api, "watch-1", "watch-2")
    api.node.capture("watch-1", [{"mode": "bike"}] * 3)
    api.node.capture("watch-1", [{"mode": "bus"}] * 2)
    first, second = api.get("/v1/admin/devices").json["devices"]
    assert (first["device"], first["edge"], first["incarnation"], first["epoch"]) == ("watch-1", "acme/cbd", 1, 4)
    assert (first["waiting"]["segments"], first["waiting"]["rows"]) == (2, 5)
    assert first["waiting"]["bytes"] > 0
    assert second["waiting"] == {"segments": 0, "rows": 0, "bytes": 0}


@pytest.mark.parametrize("limit", [1, 2, 5, 7])
def test_pages_of_devices_hold_each_one_once(api, limit):
    attach(api, *(f"watch-{number}" for number in range(5)))
    assert [d["device"] for d in pages(api, "/v1/admin/devices", "devices", limit)] == [f"watch-{n}" for n in range(5)]


def test_edges_are_listed_with_how_many_devices_they_serve(api):
    hear_of(api, "acme/docks", "borealis/mill")
    hear_of(api, "acme/cloud", role="cloud")
    attach(api, "watch-1", "watch-2", edge="acme/docks")
    edges = {edge["name"]: edge for edge in api.get("/v1/admin/edges").json["edges"]}
    assert set(edges) == {"acme/docks", "borealis/mill"}
    assert (edges["acme/docks"]["devices"], edges["borealis/mill"]["devices"]) == (2, 0)
    assert edges["borealis/mill"]["operator"] == "borealis"
    assert [e["name"] for e in pages(api, "/v1/admin/edges", "edges", 1)] == ["acme/docks", "borealis/mill"]


def test_a_registered_worker_gets_a_token_that_works_and_is_stored_as_a_hash_alone(api, tmp_path):
    registered = api.post("/v1/admin/workers", json={"worker": "router"})
    assert registered.status == 201
    token = registered.json["token"]
    assert len(token) >= 43  # 32 random bytes
    assert api.get("/v1/views/trips?purpose=service.routing", token=token).status == 200
    assert token.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("*.db*"))
    assert token not in api.get("/v1/admin/workers").body.decode()


def test_a_token_is_for_thirty_days_and_all_purposes_unless_said(api):
    plain = api.post("/v1/admin/workers", json={"worker": "router"}).json
    assert plain["expires_ms"] == NOW_MS + 30 * 86_400_000
    assert plain["purposes"] is None
    some = api.post("/v1/admin/workers", json={"worker": "stranger", "purposes": ["improve.train"]}).json
    assert some["purposes"] == ["improve.train"]
    assert api.get("/v1/views/trips?purpose=service.routing", token=some["token"]).problem() == (
        403,
        "PURPOSE_FORBIDDEN",
    )
    listed = api.get("/v1/admin/workers").json["workers"]
    assert [worker["purposes"] for worker in listed] == [None, ["improve.train"]]


def test_a_revocation_list_is_taken_shown_and_not_replaced_by_an_older_one(api):
    first = RevocationList("acme", 1, NOW_MS, ())
    authority = api.node.authority
    signed = [revocations.sign(authority, replace(first, number=number)) for number in (1, 2)]
    path, media = "/v1/admin/revocations", {"Content-Type": revocations.MEDIA_TYPE}
    answer = api.post(path, data=signed[1], headers=media)
    assert (answer.status, answer.json) == (201, {"operator": "acme", "number": 2, "certificates": 0})
    assert api.post(path, data=signed[0], headers=media).problem() == (409, "REVOCATION_STALE")
    assert api.post(path, data=signed[1][:-1], headers=media).problem() == (400, "MESSAGE_INVALID")
    assert api.get("/v1/admin/node").json["revocations"] == {"acme": 2}


def test_the_node_says_when_its_certificate_is_soon_to_be_renewed(api):
    assert api.get("/v1/admin/node").json["certificate_warning"] is None
    api.node.at = Instant(NOW_MS + 2 * 86_400_000, 0)
    assert "expires in 29 days" in api.get("/v1/admin/node").json["certificate_warning"]


def test_a_token_ends_when_it_was_said_to(api):
    token = api.post("/v1/admin/workers", json={"worker": "router", "expires_days": 1}).json["token"]
    view = "/v1/views/trips?purpose=service.routing"
    api.node.at = Instant(NOW_MS + 86_400_000 - 1, 0)
    assert api.get(view, token=token).status == 200
    api.node.at = Instant(NOW_MS + 86_400_000, 0)
    assert api.get(view, token=token).status == 401


def test_a_worker_is_registered_once_until_it_is_revoked(api):
    assert api.post("/v1/admin/workers", json={"worker": "router"}).status == 201
    assert api.post("/v1/admin/workers", json={"worker": "router"}).problem() == (409, "CONFLICT")
    assert api.ask("DELETE", "/v1/admin/workers/router").status == 204
    assert api.ask("DELETE", "/v1/admin/workers/router").problem() == (404, "NOT_FOUND")
    assert api.post("/v1/admin/workers", json={"worker": "router"}).status == 201


def test_workers_are_listed_with_whether_the_policy_knows_them(api):
    for worker in ("router", "typo"):
        api.post("/v1/admin/workers", json={"worker": worker})
    listed = pages(api, "/v1/admin/workers", "workers", 1)
    assert [(w["worker"], w["in_policy"]) for w in listed] == [("router", True), ("typo", False)]


def test_a_good_policy_becomes_active(api):
    source = api.node.policy().source.replace(b"revision: 3", b"revision: 4")
    answer = api.post("/v1/admin/policies", data=source, headers={"Content-Type": "application/yaml"})
    assert (answer.status, answer.json["revision"]) == (201, 4)
    listed = api.get("/v1/admin/policies").json["policies"]
    assert [(p["revision"], p["active"]) for p in listed] == [(4, True), (3, False)]
    assert listed[0]["digest"] == answer.json["digest"]


def test_a_policy_whose_revision_does_not_increase_is_refused(api):
    source = api.node.policy().source
    answer = api.post("/v1/admin/policies", data=source, headers={"Content-Type": "text/yaml"})
    assert answer.problem() == (409, "POLICY_REVISION_STALE")


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_handovers_are_listed_the_newest_first_and_each_once(api, limit):
    for number in range(6):
        note_handover(api, number)
    listed = pages(api, "/v1/admin/handovers", "handovers", limit)
    assert [h["epoch"] for h in listed] == [4, 5, 2, 3, 0, 1]  # two at a time started together
    assert (listed[0]["frozen_ms"], listed[0]["active_ms"], listed[0]["rows"]) == (NOW_MS + 10, NOW_MS + 25, 100)


def test_a_handover_says_what_became_of_each_collection_and_by_which_rule(api):
    given = {"action": "pseudonymise", "rule": "H1", "why": "", "given_segments": 2, "given_rows": 6}
    given |= {"kept_segments": 0, "kept_rows": 0}
    note_handover(
        api, 1, detail={"verdicts": {"trips": given, "likes": {"action": "derived", "rule": "H2", "by": "acme"}}}
    )
    (listed,) = api.get("/v1/admin/handovers").json["handovers"]
    assert listed["verdicts"]["trips"] == given | {"by": None}
    assert (listed["verdicts"]["likes"]["by"], listed["verdicts"]["likes"]["given_rows"]) == ("acme", None)


def test_handovers_are_found_by_device_and_phase(api):
    note_handover(api, 1, device="watch-1", phase="done")
    note_handover(api, 2, device="watch-1", phase="frozen")
    note_handover(api, 3, device="watch-2", phase="frozen")
    found = api.get("/v1/admin/handovers?device=watch-1&phase=frozen").json["handovers"]
    assert [h["epoch"] for h in found] == [2]


@pytest.mark.parametrize("after", ["x", "1", "1.", ".a", "9" * 30 + ".a"])
def test_a_made_up_page_of_handovers_is_refused(api, after):
    assert api.get(f"/v1/admin/handovers?after={after}").problem() == (400, "REQUEST_INVALID")


def test_a_handover_is_started(api):
    attach(api, "watch-1")
    answer = api.post("/v1/admin/handovers", json={"device": "watch-1", "target": "acme/docks"})
    assert (answer.status, answer.json) == (202, {"device": "watch-1", "target": "acme/docks"})


def test_a_handover_that_cannot_be_is_refused(api):
    attach(api, "watch-1")
    unknown = api.post("/v1/admin/handovers", json={"device": "watch-9", "target": "acme/docks"})
    assert unknown.problem() == (404, "NOT_FOUND")
    same = api.post("/v1/admin/handovers", json={"device": "watch-1", "target": "acme/cbd"})
    assert same.problem() == (409, "HANDOVER_INVALID")
    unnamed = api.post("/v1/admin/handovers", json={"device": "watch-1", "target": "Not A Name"})
    assert unnamed.problem() == (400, "REQUEST_INVALID")


def test_what_is_stored_is_counted_by_collection_and_tier(api):
    api.node.capture("watch-1", [{"mode": "bike"}] * 3)
    stored = {(s["collection"], s["tier"]): s for s in api.get("/v1/admin/stored").json["stored"]}
    assert set(stored) == {("trips", "edge-private"), ("trips", "public")}
    assert all(s["rows"] == 3 and s["segments"] == 1 for s in stored.values())
