"""Loading: the format in full, and every way to get it wrong named at its place."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasync.domain.errors import PolicyError, PolicyRevisionStale
from datasync.domain.limits import POLICY_BYTES_MAX
from datasync.domain.tiers import Place, Tier
from datasync.policy.loading import load
from datasync.policy.problems import PolicyInvalid
from tests.unit.policy.city import CITY, changed, city

DEMO = Path(__file__).parents[3] / "deploy" / "policies" / "demo.yaml"


def problems(text):
    with pytest.raises(PolicyInvalid) as caught:
        load(text if isinstance(text, bytes) else text.encode(), name="city.yaml")
    return caught.value.problems


def problem(*changes):
    """Return the only problem of the changed city policy, and the text at its position."""
    text = changed(*changes)
    found = problems(text)
    assert len(found) == 1, [str(each) for each in found]
    line = text.splitlines()[found[0].line - 1]
    return found[0], line[found[0].column - 1 :]


def test_the_city_policy_loads():
    policy = city()
    trips = policy.collections["trips"]

    assert (policy.document.id, policy.revision, policy.source) == ("city-mobility", 7, CITY.encode())
    assert (trips.subject, trips.time, trips.kind) == ("user_id", "started", "stream")
    assert trips.meta == {"region": Tier.PUBLIC, "garage": Tier.EDGE_PRIVATE}
    assert trips.tiers() == (Tier.PUBLIC, Tier.EDGE_PRIVATE, Tier.USER_PRIVATE)
    assert trips.mobility.hot_ms == 86_400_000
    assert policy.workers["edge-router"].attributes == {"region": "cbd"}
    assert policy.workers["watch-coach"].place is Place.DEVICE


def test_the_demo_policy_loads_and_its_tests_pass():
    policy = load(DEMO.read_bytes(), name="demo.yaml")

    assert policy.document.id == "smartwatch"
    assert len(policy.document.tests) > 10


def test_a_field_without_a_label_is_private_to_the_user():
    assert city().collections["trips"].fields["note"].tier is Tier.USER_PRIVATE


def test_a_field_has_one_form_for_each_tier_it_reaches():
    forms = city().collections["trips"].forms

    assert {tier.label: form.chain for tier, form in forms["gps"].items()} == {
        "user-private": (),
        "edge-private": ("cell",),
        "public": ("cell", "area"),
    }
    assert list(forms["mode"]) == [Tier.PUBLIC]


def test_the_digest_is_of_what_the_policy_says_and_not_of_how_it_is_written():
    same = CITY.replace("revision: 7", "'revision':   7   # comment").replace(
        "operators: [acme, borealis]", "operators:\n  - acme\n  - borealis"
    )

    assert load(same.encode()).digest == city().digest
    assert city(("revision: 7", "revision: 8")).digest != city().digest
    assert len(city().digest) == 64


def test_a_revision_must_increase():
    assert load(CITY.encode(), after_revision=6).revision == 7
    for active in (7, 8):
        with pytest.raises(PolicyRevisionStale, match=f"not above {active}") as caught:
            load(CITY.encode(), name="city.yaml", after_revision=active)
        assert caught.value.where == "city.yaml:3:11"


def test_several_problems_are_told_at_once_in_the_order_of_the_file():
    found = problems(
        changed(("revision: 7", "revision: seven"), ("kind: stream", "kind: steam"), ("effect: deny", "effect: dany"))
    )

    assert [(each.line, each.code) for each in found] == sorted((each.line, each.code) for each in found)
    assert len(found) == 3
    assert "'seven'" in found[0].message


def test_an_error_shows_file_line_column_and_what_would_be_right():
    with pytest.raises(PolicyError, match="seven") as caught:
        load(changed(("revision: 7", "revision: seven")).encode(), name="city.yaml")

    assert str(caught.value) == "city.yaml:3:11: revision is 'seven' (write a whole number) [POLICY_VALUE_INVALID]"


@pytest.mark.parametrize(
    ("old", "new", "code", "at", "fix"),
    [
        ("revision: 7", "revison: 7", "POLICY_KEY_UNKNOWN", "revison", "did you mean revision?"),
        ("kind: stream", "kind: stream\n    owner: me", "POLICY_KEY_UNKNOWN", "owner", "known here"),
        ("  trips:\n", "  trips:\n    subject: user_id\n", "POLICY_KEY_DUPLICATE", "subject", "keep one"),
        ("id: city-mobility", "id: city mobility", "POLICY_VALUE_INVALID", "city mobility", "names match"),
        ("hot: 24h", "hot: 24", "POLICY_VALUE_INVALID", "24,", "as in 30d"),
        ("hot: 24h", "hot: 24 hours", "POLICY_VALUE_INVALID", "24 hours", "as in 30d"),
        ("hot: 24h", "hot: 2000y", "POLICY_VALUE_INVALID", "2000y", ""),
        ("hot: 24h", "hot: ", "POLICY_VALUE_INVALID", " ,", "write one"),
        ("hot: 24h, escrow: false", "escrow: no", "POLICY_AMBIGUOUS", "no}", "write 'no'"),
        ("hot: 24h, escrow: false", "escrow: 0", "POLICY_VALUE_INVALID", "0}", "true or false"),
        ("precision: 5", "precision: 0", "POLICY_VALUE_INVALID", "0,", "at least 1"),
        ("precision: 5", "precision: '5'", "POLICY_VALUE_INVALID", "'5'", "a whole number"),
        ("precision: 5", "precision: 5, size: 3", "POLICY_KEY_UNKNOWN", "size", "known here"),
        (
            "op: geohash,  precision: 5",
            "op: geohsh,  precision: 5",
            "POLICY_VALUE_INVALID",
            "{op: geohsh",
            "mean geohash",
        ),
        ("edges: [0, 10, 30, 60]", "edges: [0, 30, 10]", "POLICY_VALUE_INVALID", "[0, 30", "from low to high"),
        ("edges: [0, 10, 30, 60]", "edges: []", "POLICY_VALUE_INVALID", "[]", "at least 1"),
        ("edges: [0, 10, 30, 60]", "edges: [0, 1e300]", "POLICY_VALUE_INVALID", "1e300", "at most"),
        ("type: point", "type: piont", "POLICY_VALUE_INVALID", "piont", "did you mean point?"),
        ("type: point", "type: vector(0)", "POLICY_VALUE_INVALID", "vector(0)", "vector(n)"),
        ("tier: public}", "tier: pubic}", "POLICY_VALUE_INVALID", "pubic", "did you mean public?"),
        ("subject: user_id", "subject: user", "POLICY_NAME_UNKNOWN", "user\n", "did you mean user_id?"),
        ("time: started", "time: speed", "POLICY_VALUE_INVALID", "speed", "timestamp"),
        ("garage: edge-private", "mode: edge-private", "POLICY_NAME_DUPLICATE", "mode", "rename"),
        ("operators: [acme, borealis]", "operators: [acme, acme]", "POLICY_NAME_DUPLICATE", "acme]", "unique"),
        ("id: R2", "id: R1", "POLICY_NAME_DUPLICATE", "R1, effect: allow, to: {worker: cloud", "unique"),
        (
            "clearance: edge-private, purposes: [service.routing]",
            "clearance: edge-private, purposes: [routing]",
            "POLICY_NAME_UNKNOWN",
            "routing]",
            "service.routing",
        ),
        (
            "operator: acme, kind: train",
            "operator: acne, kind: train",
            "POLICY_NAME_UNKNOWN",
            "acne",
            "did you mean acme?",
        ),
        ("operator: acme, kind: train", "kind: train", "POLICY_KEY_MISSING", "{place: cloud", "add operator"),
        ("region: cbd", "region: [cbd]", "POLICY_VALUE_INVALID", "[cbd]", "attributes are"),
        (
            "{worker: cloud-trainer}, data: trips, fields",
            "{worker: cloud}, data: trips, fields",
            "POLICY_NAME_UNKNOWN",
            "cloud}",
            "known here",
        ),
        ("to: {kind: train}", "to: {}", "POLICY_VALUE_INVALID", "{}", "name a worker"),
        ("fields: '*'", "fields: []", "POLICY_VALUE_INVALID", "[]", "at least 1"),
        ("fields: '*'", "fields: ['*', gps]", "POLICY_VALUE_INVALID", "['*'", "'*' for all"),
        ("data: trips, fields: '*'", "data: trips", "POLICY_KEY_MISSING", "{id: R3", "add fields"),
        ("fields: [gps, started, speed, mode]", "fields: [gps, start]", "POLICY_NAME_UNKNOWN", "start]", "started"),
        (
            "research.stats: opt_in}",
            "research.stat: opt_in}",
            "POLICY_NAME_UNKNOWN",
            "research.stat:",
            "research.stats",
        ),
        ("from: acme, to: acme", "from: acne, to: acme", "POLICY_NAME_UNKNOWN", "acne", "acme"),
        (
            "expect: {allow: [cell], by: [R1]}",
            "expect: {allow: [cell], by: [R9]}",
            "POLICY_NAME_UNKNOWN",
            "R9",
            "known here",
        ),
        ("expect: {allow: [cell], by: [R1]}", "expect: {allow: [cells]}", "POLICY_NAME_UNKNOWN", "cells", "cell"),
        (
            "expect: {deny: NO_RULE_FIELD}",
            "expect: {deny: NO_RULE_FILED}",
            "POLICY_VALUE_INVALID",
            "NO_RULE_FILED",
            "NO_RULE_FIELD",
        ),
        (
            "expect: {deny: NO_RULE_FIELD}",
            "expect: {}",
            "POLICY_VALUE_INVALID",
            "{name: no raw id",
            "write ask and expect",
        ),
    ],
)
def test_what_is_wrong_is_named_where_it_stands_with_what_would_be_right(old, new, code, at, fix):
    text = changed((old, new))
    found = [each for each in problems(text) if each.code == code]
    line = text.splitlines(keepends=True)[found[0].line - 1]

    assert len(found) == 1, [str(each) for each in found]
    assert line[found[0].column - 1 :].startswith(at), (line, found[0])
    assert fix in found[0].fix


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{edge: [cell], cloud: [cell, area]}",
            "{edge: [area]}",
            "area leads from edge-private, and gps is user-private here",
        ),
        ("{edge: [cell], cloud: [cell, area]}", "{edge: [hour]}", "hour does not take point: it takes timestamp"),
        (
            "{edge: [cell], cloud: [cell, area]}",
            "{cloud: [cell]}",
            "ends at edge-private, and the cloud holds at most public",
        ),
        ("{edge: [cell], cloud: [cell, area]}", "{edge: [cell, area]}", "so the cloud would receive gps too"),
        (
            "{edge: [cell], cloud: [cell, area]}",
            "{edge: [cell], cloud: [cell, day]}",
            "day does not take string: it takes timestamp",
        ),
        ("{edge: [cell], cloud: [cell, area]}", "{device: [cell]}", "which the device holds as it is"),
        ("up: {cloud: [band]}", "up: {edge: [band]}", "speed is edge-private, which the edge holds as it is"),
        ("precision: 5", "precision: 2", "area is finer than the transform before it"),
        ("unit: 1h", "unit: 2d", "day is finer than the transform before it"),
        ("up: {edge: [pid]}", "up: {edge: [pod]}", "there is no transform pod"),
        (
            "precision: 5,                   from: user-private, to: edge-private",
            "precision: 5, from: user-private, to: public",
            "",
        ),
    ],
)
def test_a_chain_that_does_not_fit_is_refused(old, new, message):
    found = problems(changed((old, new)))

    assert found[0].code in ("POLICY_CHAIN_INVALID", "POLICY_NAME_UNKNOWN")
    assert message in f"{found[0].message}: {found[0].fix}"


def test_a_transform_must_lead_down():
    level = (
        "edges: [0, 10, 30, 60],         from: edge-private, to: public",
        "edges: [0], from: edge-private, to: edge-private",
    )

    assert "band leads from edge-private to edge-private, which is not down" in problems(changed(level))[0].message


def test_two_chains_may_not_make_two_forms_at_one_tier():
    text = changed(
        ("  area:", "  spot: {op: geohash, precision: 2, from: user-private, to: public}\n  area:"),
        ("{edge: [cell], cloud: [cell, area]}", "{edge: [spot], cloud: [cell, area]}"),
    )

    assert {each.code for each in problems(text)} == {"POLICY_CHAIN_INVALID"}


def test_one_chain_may_serve_the_edge_and_the_cloud():
    policy = city(
        ("  area:", "  spot: {op: geohash, precision: 2, from: user-private, to: public}\n  area:"),
        ("{edge: [cell], cloud: [cell, area]}", "{edge: [spot], cloud: [spot]}"),
        ("expect: {allow: [cell], by: [R1]}", "expect: {allow: [spot], by: [R1]}"),
    )

    assert [tier.label for tier in policy.collections["trips"].forms["gps"]] == ["user-private", "public"]


@pytest.mark.parametrize(
    ("where", "at", "message"),
    [
        ("[[mde, eq, x]]", "mde", "there is no column mde"),
        ("[[speed, gt, 30]]", "30", "for cloud-trainer, speed is a string and 30 is none"),
        ("[[started, ge, yesterday]]", "yesterday", "'yesterday' is no time"),
        ("[[started, ge, now-7]]", "now-7]", "'7' is no duration"),
        ("[[started, ge, '2024-01-01T00:00:00']]", "'2024", "has no time zone"),
        ("[[mode, eq, 1]]", "1]", "mode is a string and 1 is none"),
        ("[[mode, eq, [a]]]", "[a]", "eq takes one value"),
        ("[[mode, in, a]]", "a]", "in takes a list"),
        ("[[mode, in, []]]", "[]", "0 values"),
        ("[[mode, exists, maybe]]", "maybe", "exists takes no 'maybe'"),
        ("[[mode, eq, $worker.team]]", "$worker.team", "the worker has no team"),
        ("[[mode, eq, $user.id]]", "$user.id", "$user.id names nothing"),
        ("[[note, eq, x]]", "note", "cloud-trainer cannot see note"),
        ("[[garage, eq, x]]", "garage", "cloud-trainer cannot see garage"),
        ("[[region, gt, true]]", "gt", "true and false have no order"),
        ("[[region, gt, now-1d]]", "now-1d", "region is a constant, not a time"),
    ],
)
def test_a_condition_that_cannot_be_translated_is_refused(where, at, message):
    found, text = problem(("where: [[mode, eq, school_bus]]", f"where: {where}"))

    assert found.code == "POLICY_WHERE_INVALID" if "no column" not in message else "POLICY_NAME_UNKNOWN"
    assert text.startswith(at)
    assert message in found.message


def test_a_raise_has_no_worker_and_nothing_is_below_public():
    assert "there is none here" in problem(("eq, private_road", "eq, $worker.id"))[0].message
    assert "nothing is below public" in problem(("{to: user-private, where", "{to: public, where"))[0].message
    assert "gps is a point" in problem(("[mode, eq, private_road]", "[gps, eq, x]"))[0].message


def test_a_document_collection_is_parsed_strictly_too():
    messages = [each.message for each in problems(changed(("kind: stream", "kind: document")))]

    assert messages == ["collections.trips has no key", "collections.trips has no key time"]


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"# nothing\n",
        b"[]",
        b"text",
        b"\xff\xfe",
        b"a: \x00",
        b"{",
        b"- " * 40,
        b"[" * 100_000,
        b"? " * 1000,
        b"a: !!python/object:x {}",
    ],
)
def test_what_is_no_policy_at_all_is_an_error_and_not_a_crash(source):
    assert problems(source)


def test_a_policy_over_the_size_limit_is_not_parsed():
    assert [each.code for each in problems(b"#" * (POLICY_BYTES_MAX + 1))] == ["POLICY_TOO_LARGE"]


def test_every_prefix_of_a_policy_loads_or_is_refused_with_a_position():
    data = CITY.encode()
    for end in range(0, len(data), 211):
        for each in problems(data[:end]):
            assert each.line >= 1
            assert each.column >= 1
            assert each.message


def test_the_example_in_the_documentation_loads():
    text = (DEMO.parents[2] / "docs" / "POLICY.md").read_text(encoding="utf-8")

    assert load(text.partition("```yaml\n")[2].partition("```")[0].encode()).document.id == "watches"


PIECES = re.findall(r"[\w.*$-]+|\S|\s+", CITY)
WORDS = [
    "~",
    "[]",
    "{}",
    "''",
    "-1",
    "1e400",
    "true",
    "no",
    "'*'",
    "now-7d",
    "$worker.x",
    "[a, [b]]",
    "{a: {b: c}}",
    "\t",
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(PIECES) - 1), st.sampled_from([*WORDS, *PIECES, ""])), min_size=1, max_size=3)
)
def test_a_policy_with_words_exchanged_loads_or_names_its_problems(exchanges):
    pieces = list(PIECES)
    for index, word in exchanges:
        pieces[index] = word
    try:
        load("".join(pieces).encode())
    except PolicyInvalid as error:
        assert all(each.message and each.line >= 1 and each.column >= 1 for each in error.problems)  # noqa: PT017
