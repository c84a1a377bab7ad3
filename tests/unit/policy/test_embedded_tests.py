"""The tests that a policy carries: they run at load, and one that fails refuses the policy."""

import pytest

from datasync.policy.loading import load
from datasync.policy.problems import PolicyInvalid
from tests.unit.policy.city import changed

ROUTER = "worker: edge-router, data: trips, purpose: service.routing"
FIELD = "worker: edge-router, data: trips, field: gps, purpose: service.routing"


def extra(test):
    return changed(("tests:\n", f"tests:\n  - {{name: extra, {test}}}\n"))


def failing(test):
    """Return the messages of the extra test, which fails, at its line in the city's policy."""
    text = extra(test)
    with pytest.raises(PolicyInvalid) as caught:
        load(text.encode())
    assert {each.code for each in caught.value.problems} == {"POLICY_TEST_FAILED"}, str(caught.value)
    assert {each.line for each in caught.value.problems} == {text[: text.index("name: extra")].count("\n") + 1}
    return [each.message for each in caught.value.problems]


@pytest.mark.parametrize(
    "test",
    [
        f"ask: {{{FIELD}}}, expect: {{allow: [cell]}}",
        f"ask: {{{FIELD}}}, expect: {{allow: [cell], by: [R1]}}",
        f"ask: {{{ROUTER}}}, expect: {{allow: []}}",
        "ask: {worker: edge-guest, data: trips, field: gps, purpose: service.routing}, expect: {deny: NO_RULE}",
        f"ask: {{{ROUTER}}}, rows: [{{region: cbd, started: now-6d}}, {{region: cbd, started: now-8d}}],"
        " expect: {visible: [0]}",
        f"ask: {{{ROUTER}}}, rows: [{{region: docks, started: now}}], expect: {{visible: []}}",
        f"ask: {{{ROUTER}}}, rows: [{{region: cbd, started: null}}], expect: {{visible: []}}",
        f"ask: {{{ROUTER}}}, rows: [{{region: cbd, started: '1999-12-31T00:00:00Z'}}], expect: {{visible: [0]}}",
        "never: {tier: [user-private], place: edge}",
    ],
)
def test_a_test_that_holds_lets_the_policy_load(test):
    assert load(extra(test).encode()).document.tests[0].name == "extra"


@pytest.mark.parametrize(
    ("test", "got"),
    [
        (f"ask: {{{FIELD}}}, expect: {{allow: [cell, area]}}", "got allow ['cell'] (edge-router reads gps"),
        (f"ask: {{{FIELD}}}, expect: {{deny: NO_RULE}}", "expected deny NO_RULE, got allow ['cell']"),
        (f"ask: {{{FIELD}}}, expect: {{allow: [cell], by: [R1, R2]}}", "expected by ['R1', 'R2'], got by ['R1']"),
        (
            "ask: {worker: edge-guest, data: trips, field: gps, purpose: service.routing}, expect: {allow: []}",
            "got deny NO_RULE",
        ),
        (f"ask: {{{ROUTER}}}, rows: [{{region: cbd, started: now}}], expect: {{visible: []}}", "got visible [0]"),
        (
            f"ask: {{{ROUTER}}}, rows: [{{region: cbd, started: now}}], expect: {{visible: [0], by: [D1]}}",
            "got by ['R1']",
        ),
        (f"ask: {{{ROUTER}}}, rows: [{{note: x}}], expect: {{visible: []}}", "row 0: edge-router sees no note"),
        (f"ask: {{{ROUTER}}}, rows: [{{speed: fast}}], expect: {{visible: []}}", "'fast' is no float32"),
        (f"ask: {{{ROUTER}}}, rows: [{{started: now-7}}], expect: {{visible: []}}", "'7' is no duration"),
        (
            f"ask: {{{ROUTER.replace('router', 'guest')}}}, rows: [{{mode: x}}], expect: {{visible: [0]}}",
            "got deny NO_RULE",
        ),
        ("never: {tier: [public], place: cloud}", "expected no public data at the cloud, got trips.gps"),
    ],
)
def test_a_test_that_fails_refuses_the_policy_and_says_what_came(test, got):
    messages = failing(test)

    assert messages
    assert messages[0].startswith("the test 'extra' fails: expected ")
    assert got in messages[0]


@pytest.mark.parametrize(
    "test",
    [
        "expect: {allow: []}",
        f"ask: {{{FIELD}}}",
        f"ask: {{{FIELD}}}, expect: {{allow: [cell], deny: NO_RULE}}",
        f"ask: {{{FIELD}}}, expect: {{visible: [0]}}",
        f"ask: {{{FIELD}}}, rows: [{{mode: x}}], expect: {{visible: [0]}}",
        f"ask: {{{FIELD}}}, expect: {{allow: [cell]}}, never: {{tier: [public], place: edge}}",
        f"ask: {{{FIELD}}}, expect: {{fields: [gps]}}",
    ],
)
def test_a_test_that_asks_nothing_is_a_problem(test):
    with pytest.raises(PolicyInvalid, match="asks nothing that can be answered"):
        load(extra(test).encode())
