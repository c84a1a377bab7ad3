"""The logs over HTTP: of views, and of administration."""

from dataclasses import replace

import pytest

from datasync.api.audit import INTERVAL_MS
from datasync.store import audit, decisions

VIEW = "/v1/views/trips?purpose=service.routing"


@pytest.fixture
def token(api):
    return api.node.enrol("router")


def entries(api):
    return api.get("/v1/admin/audit").json["entries"]


def test_a_view_that_is_opened_and_read_is_logged_with_what_was_shown(api, token):
    api.node.capture("watch-1", [{"user_id": "u", "speed": 1.0, "mode": "bike"}] * 3)
    answer = api.get(VIEW, token=token)
    opened, read = entries(api)
    assert (opened["event"], read["event"]) == ("opened", "read")
    assert opened["worker"] == "router"
    assert opened["collection"] == "trips"
    assert opened["purpose"] == "service.routing"
    assert opened["code"] == "ALLOW"
    assert opened["rules"]
    assert opened["fields"] == ["speed", "mode"]
    assert (opened["rows"], read["rows"]) == (0, 3)
    assert 0 < read["bytes"] <= len(answer.body)
    assert opened["digest"] == answer.headers["X-Datasync-Policy"]


def test_a_view_that_the_policy_denies_is_logged_with_why(api, token):
    answer = api.get("/v1/views/trips?purpose=nothing.else", token=token)
    assert answer.status == 403
    (refused,) = entries(api)
    assert (refused["event"], refused["code"]) == ("refused", answer.json["reason"])


def test_the_log_is_read_on_from_a_number_and_is_whole(api, token):
    for _ in range(3):
        api.get(VIEW, token=token)
    later = api.get("/v1/admin/audit?after=4&limit=1").json["entries"]
    assert [each["number"] for each in later] == [5]
    with api.node.database.read() as tx:
        assert decisions.verify(tx) is None


def test_the_log_is_for_the_administrator(api, token):
    assert api.get("/v1/admin/audit", token=token).status == 403


def administered(api, kind="administration"):
    return api.get(f"/v1/admin/audit?kind={kind}").json["administration"]


def test_a_worker_that_is_registered_and_revoked_is_logged_and_one_that_is_not_is_not(api):
    registration = {"worker": "router", "expires_days": 1}
    assert api.post("/v1/admin/workers", json=registration).status == 201
    assert api.post("/v1/admin/workers", json=registration).status == 409
    assert api.ask("DELETE", "/v1/admin/workers/router").status == 204
    assert api.ask("DELETE", "/v1/admin/workers/router").status == 404
    enrolled, revoked = administered(api)
    assert (enrolled["event"], enrolled["actor"], enrolled["subject"]) == (
        "worker-enrolled",
        "administrator",
        "router",
    )
    assert enrolled["detail"]["expires_ms"] > api.node.now().wall_ms
    assert (revoked["number"], revoked["event"], revoked["subject"]) == (2, "worker-revoked", "router")
    assert administered(api, "worker-revoked") == [revoked]
    assert api.get("/v1/admin/audit?kind=administration&after=1").json["administration"] == [revoked]
    assert entries(api) == []


def test_no_token_is_in_the_log(api):
    token = api.post("/v1/admin/workers", json={"worker": "router"}).json["token"]
    answer = api.get("/v1/admin/audit?kind=administration").body
    assert token.encode() not in answer
    assert audit.Event.WORKER_ENROLLED.encode() in answer


def test_a_kind_that_is_none_is_refused(api):
    assert api.get("/v1/admin/audit?kind=everything").problem() == (400, "REQUEST_INVALID")


def test_refused_sign_ins_are_logged_once_a_minute_with_their_number(api, token):
    for _ in range(30):
        assert api.get("/v1/admin/devices", token="made up").status == 401
        assert api.get("/v1/admin/devices", token=token).status == 403
    (first,) = administered(api, "sign-in-refused")
    assert (first["actor"], first["subject"]) == ("127.0.0.1", "/v1/admin/devices")
    assert first["detail"] == {"code": "UNAUTHENTICATED", "refused": 1}
    api.node.at = replace(api.node.at, wall_ms=api.node.at.wall_ms + INTERVAL_MS)
    assert api.get("/v1/admin/devices", token="made up").status == 401
    assert administered(api, "sign-in-refused")[1]["detail"] == {"code": "UNAUTHENTICATED", "refused": 60}


def test_who_shows_no_token_or_asks_for_a_view_is_no_administrator_that_was_refused(api):
    assert api.get("/v1/admin/devices", token=None).status == 401
    assert api.get(VIEW, token="made up").status == 401
    assert administered(api, "sign-in-refused") == []
