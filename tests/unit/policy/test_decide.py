"""Decisions: the order of the questions, and views that show what the decisions say."""

import itertools
from dataclasses import replace

import pyarrow as pa
import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied, NotFound
from datasync.domain.tiers import Tier
from datasync.policy.decide import decide, view_rules, worker
from datasync.policy.types import TIMESTAMP
from tests.unit.policy.city import city, untested

NOW = Instant(1_700_000_000_000, 0)


def ask(policy, who, field, purpose="service.routing", **more):
    return decide(policy, worker(policy, who), "trips", field, purpose, **more)


def with_rules(*rules, change=()):
    """Return the city's policy with further rules."""
    lines = "".join(f"  - {rule}\n" for rule in rules)
    return untested(("consent:\n", f"{lines}consent:\n"), *change)


def test_an_allowed_field_comes_with_rules_tier_chain_and_a_sentence():
    decision = ask(city(), "edge-router", "gps")

    assert (decision.allowed, decision.code, decision.rules) == (True, "ALLOW", ("R1",))
    assert (decision.tier, decision.chain) == (Tier.EDGE_PRIVATE, ("cell",))
    assert decision.detail == "edge-router reads gps as cell, edge-private, by R1."


def test_a_lower_clearance_reads_the_lower_form():
    policy = with_rules("{id: R9, effect: allow, to: {worker: edge-guest}, data: trips, fields: '*'}")

    assert ask(policy, "edge-guest", "gps").chain == ("cell", "area")
    assert ask(policy, "edge-guest", "mode").chain == ()


@pytest.mark.parametrize(
    ("who", "field", "purpose", "rules", "more", "code"),
    [
        (
            "edge-router",
            "gps",
            "x",
            ["{id: D9, effect: deny, to: {place: edge}, data: trips, fields: [gps]}"],
            {},
            "DENIED_BY",
        ),
        ("edge-guest", "gps", "x", [], {}, "NO_RULE"),
        ("edge-router", "note", "x", [], {}, "NO_RULE_FIELD"),
        (
            "edge-guest",
            "user_id",
            "x",
            ["{id: R9, effect: allow, to: {place: edge}, data: trips, fields: '*'}"],
            {},
            "NO_READ_UP",
        ),
        (
            "edge-guest",
            "note",
            "x",
            ["{id: R9, effect: allow, to: {place: edge}, data: trips, fields: '*'}"],
            {},
            "NO_PATH",
        ),
        (
            "cloud-trainer",
            "user_id",
            "x",
            ["{id: R9, effect: allow, to: {place: cloud}, data: trips, fields: '*'}"],
            {},
            "NO_PATH",
        ),
        ("edge-router", "gps", "improve.train", [], {"operator": "borealis"}, "NO_PURPOSE"),
        ("edge-router", "gps", "service.routing", [], {"operator": "borealis"}, "NO_OPERATOR"),
        ("cloud-trainer", "speed", "improve.train", [], {"consent": {}, "operator": "borealis"}, "NO_OPERATOR"),
        ("cloud-trainer", "speed", "improve.train", [], {"consent": {}, "operator": "acme"}, "NO_CONSENT"),
        ("cloud-trainer", "speed", "improve.train", [], {"consent": {"improve.train": True}}, "ALLOW"),
    ],
)
def test_the_first_question_that_fails_is_the_answer(who, field, purpose, rules, more, code):
    decision = ask(with_rules(*rules), who, field, purpose, **more)

    assert decision.code == code
    assert decision.allowed == (code == "ALLOW")
    assert decision.detail.endswith(".")
    if not decision.allowed:
        assert (decision.tier, decision.chain) == (None, ())


def test_a_denial_names_the_rules_that_deny():
    rules = [
        "{id: D9, effect: deny, to: {place: edge}, data: trips, fields: [gps]}",
        "{id: D8, effect: deny, to: {kind: infer}, data: trips, fields: [gps, speed]}",
    ]
    policy = with_rules(*rules)

    assert ask(policy, "edge-router", "gps").rules == ("D9", "D8")
    assert ask(policy, "edge-router", "speed").rules == ("D8",)


def test_a_deny_with_conditions_denies_rows_and_not_the_question():
    decision = ask(city(), "cloud-trainer", "speed", "improve.train")

    assert decision.allowed
    assert decision.rules == ("R2",)
    assert decision.detail.endswith("by R2, without the rows that D1 denies.")


@pytest.mark.parametrize(
    ("basis", "said", "allowed"),
    [
        ("contract", None, True),
        ("contract", False, True),
        ("opt_in", None, False),
        ("opt_in", False, False),
        ("opt_in", True, True),
        ("opt_out", None, True),
        ("opt_out", False, False),
        ("opt_out", True, True),
    ],
)
def test_consent_follows_the_purpose_s_basis(basis, said, allowed):
    policy = untested(("improve.train: opt_in", f"improve.train: {basis}"))
    consent = {} if said is None else {"improve.train": said}

    assert ask(policy, "cloud-trainer", "speed", "improve.train", consent=consent).allowed == allowed
    assert ask(policy, "cloud-trainer", "speed", "improve.train", consent=None).allowed


