"""The description: valid OpenAPI 3.1 that says what is served, no more and no less."""

import json
import re

from datasync.api.app import application
from datasync.api.openapi import describe
from datasync.api.table import ROUTES

DOCUMENT = json.loads(json.dumps(describe(ROUTES)))


def operations():
    return [(path, method, op) for path, methods in DOCUMENT["paths"].items() for method, op in methods.items()]


def references(part):
    match part:
        case {"$ref": str(target)}:
            yield target
        case dict():
            for value in part.values():
                yield from references(value)
        case list():
            for value in part:
                yield from references(value)


def test_it_is_served_as_it_is_made(api):
    answer = api.get("/openapi.json", token=None)
    assert (answer.content_type, answer.json) == ("application/json", DOCUMENT)


def test_it_describes_what_is_routed_and_nothing_else(node):
    routed = {
        (route.resource.canonical, route.method.lower())
        for route in application(node).router.routes()
        if route.resource is not None
    }
    assert {(path, method) for path, method, _ in operations()} == routed


def test_it_has_what_the_specification_requires():
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"]["title"]
    assert DOCUMENT["info"]["version"]
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    for _, _, operation in operations():
        assert operation["responses"]
        assert all(re.fullmatch(r"[1-5]\d\d", status) for status in operation["responses"])
        assert all(response["description"] for response in operation["responses"].values())
        for response in operation["responses"].values():
            assert all("schema" in content for content in response.get("content", {}).values())


def test_every_reference_leads_somewhere():
    found = set(references(DOCUMENT))
    assert found
    for target in found:
        part = DOCUMENT
        for step in target.removeprefix("#/").split("/"):
            part = part[step]


def test_path_parameters_are_declared_and_required():
    for path, _, operation in operations():
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")
        assert all(p["schema"] for p in operation["parameters"])
        assert "null" not in json.dumps(operation["parameters"])


def test_every_error_is_described_as_problem_details():
    for _, _, operation in operations():
        failures = {s: r for s, r in operation["responses"].items() if s >= "400"}
        assert "500" in failures
        for response in failures.values():
            assert list(response["content"]) == ["application/problem+json"]


def test_protected_operations_say_whose_token_they_need():
    schemes = DOCUMENT["components"]["securitySchemes"]
    for path, _, operation in operations():
        needed = {name for requirement in operation["security"] for name in requirement}
        assert needed <= set(schemes)
        assert bool(needed) == path.startswith("/v1/")
        if needed:
            assert {"401", "403"} <= set(operation["responses"])
    register = DOCUMENT["paths"]["/v1/admin/workers"]["post"]["security"]
    assert {name for r in register for name in r} == {"administrator", "certificate"}


def test_a_view_is_described_with_its_formats_headers_and_refusals():
    view = DOCUMENT["paths"]["/v1/views/{collection}"]["get"]
    assert set(view["responses"]["200"]["content"]) == {
        "application/vnd.apache.arrow.stream",
        "application/x-ndjson",
        "text/csv",
    }
    assert "X-Datasync-Cursor" in view["responses"]["200"]["headers"]
    assert "ACCESS_DENIED" in view["responses"]["403"]["description"]
    assert {p["name"] for p in view["parameters"]} == {"collection", "purpose", "after", "limit", "format"}
