"""Tokens: who is let in, who is told to sign in, and who is told no."""

import pytest

from datasync.api.access import Access
from datasync.api.table import ROUTES
from datasync.store import workers

VIEW = "/v1/views/trips?purpose=service.routing&format=jsonl"


def test_without_a_token_a_protected_path_asks_for_one(api):
    answer = api.get(VIEW, token=None)
    assert answer.problem() == (401, "UNAUTHENTICATED")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Basic dG9rZW4=", "token-of-router", "Bearer " + "x" * 5000, "Bearer gr\xfcn"]
)
def test_what_is_no_bearer_token_is_refused(api, header):
    assert api.get(VIEW, token=None, headers={"Authorization": header}).problem() == (401, "UNAUTHENTICATED")


def test_an_unknown_token_is_refused(api):
    assert api.get(VIEW, token="made up").problem() == (401, "UNAUTHENTICATED")


def test_a_token_for_some_purposes_opens_views_for_no_other(api):
    token = api.node.enrol("router", purposes=("improve.train",))
    assert api.get(VIEW, token=token).problem() == (403, "PURPOSE_FORBIDDEN")
    wider = api.node.enrol("router", purposes=("improve.train", "service.routing"))
    assert api.get(VIEW, token=wider).status == 200


def test_an_expired_token_is_refused(api):
    token = api.node.enrol("router", expires_ms=api.node.now().wall_ms)
    assert api.get(VIEW, token=token).problem() == (401, "UNAUTHENTICATED")


def test_a_revoked_token_is_refused(api):
    token = api.node.enrol("router")
    assert api.get(VIEW, token=token).status == 200
    assert api.ask("DELETE", "/v1/admin/workers/router").status == 204
    assert api.get(VIEW, token=token).problem() == (401, "UNAUTHENTICATED")


def test_the_hash_of_a_token_is_no_token(api):
    api.node.enrol("router")
    assert api.get(VIEW, token=workers.token_hash("token-of-router")).problem() == (401, "UNAUTHENTICATED")
    assert api.get("/v1/admin/node", token=api.node.admin_token_hash).problem() == (401, "UNAUTHENTICATED")


def test_a_node_without_an_administrator_lets_none_in(api):
    api.node.admin_token_hash = ""
    assert api.get("/v1/admin/node").problem() == (401, "UNAUTHENTICATED")


def test_the_administrator_opens_no_view(api):
    answer = api.get(VIEW)
    assert answer.problem() == (403, "FORBIDDEN")
    assert "administrator" in answer.json["detail"]


@pytest.mark.parametrize("route", [r for r in ROUTES if r.access is Access.ADMIN], ids=lambda r: f"{r.method} {r.path}")
def test_a_worker_may_not_administrate(api, route):
    token = api.node.enrol("router")
    path = route.path.format(worker="router", purpose="improve.train", id="watch-1")
    assert api.ask(route.method, path, token=token).problem() == (403, "FORBIDDEN")
    assert api.ask(route.method, path, token=None).problem() == (401, "UNAUTHENTICATED")


def test_a_worker_of_another_place_opens_no_view(api):
    answer = api.get(VIEW, token=api.node.enrol("trainer"))
    assert answer.problem() == (403, "FORBIDDEN")
    assert "cloud" in answer.json["detail"]


def test_a_worker_of_another_operator_opens_no_view_at_an_edge(api):
    answer = api.get(VIEW, token=api.node.enrol("stranger"))
    assert answer.problem() == (403, "ACCESS_DENIED")
    assert answer.json["reason"] == "NO_OPERATOR"


def test_a_worker_that_the_policy_does_not_name_opens_no_view(api):
    assert api.get(VIEW, token=api.node.enrol("nobody")).problem() == (403, "FORBIDDEN")


def test_a_worker_asks_the_policy_about_itself_and_not_about_another(api):
    token = api.node.enrol("router")
    question = "/v1/explain?collection=trips&field=speed&purpose=service.routing&worker="
    assert api.get(question + "router", token=token).json["allowed"]
    assert api.get(question + "stranger", token=token).problem() == (403, "FORBIDDEN")
    assert api.get(question + "stranger").json["code"] == "NO_OPERATOR"