def test_a_purpose_without_a_basis_needs_consent():
    policy = city(("improve.train: opt_in, ", ""))

    assert ask(policy, "cloud-trainer", "speed", "improve.train", consent={}).code == "NO_CONSENT"


def test_a_device_s_own_worker_needs_no_operator():
    assert ask(city(), "watch-coach", "note", operator="borealis").allowed


def test_a_collection_is_allowed_when_any_field_is():
    decision = ask(city(), "edge-router", None)

    assert (decision.allowed, decision.rules, decision.tier) == (True, ("R1",), Tier.EDGE_PRIVATE)
    assert "5 of 6 fields" in decision.detail


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([], "NO_RULE"),
        (["{id: R9, effect: allow, to: {kind: infer}, data: trips, fields: [note]}"], "NO_PATH"),
        (["{id: R9, effect: allow, to: {kind: infer}, data: trips, fields: [user_id]}"], "NO_READ_UP"),
        (
            [
                "{id: R9, effect: allow, to: {kind: infer}, data: trips, fields: '*'}",
                "{id: D9, effect: deny, to: {worker: edge-guest}, data: trips}",
            ],
            "DENIED_BY",
        ),
        (
            [
                "{id: R9, effect: allow, to: {kind: infer}, data: trips, fields: [gps]}",
                "{id: D9, effect: deny, to: {place: edge}, data: trips, fields: [gps]}",
            ],
            "DENIED_BY",
        ),
    ],
)
def test_a_collection_of_which_nothing_may_be_read_says_why(rules, code):
    policy = with_rules(*rules)

    assert ask(policy, "edge-guest", None).code == code
    with pytest.raises(AccessDenied) as caught:
        view_rules(policy, worker(policy, "edge-guest"), "trips", "service.routing")
    assert caught.value.reason == code


def test_the_order_of_rules_never_matters():
    rules = [
        "{id: A, effect: allow, to: {worker: edge-guest}, data: trips, fields: [gps, mode], where: [[mode, eq, bike]]}",
        "{id: B, effect: allow, to: {place: edge}, data: trips, fields: [mode, speed]}",
        "{id: C, effect: deny, to: {operator: acme}, data: trips, where: [[mode, eq, school_bus]]}",
    ]
    batch = pa.record_batch({"gps": ["a", "b", "c"], "speed": ["<0"] * 3, "mode": ["bike", "car", "school_bus"]})
    results = []
    for order in itertools.permutations(rules):
        policy = with_rules(*order)
        view = view_rules(policy, worker(policy, "edge-guest"), "trips", "service.routing")
        results.append((view.apply(batch, {}, NOW).to_pylist(), ask(policy, "edge-guest", "gps").code))

    assert all(each == results[0] for each in results)
    assert results[0][0] == [{"gps": "a", "speed": "<0", "mode": "bike"}, {"gps": None, "speed": "<0", "mode": "car"}]


def test_unknown_names_are_not_found():
    policy = city()
    with pytest.raises(NotFound, match="no worker edge"):
        worker(policy, "edge")
    with pytest.raises(NotFound, match="no collection trip"):
        decide(policy, worker(policy, "edge-router"), "trip", None, "service.routing")
    with pytest.raises(NotFound, match="trips has no field gsp"):
        ask(policy, "edge-router", "gsp")


def test_answers_are_remembered_and_questions_from_outside_are_not():
    policy = city()
    assert ask(policy, "edge-router", "gps") is ask(policy, "edge-router", "gps")
    known = len(policy.memo)

    for number in range(100):
        ask(policy, "edge-router", "gps", f"purpose-{number}")
        ask(policy, "edge-router", "gps", operator=f"operator-{number}")
    assert len(policy.memo) == known


def test_a_worker_that_borrows_a_name_gets_its_own_answer():
    policy = city()
    real = worker(policy, "edge-router")
    assert ask(policy, "edge-router", "gps").allowed

    assert decide(policy, replace(real, purposes=frozenset()), "trips", "gps", "service.routing").code == "NO_PURPOSE"
    assert decide(policy, replace(real, purposes=frozenset({"x"})), "trips", "gps", "x").code == "NO_PURPOSE"


def router_view(policy):
    return view_rules(policy, worker(policy, "edge-router"), "trips", "service.routing")


def router_rows(**columns):
    """Two rows as the router sees them, of now and of eight days ago."""
    now_us = NOW.wall_ms * 1_000
    rows = {
        "user_id": pa.array(["p", "q"]),
        "gps": pa.array(["r1r0f", None]),
        "started": pa.array([now_us, now_us - 8 * 86_400_000_000], pa.int64()).view(TIMESTAMP),
        "speed": pa.array([1, 2], pa.float32()),
        "mode": pa.array(["bike", "bus"]),
    }
    return pa.record_batch({**rows, **columns})


