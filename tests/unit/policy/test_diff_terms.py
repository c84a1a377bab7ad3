"""What a change of the terms does: consent, what is kept, moved between operators, learned, erased; and documents."""

import pytest

from datasync.policy.comparing.diff import diff
from datasync.policy.comparing.effects import Effect
from tests.unit.policy.whole import whole

H1 = "fields: [gps, started, mode], purposes: [service.routing], requires: [roaming], retain: 24h, onward: false}"
TO_BOREALIS = ("handover", "acme to borealis", "trips")
DP = "dp:   {op: dp_sgd, unit: subject, epsilon: 4, delta: 1.0e-6"


def effects(old, new):
    return {(each.scope, each.name, each.collection): each.effect.value for each in diff(whole(*old), whole(*new))}


@pytest.mark.parametrize(
    ("old", "new", "about", "wanted"),
    [
        ("roaming: opt_in", "roaming: opt_out", ("purpose", "roaming", None), "widens"),
        ("  roaming: opt_in\n", "", None, "nothing"),
        ("purge: 24h", "purge: 48h", ("consent", "withdrawal", None), "widens"),
        ("  withdraw: {stop: immediately, purge: 24h}\n", "", ("consent", "withdrawal", None), "widens"),
        ("edge: 90d", "edge: 30d", ("place", "edge", "trips"), "narrows"),
        ("edge: 90d", "edge: 1y", ("place", "edge", "trips"), "widens"),
        ("edge: 90d, ", "", ("place", "edge", "trips"), "widens"),
        ("compact: 72h", "compact: 24h", ("erasure", "compaction", None), "narrows"),
        ("edge-private: retrain", "edge-private: report", ("erasure", "edge-private models", None), "widens"),
        ("lower_by: [dp]", "lower_by: [dp, sign]", ("models", "sign", None), "widens"),
        ("models: {label: join_of_inputs, lower_by: [dp]}\n", "", ("models", "dp", None), "narrows"),
        (DP, DP.replace("epsilon: 4", "epsilon: 8"), ("models", "dp", None), "widens"),
        (DP, DP.replace("unit: subject", "unit: row"), ("models", "dp", None), "widens"),
        (DP, DP.replace("epsilon: 4, delta: 1.0e-6", "epsilon: 2, delta: 1.0e-5"), ("models", "dp", None), "changes"),
        ("operators: [acme, borealis]", "operators: [acme, borealis, cirrus]", ("operator", "cirrus", None), "widens"),
        ("action: pseudonymise", "action: move", TO_BOREALIS, "widens"),
        ("data: '*', action: move", "data: '*', action: copy", ("handover", "acme to acme", "trips"), "widens"),
        ("max_tier: edge-private", "max_tier: public", TO_BOREALIS, "narrows"),
        (H1, H1.replace("[gps, started, mode]", "[gps, mode]"), TO_BOREALIS, "narrows"),
        (H1, H1.replace("[gps, started, mode]", "'*'"), TO_BOREALIS, "widens"),
        (H1, H1.replace("[gps, started, mode]", "[gps, speed]"), TO_BOREALIS, "changes"),
        (H1, H1.replace("purposes: [service.routing], ", ""), TO_BOREALIS, "widens"),
        (H1, H1.replace("requires: [roaming], ", ""), TO_BOREALIS, "widens"),
        (H1, H1.replace("[roaming]", "[roaming, improve.train]"), TO_BOREALIS, "narrows"),
        (H1, H1.replace("24h", "48h"), TO_BOREALIS, "widens"),
        (H1, H1.replace("onward: false", "onward: true"), TO_BOREALIS, "widens"),
        ("merge: counter", "merge: max", ("collection", "preferences", "preferences"), "changes"),
        ("key: name", "key: theme", ("collection", "preferences", "preferences"), "changes"),
        ("{hot: all, escrow: true}", "{hot: all, escrow: false}", ("place", "cloud", "preferences"), "narrows"),
        ("keep: 2", "keep: 0", ("place", "cloud", "preferences"), "narrows"),
        ("keep: 2", "keep: 1", ("place", "cloud", "preferences"), "changes"),
        ("value: 0", "value: 1", None, "nothing"),
        ("up: {edge: [none]}", "", ("place", "edge", "preferences"), "narrows"),
    ],
)  # fmt: skip
def test_a_change_of_a_term_has_one_effect(old, new, about, wanted):
    change = ((old, new),)
    if old == "key: name":
        change = (
            *change,
            ("theme:   {type: string, tier: edge-private, merge: lww,", "theme:   {type: string, tier: edge-private,"),
        )
    found = effects((), change)
    assert found.get(about, "nothing") == wanted
    if about is None:
        assert found == {}
    opposite = {"widens": "narrows", "narrows": "widens"}.get(wanted, wanted)
    assert effects(change, ()).get(about, "nothing") == opposite


def test_a_verdict_that_is_dropped_narrows_whatever_its_terms():
    found = diff(whole(), whole(("action: pseudonymise, max_tier: edge-private,\n     " + H1, "action: drop}")))
    assert [(each.effect, each.name, each.reasons) for each in found] == [
        (Effect.NARROWS, "acme to borealis", ("was pseudonymise, now drop",))
    ]


def test_every_reason_of_a_verdict_is_told():
    found = diff(whole(), whole((H1, H1.replace("24h", "48h").replace("mode]", "mode, speed]"))))
    assert [each.reasons for each in found] == [
        ("its fields gain speed", "kept by the target 1d, now 2d"),
    ]


def test_hiding_some_changes_of_a_document_shows_what_they_replaced():
    raised = ("tags:    {type: [string], tier: edge-private, merge: union}\n",
              "tags:    {type: [string], tier: edge-private, merge: union}\n"
              "    raise:\n      - {to: user-private, where: [[theme, eq, dark]]}\n")  # fmt: skip
    found = {(each.scope, each.field): each.effect for each in diff(whole(), whole(raised))}
    assert found["worker", "tags"] is Effect.CHANGES
    assert found["place", "tags"] is Effect.NARROWS
