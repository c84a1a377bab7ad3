"""Explanations: every field with its decision, what would change it, the rows, and the consent."""

import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import RecordError
from datasync.policy.decide import decide, view_rules, worker
from datasync.policy.explain import explain, explained, judge_row
from datasync.policy.seen_rows import seen_row
from tests.unit.policy.city import city, untested

NOW = Instant(1_769_900_000_000, 0)


def test_an_explanation_has_the_decision_of_every_field_in_its_own_words():
    policy = city()
    trainer = worker(policy, "cloud-trainer")
    text = explain(policy, trainer, "trips", "improve.train")

    for name in policy.collections["trips"].fields:
        decision = decide(policy, trainer, "trips", name, "improve.train")
        assert f"{decision.code:<13}  {decision.detail}" in text
    assert "city-mobility, revision 7" in text
    assert policy.digest[:16] in text


def test_an_explanation_says_which_rows_and_on_what_consent():
    policy = city()
    text = explain(policy, worker(policy, "cloud-trainer"), "trips", "improve.train")

    assert "D1 denies all fields of rows where mode eq school_bus" in text
    assert "R2 allows gps, mode, speed, started of all rows" in text
    assert "rows where mode eq private_road are user-private, so cloud-trainer never sees them" in text
    assert "the basis of improve.train is opt_in" in text


def test_an_explanation_of_a_refusal_says_why():
    policy = city()
    text = explain(policy, worker(policy, "cloud-trainer"), "trips", "improve.train", consent={})

    assert "asks for trips for improve.train: NO_CONSENT" in text


@pytest.mark.parametrize(
    ("name", "field", "rule", "lacks", "then", "words"),
    [
        ("edge-guest", "gps", "R2", ("worker",), "ALLOW", "R2 would allow it, but is for worker cloud-trainer."),
        ("edge-guest", "note", "R3", ("place",), "NO_PATH", "The nearest is R3, but it is for place device. Even then"),
        ("edge-guest", None, "R2", ("worker",), "ALLOW", "R2 would allow it, but is for worker cloud-trainer."),
        ("edge-router", "note", "R1", ("fields",), "NO_PATH", "covers gps, mode, speed, started, user_id, not note"),
        ("cloud-trainer", "user_id", "R2", ("fields",), "NO_PATH", "user_id is user-private and has no chain"),
    ],
)
def test_a_default_deny_names_the_nearest_rule_and_what_it_lacks(name, field, rule, lacks, then, words):
    policy = city()
    found = explained(policy, worker(policy, name), "trips", field, "service.routing").nearest
    assert (found.rule, found.lacks) == (rule, lacks)
    assert found.then == ("NO_PURPOSE" if name == "cloud-trainer" and then == "ALLOW" else then)
    assert words in found.detail


def test_what_the_nearest_rule_lacks_is_all_that_is_missing():
    """The rule is mended as the explanation says, and then the policy answers as it said."""
    policy = city()
    found = explained(policy, worker(policy, "edge-guest"), "trips", "gps", "service.routing").nearest
    assert (found.rule, found.lacks, found.then) == ("R2", ("worker",), "ALLOW")

    mended = untested(("to: {worker: cloud-trainer}", "to: {worker: edge-guest}"))
    decision = decide(mended, worker(mended, "edge-guest"), "trips", "gps", "service.routing")
    assert (decision.code, decision.rules) == ("ALLOW", ("R2",))


def test_conditions_that_make_no_sense_for_the_worker_are_something_that_a_rule_lacks():
    policy = untested(("to: {worker: cloud-trainer}, data: trips", "to: {worker: watch-coach}, data: trips"))
    found = explained(policy, worker(policy, "cloud-trainer"), "trips", "user_id", "improve.train").nearest
    assert (found.rule, found.lacks) == ("R1", ("worker", "where"))
    assert "has conditions that cannot be decided for cloud-trainer: the worker has no region" in found.detail


