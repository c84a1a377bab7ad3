"""The JSON Schema of policy files: it takes what loads, what it refuses does not load, and it is the one shipped."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings

from datasync.policy import json_schema
from datasync.policy.loading import load
from datasync.policy.problems import PolicyInvalid
from datasync.policy.tree import read
from tests.unit.policy.city import CITY
from tests.unit.policy.generated import documents
from tests.unit.policy.whole import WHOLE

SHIPPED = Path(__file__).parents[3] / "deploy" / "policies" / "datasync.policy.v1.json"
DEMO = Path(__file__).parents[3] / "deploy" / "policies" / "demo.yaml"
COMMAND = "datasync policy schema > deploy/policies/datasync.policy.v1.json"
VALIDATOR = jsonschema.Draft202012Validator(json_schema.schema())


def tree(text):
    return read(text.encode(), "policy.yaml").data


def errors(data):
    return [each.message for each in VALIDATOR.iter_errors(data)]


def test_the_file_that_is_shipped_is_what_the_models_generate():
    assert SHIPPED.read_text(encoding="utf-8") == json_schema.text(), f"generate it anew: {COMMAND}"


def test_it_is_a_schema_of_the_draft_that_it_names():
    schema = json_schema.schema()
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("text", [CITY, WHOLE, DEMO.read_text(encoding="utf-8")])
def test_what_loads_is_valid(text):
    load(text.encode())
    assert errors(tree(text)) == []


@settings(max_examples=50, deadline=None, derandomize=True)
@given(documents())
def test_generated_policies_that_load_are_valid(document):
    assert errors(document) == []


def test_the_demos_policy_tells_editors_where_its_schema_is():
    first = DEMO.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema=./{SHIPPED.name}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "datasync.policy/v2"),
        (("revision",), 0),
        (("revision",), "7"),
        (("revisions",), 7),
        (("id",), "no spaces"),
        (("operators",), []),
        (("operators",), ["Acme"]),
        (("operators",), "acme"),
        (("places", "moon"), "public"),
        (("places", "edge"), "secret"),
        (("places",), None),
        (("transforms", "1st"), {"op": "drop", "from": "user-private", "to": "public"}),
        (("transforms", "x"), {"op": "encrypt", "from": "user-private", "to": "public"}),
        (("transforms", "x"), {"from": "user-private", "to": "public"}),
        (("transforms", "pid", "rotate"), "30 days"),
        (("transforms", "pid", "rotate"), 30),
        (("transforms", "pid", "precision"), 5),
        (("transforms", "pid", "key"), "device"),
        (("transforms", "cell", "precision"), 13),
        (("transforms", "cell", "precision"), 5.5),
        (("transforms", "band", "edges"), []),
        (("transforms", "gist", "keep"), -1),
        (("transforms", "gist", "side"), "left"),
        (("transforms", "zero", "value"), [0]),
        (("transforms", "dp", "epsilon"), 0),
        (("collections",), {}),
        (("collections", "trips", "kind"), "table"),
        (("collections", "trips", "key"), "mode"),
        (("collections", "preferences", "time"), "when"),
        (("collections", "trips", "fields", "speed", "type"), "float"),
        (("collections", "trips", "fields", "speed", "type"), ["string", "string"]),
        (("collections", "trips", "fields", "speed", "type"), ["point"]),
        (("collections", "trips", "fields", "speed", "type"), "vector(0)"),
        (("collections", "trips", "fields", "speed", "tier"), "private"),
        (("collections", "trips", "fields", "speed", "up", "cloud"), []),
        (("collections", "trips", "fields", "speed", "up", "fog"), ["band"]),
        (("collections", "trips", "fields", "bad-name"), {"type": "string"}),
        (("collections", "trips", "raise"), [{"to": "user-private", "where": []}]),
        (("collections", "trips", "retain", "edge"), "90"),
        (("collections", "trips", "mobility", "hot"), "everything"),
        (("collections", "trips", "mobility", "escrow"), "yes"),
        (("workers", "edge-router", "place"), "fog"),
        (("workers", "edge-router", "purposes"), []),
        (("workers", "edge-router", "tags"), ["a"]),
        (("workers", "edge-router", "clearance"), None),
        (("workers", "new"), {"place": "edge", "kind": "infer", "clearance": "public", "purposes": ["research.stats"]}),
        (("rules", 0, "effect"), "permit"),
        (("rules", 0, "to"), {}),
        (("rules", 0, "to"), {"team": "a"}),
        (("rules", 0, "fields"), ["*", "mode"]),
        (("rules", 0, "fields"), []),
        (("rules", 0, "where"), [["mode", "eq"]]),
        (("rules", 0, "where"), [["mode", "like", "a"]]),
        (("rules", 0, "where"), [["mode", "eq", "a", "b"]]),
        (("rules", 0, "where"), [["mode", "eq", ["a"]]]),
        (("rules", 0, "where"), [["mode", "in", "a"]]),
        (("rules", 0, "where"), [["mode", "in", []]]),
        (("rules", 0, "where"), [["mode", "exists", "true"]]),
        (("rules", 0, "where"), [[1, "eq", "a"]]),
        (("consent", "basis", "improve.train"), "maybe"),
        (("consent", "roaming"), True),
        (("consent", "withdraw", "stop"), "tomorrow"),
        (("erasure", "models", "public"), "keep"),
        (("handover", 0, "action"), "forward"),
        (("handover", 0, "onward"), "no way"),
        (("handover", 0, "retain"), "1 day"),
        (("tests", 0, "expect", "deny"), "NO"),
        (("tests", 0, "name"), ""),
        (("tests", 0), {"name": "asks nothing"}),
    ],
)  # fmt: skip
def test_what_the_schema_refuses_loading_refuses_too(path, value):
    data = copy.deepcopy(tree(WHOLE))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    assert errors(data), "the schema takes it"
    with pytest.raises(PolicyInvalid):
        load(as_yaml(data).encode())


@pytest.mark.parametrize(
    "path",
    [
        ("schema",),
        ("id",),
        ("purposes",),
        ("collections", "trips", "kind"),
        ("collections", "trips", "fields", "mode", "type"),
        ("workers", "edge-router", "operator"),
        ("transforms", "pid", "op"),
        ("transforms", "cell", "precision"),
        ("rules", 0, "data"),
        ("rules", 0, "fields"),
    ],
)
def test_what_is_needed_and_missing_is_refused_by_both(path):
    data = copy.deepcopy(tree(WHOLE))
    place = data
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]

    assert errors(data)
    with pytest.raises(PolicyInvalid):
        load(as_yaml(data).encode())


def test_a_mistake_is_told_for_the_operation_or_kind_that_was_meant():
    data = copy.deepcopy(tree(WHOLE))
    data["transforms"]["cell"]["precision"] = 13
    data["collections"]["trips"]["tiem"] = "started"
    assert sorted(errors(data)) == [
        "13 is greater than the maximum of 12",
        "Additional properties are not allowed ('tiem' was unexpected)",
    ]


def test_every_key_and_every_model_says_what_it_is_for():
    schema = json_schema.schema()
    for name, model in (*schema["$defs"].items(), ("Document", schema)):
        assert model["title"], name
        assert model["description"], name
        assert "``" not in model["description"], name
        for key, value in model["properties"].items():
            assert value["description"], f"{name}.{key}"


def as_yaml(data):
    """Return the data as YAML in its strictest form, which is JSON."""
    return json.dumps(data)
