"""The decision log of views over HTTP."""

import pytest

from datasync.store import decisions

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
