"""Constructs that few policies need: documents, transforms to nothing, what is kept how long, models, roaming."""

import pytest

from datasync.domain.tiers import Place
from datasync.policy.loading import load
from datasync.policy.problems import PolicyInvalid
from tests.unit.policy.city import changed, city


def problems(text):
    with pytest.raises(PolicyInvalid) as caught:
        load(text.encode(), name="city.yaml")
    return caught.value.problems


def only(found):
    assert len(found) == 1, [str(each) for each in found]
    return found[0]


DOCUMENTS = """\
collections:
  preferences:
    kind: document
    subject: user_id
    key: name
    fields:
      user_id: {type: string, tier: user-private, up: {edge: [pid]}}
      name:    {type: string, tier: edge-private}
      seen:    {type: int64,  tier: edge-private, merge: counter}
      when:    {type: timestamp, tier: user-private, merge: max, up: {edge: [hour]}}
      tags:    {type: [string], tier: edge-private, merge: union}
"""
"""A collection of documents to put into the city's policy."""


def test_the_widest_policy_that_the_format_has_loads():
    loaded = city(
        ("collections:\n", DOCUMENTS),
        ("  pid:", "  hide: {op: mask, keep: 2, side: end, from: user-private, to: public}\n  pid:"),
        ("  pid:", "  none: {op: drop, from: user-private, to: public}\n  pid:"),
        ("  pid:", "  zero: {op: constant, value: 0, from: user-private, to: public}\n  pid:"),
        (
            "  pid:",
            "  dp: {op: dp_sgd, unit: subject, epsilon: 4, delta: 1.0e-6, scope: model,"
            " from: edge-private, to: public}\n  pid:",
        ),
        ("mobility:", "retain: {device: 30d, cloud: 2y}\n    mobility:"),
        ("escrow: false", "escrow: true"),
        ("handover:", "  roaming: opt_out\n  withdraw: {stop: immediately, purge: 24h}\nhandover:"),
        ("handover:", "models: {label: join_of_inputs, lower_by: [dp]}\nhandover:"),
        ("handover:", "erasure: {shred: immediately, compact: 72h, models: {public: report}}\nhandover:"),
    )
    assert loaded.collections["preferences"].key == "name"
    assert loaded.collections["preferences"].fields["tags"].merge == "union"
    assert loaded.collections["trips"].retain == {Place.DEVICE: 30 * 86_400_000, Place.CLOUD: 730 * 86_400_000}
    assert loaded.basis["roaming"] == "opt_out"


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        (
            "name:    {type: string",
            "name:    {type: float64",
            "VALUE_INVALID",
            "name is a float64, by which no document",
        ),
        ("key: name", "key: user_id", "VALUE_INVALID", "the key is the subject"),
        ("key: name", "key: nme", "NAME_UNKNOWN", "there is no field nme"),
        ("merge: counter", "merge: union", "VALUE_INVALID", "seen is a int64, and union merges a list of scalars"),
        ("merge: union", "merge: counter", "VALUE_INVALID", "tags is a [string], and counter merges a number"),
        ("merge: union", "merge: min", "VALUE_INVALID", "min merges a number or a timestamp"),
        ("merge: union", "merge: newest", "VALUE_INVALID", "merge is 'newest'"),
        ("tier: edge-private}", "tier: edge-private, merge: lww}", "VALUE_INVALID", "name tells documents apart"),
        (
            "merge: counter",
            "merge: counter, up: {cloud: [band]}",
            "CHAIN_INVALID",
            "band changes what counter would merge",
        ),
    ],
)
def test_what_does_not_merge_is_refused(old, new, code, message):
    found = only(problems(changed(("collections:\n", DOCUMENTS.replace(old, new, 1)))))

    assert found.code == f"POLICY_{code}"
    assert message in found.message
    assert found.fix


def test_rows_of_a_stream_do_not_merge():
    assert (
        "rows of a stream do not merge"
        in only(problems(changed(("tier: public}", "tier: public, merge: lww}")))).message
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("up: {edge: [pid]}", "up: {edge: [dp]}", "dp lowers models, not rows"),
        ("handover:", "models: {label: join_of_inputs, lower_by: [pid]}\nhandover:", "pid lowers rows, not models"),
        ("[service.routing, improve", "[roaming, service.routing, improve", "roaming is the word for crossing"),
    ],
)
def test_models_and_rows_and_roaming_keep_to_their_words(old, new, message):
    dp = "  dp: {op: approve, scope: model, from: user-private, to: edge-private}\n  pid:"
    messages = [each.message for each in problems(changed(("  pid:", dp), (old, new)))]

    assert [each for each in messages if message in each]


def test_a_place_that_holds_less_than_it_may_says_that_it_is_not_supported():
    found = only(problems(changed(("edge: edge-private, cloud: public}", "edge: public, cloud: public}"))))

    assert found.code == "POLICY_UNSUPPORTED"
    assert "edge holds at most edge-private in this version" in found.message
    assert found.fix