def test_a_view_has_the_forms_that_the_worker_may_read():
    view = router_view(city())

    assert [(form.field, form.chain, form.tier.label) for form in view.columns] == [
        ("user_id", ("pid",), "edge-private"),
        ("gps", ("cell",), "edge-private"),
        ("started", ("hour",), "edge-private"),
        ("speed", (), "edge-private"),
        ("mode", (), "public"),
    ]
    assert view.tiers == (Tier.EDGE_PRIVATE, Tier.PUBLIC)
    assert (view.rules, view.consent, view.needed) == (("R1",), "contract", ())


def test_a_view_shows_the_rows_of_its_region_and_time():
    view = router_view(city())

    assert view.mask(router_rows(), {"region": "cbd"}, NOW).to_pylist() == [True, False]
    assert view.apply(router_rows(), {"region": "cbd"}, NOW).column("user_id").to_pylist() == ["p"]
    assert view.apply(router_rows(), {"region": "docks"}, NOW).num_rows == 0
    assert view.apply(router_rows(), {}, NOW).num_rows == 0
    assert view.apply(router_rows(), {}, NOW).schema == view.schema


def test_a_view_needs_the_columns_of_conditions_that_it_may_not_show():
    rules = [
        "{id: D9, effect: deny, to: {place: edge}, data: trips, fields: [mode]}",
        "{id: D8, effect: deny, to: {place: edge}, data: trips, where: [[mode, eq, bus]]}",
    ]
    policy = with_rules(*rules)
    view = router_view(policy)
    rows = router_rows(started=pa.array([NOW.wall_ms * 1_000] * 2, pa.int64()).view(TIMESTAMP))

    assert [form.field for form in view.needed] == ["mode"]
    assert view.schema.names == ["user_id", "gps", "started", "speed"]
    assert view.apply(rows, {"region": "cbd"}, NOW).column("user_id").to_pylist() == ["p"]


def test_a_cell_that_no_matching_rule_grants_is_null_with_nothing_underneath():
    rule = "{id: R9, effect: allow, to: {worker: edge-router}, data: trips, fields: [mode]}"
    view = router_view(with_rules(rule))
    shown = view.apply(router_rows(gps=pa.array(["r1r0f", "secret"])), {"region": "cbd"}, NOW)

    assert shown.column("mode").to_pylist() == ["bike", "bus"]
    assert shown.column("gps").to_pylist() == ["r1r0f", None]
    assert not any(b"secret" in each.to_pybytes() for each in shown.column("gps").buffers() if each is not None)


def test_a_deny_of_one_field_hides_its_cells_and_keeps_the_row():
    policy = with_rules(
        "{id: D9, effect: deny, to: {worker: edge-router}, data: trips, fields: [gps], where: [[mode, eq, bike]]}"
    )

    assert router_view(policy).apply(router_rows(), {"region": "cbd"}, NOW).to_pylist()[0]["gps"] is None


def test_null_never_satisfies_an_allow_and_always_satisfies_a_deny():
    policy = city()
    view = view_rules(policy, worker(policy, "cloud-trainer"), "trips", "improve.train")
    rows = router_rows(mode=pa.array([None, "bike"]), speed=pa.array(["<0", "<0"]))

    assert view.mask(rows, {}, NOW).to_pylist() == [False, True]
    started = pa.array([None, NOW.wall_ms * 1_000], pa.int64()).view(TIMESTAMP)
    assert router_view(policy).mask(router_rows(started=started), {"region": "cbd"}, NOW).to_pylist() == [False, True]


def test_a_view_joins_the_layers_that_its_rows_can_be_lifted_to():
    policy = with_rules(
        "{id: R9, effect: allow, to: {worker: edge-guest}, data: trips, fields: [mode]}",
        "{id: R8, effect: allow, to: {worker: edge-router}, data: trips, fields: [mode]}",
        change=(
            ("{to: user-private, where", "{to: edge-private, where"),
            ("[user_id, gps, started, speed, mode],", "[mode],"),
            (", [started, ge, now-7d]]", "]"),
            (
                "field: gps, purpose: service.routing},\n     expect: {allow: [cell], by: [R1]}",
                "field: mode, purpose: service.routing},\n     expect: {allow: []}",
            ),
        ),
    )

    assert router_view(policy).tiers == (Tier.EDGE_PRIVATE, Tier.PUBLIC)
    assert view_rules(policy, worker(policy, "edge-guest"), "trips", "service.routing").tiers == (Tier.PUBLIC,)


def test_no_rows_give_no_rows():
    view = router_view(city())
    empty = router_rows().slice(0, 0)

    assert view.mask(empty, {"region": "cbd"}, NOW).to_pylist() == []
    assert view.apply(empty, {"region": "cbd"}, NOW).num_rows == 0
