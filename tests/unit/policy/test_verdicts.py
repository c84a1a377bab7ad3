"""Verdicts: what moves between the edges of two operators, and the tests of it that a policy carries."""

import pytest

from datasync.domain.tiers import Tier
from datasync.policy.loading import load
from datasync.policy.problems import PolicyInvalid
from datasync.policy.verdicts import moved, verdict
from tests.unit.policy.city import changed, city

RULE = "{id: H1, from: acme, to: borealis, data: trips, action: pseudonymise, fields: [gps, mode], retain: 24h}"


def with_rule(rule, *changes):
    return changed(("action: move}\n", f"action: move}}\n  - {rule}\n"), *changes)


def problems(text):
    with pytest.raises(PolicyInvalid) as caught:
        load(text.encode())
    return [each.message for each in caught.value.problems]


def test_what_no_rule_lists_moves_within_an_operator_and_is_dropped_between_two():
    policy = city(("handover:\n  - {id: H0, from: acme, to: acme, data: '*', action: move}\n", ""))

    within, between = verdict(policy, "acme", "acme", "trips"), verdict(policy, "acme", "borealis", "trips")
    assert (within.rule, within.action, within.onward) == (None, "move", True)
    assert (between.rule, between.action, between.onward) == (None, "drop", False)


def test_a_rule_between_operators_says_what_moves_and_on_which_terms():
    text = with_rule(RULE.replace("}", ", max_tier: public, purposes: [service.routing], requires: [roaming]}"))
    found = verdict(load(text.encode()), "acme", "borealis", "trips")

    assert (found.rule, found.action, found.max_tier) == ("H1", "pseudonymise", Tier.PUBLIC)
    assert (found.fields, found.purposes) == (frozenset({"gps", "mode"}), frozenset({"service.routing"}))
    assert (found.requires, found.retain_ms, found.onward) == (frozenset({"roaming"}), 86_400_000, False)
    assert verdict(load(text.encode()), "borealis", "acme", "trips").action == "drop"


def test_only_fields_with_a_form_low_enough_move():
    policy = load(with_rule("{id: H1, from: acme, to: borealis, data: '*', action: copy}").encode())
    low = load(with_rule("{id: H1, from: acme, to: borealis, data: trips, action: copy, max_tier: public}").encode())
    trips = policy.collections["trips"]

    assert moved(verdict(policy, "acme", "borealis", "trips"), trips) == ["gps", "mode", "speed", "started", "user_id"]
    assert moved(verdict(low, "acme", "borealis", "trips"), trips) == ["gps", "mode", "speed", "started"]
    assert moved(verdict(policy, "borealis", "acme", "trips"), trips) == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (RULE.replace("gps", "note"), "note has no form that is edge-private or lower"),
        (RULE.replace("gps", "gos"), "there is no field gos"),
        (RULE.replace("retain", "max_tier: user-private, retain"), "edges hold at most edge-private"),
        (RULE.replace("retain", "requires: [roming], retain"), "there is no consent roming"),
        (RULE.replace("retain", "purposes: [rest], retain"), "there is no purpose rest"),
        (RULE.replace("trips", "'*'"), "collections have different fields"),
        (RULE.replace("H1, from: acme, to: borealis", "H1, from: acme, to: acme"), "H0 already says"),
        ("{id: H1, from: acme, to: borealis, data: trips, action: drop, retain: 1d}", "nothing moves, so retain"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(rule, message):
    found = problems(with_rule(rule))

    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("to", "fields", "passes"),
    [
        ("borealis", "[mode, gps]", True),
        ("borealis", "[gps]", False),
        ("borealis", "[]", False),
        ("acme", "[gps, mode, speed, started, user_id]", True),
    ],
)
def test_a_policy_tests_what_moves(to, fields, passes):
    test = f"  - {{name: h, handover: {{from: acme, to: {to}, data: trips}}, expect: {{fields: {fields}}}}}\n"
    text = with_rule(RULE, ("tests:\n", f"tests:\n{test}"))

    if passes:
        load(text.encode())
    else:
        assert "the test 'h' fails: expected fields" in problems(text)[0]


def test_a_test_names_the_rule_by_which_it_moves():
    test = "  - {name: h, handover: {from: acme, to: borealis, data: trips}, expect: {fields: [gps, mode], by: [H0]}}\n"

    assert "expected by ['H0'], got by H1" in problems(with_rule(RULE, ("tests:\n", f"tests:\n{test}")))[0]
