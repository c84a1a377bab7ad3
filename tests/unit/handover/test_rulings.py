"""What becomes of a collection, by verdict and by consent."""

from dataclasses import replace

import pytest

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.handover.rulings import Ruling, rule
from datasync.policy import support, tree
from datasync.policy.verdicts import WITHIN
from datasync.store.consents import Consent
from datasync.store.segments import State
from tests.unit.handover.crossing import POLICY, policy


def said(given: bool, at: int, purpose: str = "roaming", stream: str = "a") -> Consent:
    return Consent(StreamId(stream * 32), purpose, given, HybridTime(at, 0), b"", State.SAFE)


def ruling(terms: str, *statements: Consent, source: str = POLICY) -> Ruling:
    """Return what a rule between two operators makes of trips of which this was said."""
    under = policy(f"{{id: H1, from: acme, to: borealis, data: trips, {terms}}}", source=source)
    return rule(under, "acme", "borealis", "trips", statements)


@pytest.mark.parametrize(
    ("basis", "statements", "moves"),
    [
        ("opt_in", [], False),
        ("opt_in", [said(True, 1)], True),
        ("opt_in", [said(True, 1), said(False, 2, stream="b")], False),
        ("opt_in", [said(False, 1), said(True, 2, stream="b")], True),
        ("opt_in", [said(True, 2), said(False, 2, stream="b")], False),
        ("opt_in", [said(True, 1, "improve.train")], False),
        ("opt_out", [], True),
        ("opt_out", [said(False, 1)], False),
        ("opt_out", [said(False, 1), said(True, 2, stream="b")], True),
        ("opt_out", [said(True, 2), said(False, 2, stream="b")], False),
        ("contract", [said(False, 1)], True),
    ],
)
def test_a_consent_that_is_required_is_the_latest_of_all_streams_and_a_refusal_wins_a_tie(
    basis: str, statements: list[Consent], moves: bool
) -> None:
    source = POLICY.replace("roaming: opt_in", f"roaming: {basis}")
    found = ruling("action: move, requires: [roaming]", *statements, source=source)
    assert (found.action, found.why) == (("move", "") if moves else ("drop", "no consent"))


def test_every_consent_that_is_required_is_needed() -> None:
    both = "action: move, requires: [roaming, improve.train]"
    assert ruling(both, said(True, 1)).action == "move"  # training is allowed until it is withdrawn
    assert ruling(both, said(True, 1), said(False, 1, "improve.train")).action == "drop"


def test_nothing_moves_between_operators_without_a_policy_or_a_rule_and_everything_within_one() -> None:
    assert rule(None, "acme", "borealis", "trips", []).why == "no policy"
    assert rule(None, "acme", "acme", "trips", []).is_plain
    assert rule(policy(), "acme", "borealis", "trips", []).why == "no rule"
    assert rule(policy(), "acme", "acme", "trips", []).is_plain
    assert rule(policy(), "acme", "acme", "unknown", []).is_plain
    assert ruling("action: drop").why == "by rule"


@pytest.mark.parametrize("action", ["move", "copy"])
def test_originals_move_where_a_rule_has_no_terms(action: str) -> None:
    assert ruling(f"action: {action}, onward: true").is_plain
    assert ruling(f"action: {action}, onward: true, requires: [roaming]", said(True, 1)).is_plain


@pytest.mark.parametrize("terms", ["retain: 1h", "purposes: [service.routing]", "fields: [mode]", "max_tier: public"])
def test_originals_do_not_move_where_a_rule_has_any_terms(terms: str) -> None:
    assert not ruling(f"action: move, onward: true, {terms}").is_plain
    assert not ruling("action: move").is_plain  # between operators nothing goes on unless a rule says so
    assert not ruling("action: pseudonymise, onward: true").is_plain


def test_nothing_moves_of_a_collection_of_which_no_form_is_low_enough() -> None:
    source = POLICY.replace("tint: {type: string, tier: public}", "tint: {type: string, tier: edge-private}")
    under = policy("{id: H1, from: acme, to: borealis, data: likes, action: move, max_tier: public}", source=source)
    assert rule(under, "acme", "borealis", "likes", []).why == "no field"


def test_that_a_source_keeps_no_copy_of_its_own_is_said_of_a_policy_that_asks_for_it() -> None:
    copied = policy("{id: H1, from: acme, to: borealis, data: trips, action: copy}")
    noted = support.notes(copied.document, tree.read(copied.source, "policy.yaml"))
    assert [each.message for each in noted] == [
        "a source's keeping its own copy (it erases it, as with move) is declared; nodes do not do it yet"
    ]


def test_what_a_ruling_is_does_not_hang_on_the_rules_name() -> None:
    assert Ruling(replace(WITHIN, rule="H9")).is_plain
