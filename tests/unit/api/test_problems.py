"""Errors: each one is problem details with a stable code, and none tells what is inside."""

import asyncio
import json

import pytest

from datasync.domain.errors import StoreError
from datasync.domain.limits import BUNDLE_BYTES_MAX

POLICIES = "/v1/admin/policies"
ADMIN = "the administrator's token"
YAML = {"Content-Type": "application/yaml"}


def test_an_unknown_path(api):
    assert api.get("/v2/nothing").problem() == (404, "NOT_FOUND")


def test_a_method_that_is_not_served_says_which_are(api):
    answer = api.ask("PUT", POLICIES)
    assert answer.problem() == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == "GET,POST"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "purpose"),
        ("purpose=service.routing&folow=1", "folow"),
        ("purpose=service.routing&after=-1", "after"),
        ("purpose=service.routing&after=x", "after"),
        ("purpose=service.routing&after=9223372036854775808", "after"),
        ("purpose=service.routing&limit=0", "limit"),
        ("purpose=service.routing&format=parquet", "format"),
        ("purpose=service.routing&purpose=improve.train", "purpose"),
        ("purpose=service.routing&collection=other", "collection"),
    ],
)
def test_a_bad_parameter_is_named(api, query, named):
    answer = api.get(f"/v1/views/trips?{query}", token=api.node.enrol("router"))
    assert answer.problem() == (400, "REQUEST_INVALID")
    assert repr(named) in answer.json["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"worker": 7}',
        b'{"worker": "a b"}',
        b'{"worker": "router", "expires_days": 0}',
        b'{"worker": "router", "more": 1}',
        b"\xff\xfe",
    ],
)
def test_a_bad_json_body(api, body):
    answer = api.post("/v1/admin/workers", data=body, headers={"Content-Type": "application/json"})
    assert answer.problem() == (400, "REQUEST_INVALID")


def test_a_body_of_another_media_type(api):
    answer = api.post(POLICIES, data=b"x", headers={"Content-Type": "text/plain"})
    assert answer.problem() == (415, "MEDIA_TYPE_UNSUPPORTED")
    assert "application/yaml" in answer.json["detail"]


def test_a_body_that_says_it_is_too_large_is_not_waited_for(api):
    async def announce():
        reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
        lines = [
            f"POST {POLICIES} HTTP/1.1",
            "Host: node",
            f"Authorization: Bearer {ADMIN}",
            "Content-Type: application/yaml",
            f"Content-Length: {BUNDLE_BYTES_MAX + 1}",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        status = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return status

    assert b"413" in api.run(asyncio.wait_for(announce(), 10))


def test_a_body_that_turns_out_too_large(api):
    async def pieces():
        for _ in range(20):
            yield b"#" * 65_536

    assert api.post(POLICIES, data=pieces(), headers=YAML).problem() == (413, "BODY_TOO_LARGE")
    small = {"Content-Type": "application/json"}
    assert api.post("/v1/admin/workers", data=pieces(), headers=small).problem() == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("error", [RuntimeError("password=hunter2"), StoreError("no space in /srv/secret")])
def test_what_the_node_got_wrong_says_nothing_internal_and_is_logged(api, caplog, error):
    def broken():
        raise error

    api.node.ready = broken
    answer = api.get("/readyz")
    assert answer.problem() == (500, "STORE_FAILED" if isinstance(error, StoreError) else "INTERNAL")
    assert not any(word in answer.body.decode() for word in ("hunter2", "secret", "Traceback"))
    assert str(error) in caplog.text


def test_a_bad_policy_is_answered_with_every_problem_and_where_it_is(api):
    before = api.node.policy()
    source = b"schema: datasync.policy/v1\nid: x\nrevision: 4\nunknown: 1\nalso_unknown: 2\n"
    answer = api.post(POLICIES, data=source, headers=YAML)
    assert answer.problem() == (422, "POLICY_INVALID")
    problems = answer.json["problems"]
    assert {(4, 1), (5, 1)} <= {(problem["line"], problem["column"]) for problem in problems}
    assert all(problem["code"] and problem["message"] for problem in problems)
    assert api.node.policy() is before


def test_every_answer_has_the_security_headers(api):
    for path in ("/", "/healthz", "/nothing", "/v1/admin/node"):
        headers = api.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Server"] == "datasync"


def test_without_a_policy_nothing_may_be_read(bare_api):
    token = bare_api.node.enrol("router")
    answer = bare_api.get("/v1/views/trips?purpose=service.routing", token=token)
    assert answer.problem() == (503, "POLICY_MISSING")
    assert bare_api.get("/v1/explain?worker=router&collection=trips&purpose=p").problem() == (503, "POLICY_MISSING")


def test_what_is_denied_says_by_which_code(api):
    answer = api.get("/v1/views/secrets?purpose=service.routing", token=api.node.enrol("router"))
    assert answer.problem() == (403, "ACCESS_DENIED")
    assert answer.json["reason"] == "NO_RULE"
    unasked = api.get("/v1/views/trips?purpose=improve.train", token=api.node.enrol("router"))
    assert unasked.json["reason"] == "NO_PURPOSE"


def test_a_collection_that_is_not_there(api):
    answer = api.get("/v1/views/nothing?purpose=service.routing", token=api.node.enrol("router"))
    assert answer.status == 404
    assert json.loads(answer.body)["code"] in ("NOT_FOUND", "COLLECTION_UNKNOWN")