def test_rules_that_are_equally_near_are_named_by_id():
    more = "  - {id: A9, effect: allow, to: {worker: watch-coach}, data: trips, fields: [gps]}\n  - {id: D1"
    policy = untested(("  - {id: D1", more))
    assert explained(policy, worker(policy, "edge-guest"), "trips", "gps", "service.routing").nearest.rule == "A9"


def test_a_collection_that_nobody_may_read_has_no_nearest_rule():
    policy = untested(
        ("collections:\n", "collections:\n  empty: {kind: stream, subject: a, fields: {a: {type: string}}}\n")
    )
    found = explained(policy, worker(policy, "edge-guest"), "empty", None, "service.routing")
    assert (found.decision.code, found.nearest) == ("NO_RULE", None)


def test_what_is_allowed_or_denied_by_a_later_question_has_no_nearest_rule():
    policy = city()
    trainer = worker(policy, "cloud-trainer")
    assert explained(policy, trainer, "trips", "gps", "improve.train").nearest is None
    assert explained(policy, trainer, "trips", "gps", "research.stats").nearest is None


@pytest.mark.parametrize(
    ("name", "row", "visible", "failed"),
    [
        ("cloud-trainer", {"mode": "bike"}, True, {"R2": None, "D1": "mode eq school_bus"}),
        ("cloud-trainer", {"mode": "school_bus"}, False, {"R2": None, "D1": None}),
        ("cloud-trainer", {}, False, {"R2": None, "D1": None}),
        ("edge-router", {"region": "cbd", "started": "now-1h"}, True, {"R1": None}),
        ("edge-router", {"region": "docks", "started": "now-8d"}, False, {"R1": "region eq $worker.region"}),
        ("edge-router", {"region": "cbd", "started": "now-8d"}, False, {"R1": "started ge now-7d"}),
    ],
)
def test_of_a_row_every_rule_names_its_first_condition_that_fails(name, row, visible, failed):
    policy = city()
    purpose = "improve.train" if name == "cloud-trainer" else "service.routing"
    judged = judge_row(policy, worker(policy, name), "trips", purpose, row, NOW)
    assert {each.rule: each.failed for each in judged.rules} == failed
    assert (judged.rows, bool(judged.columns)) == (int(visible), visible)


def test_a_row_that_is_shown_in_part_names_the_columns():
    narrow = "  - {id: N1, effect: deny, to: {kind: train}, data: trips, fields: [gps], where: [[mode, eq, bike]]}\n"
    policy = untested(("  - {id: D1", f"{narrow}  - {{id: D1"))
    judged = judge_row(policy, worker(policy, "cloud-trainer"), "trips", "improve.train", {"mode": "bike"}, NOW)
    assert judged.columns == ("started", "speed", "mode")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"note": "x"}, "edge-router sees no note"),
        ({"speed": "fast"}, "field speed: 'fast' is no float32"),
        ({"started": "now-x"}, "'x' is no duration"),
        ({"region": ["cbd"]}, "region is a constant"),
    ],
)
def test_a_row_that_the_worker_could_not_see_is_refused(row, told):
    policy = city()
    with pytest.raises(RecordError, match=told):
        judge_row(policy, worker(policy, "edge-router"), "trips", "service.routing", row, NOW)


def test_what_is_said_of_rows_is_what_a_view_does_with_them():
    """Row by row, against the batch that the view's own rules filter."""
    policy = city()
    trainer = worker(policy, "cloud-trainer")
    rules = view_rules(policy, trainer, "trips", "improve.train")
    rows = [{"mode": mode} for mode in ("bike", "school_bus", None, "", "private_road")]
    for row in rows:
        batch, meta = seen_row(policy.collections["trips"], trainer, row, NOW)
        judged = rules.judge(batch, meta, NOW)
        assert judged.rows == rules.apply(batch, meta, NOW).num_rows
        assert tuple(each.rule for each in judged.rules if each.rows) == rules.matching(batch, meta, NOW)
        assert all((each.failed is None) == bool(each.rows) for each in judged.rules)
