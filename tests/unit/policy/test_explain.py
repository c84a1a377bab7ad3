"""Explanations: every field with its decision, the rows, and the consent."""

from datasync.policy.decide import decide, worker
from datasync.policy.explain import explain
from tests.unit.policy.city import city


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
