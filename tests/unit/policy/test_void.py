"""Allows that can never allow anything are refused, and those that may allow something are not."""

import time

import pytest

from datasync.policy.loading import load
from datasync.policy.problems import PolicyInvalid
from tests.unit.policy.city import changed

SCHEMA = """\
schema: datasync.policy/v1
id: void
revision: 1
operators: [acme]
purposes: [p]
transforms:
  pid:   {op: hmac, key: subject, from: user-private, to: edge-private}
  cell:  {op: geohash, precision: 5, from: user-private, to: edge-private}
  hour:  {op: truncate, unit: 1h, from: user-private, to: edge-private}
  band:  {op: bucket, edges: [0, 10], from: user-private, to: edge-private}
  whole: {op: round, decimals: 0, from: user-private, to: edge-private}
  first: {op: mask, keep: 1, from: user-private, to: edge-private}
  last:  {op: mask, keep: 1, side: end, from: user-private, to: edge-private}
  none:  {op: drop, from: user-private, to: edge-private}
  seven: {op: constant, value: 7, from: user-private, to: edge-private}
collections:
  c:
    kind: stream
    subject: who
    meta: {region: public}
    fields:
      who:     {type: string,    tier: user-private, up: {edge: [pid]}}
      spot:    {type: point,     tier: user-private, up: {edge: [cell]}}
      hour_of: {type: timestamp, tier: user-private, up: {edge: [hour]}}
      banded:  {type: float32,   tier: user-private, up: {edge: [band]}}
      rounded: {type: float32,   tier: user-private, up: {edge: [whole]}}
      initial: {type: string,    tier: user-private, up: {edge: [first]}}
      ending:  {type: string,    tier: user-private, up: {edge: [last]}}
      dropped: {type: string,    tier: user-private, up: {edge: [none]}}
      fixed:   {type: int32,     tier: user-private, up: {edge: [seven]}}
      text:    {type: string,    tier: edge-private}
      flag:    {type: bool,      tier: edge-private}
      small:   {type: int32,     tier: edge-private}
      big:     {type: int64,     tier: edge-private}
      single:  {type: float32,   tier: edge-private}
      double:  {type: float64,   tier: edge-private}
      at:      {type: timestamp, tier: edge-private}
      place:   {type: point,     tier: edge-private}
      secret:  {type: string}
workers:
  reader: {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [p], region: north, most: 3}
  other:  {place: edge, operator: acme, kind: train, clearance: edge-private, purposes: [p], region: south, most: 9}
  humble: {place: edge, operator: acme, kind: train, clearance: public, purposes: [p], region: south, most: 9}
rules:
"""


def allow(where="", to="{worker: reader}", fields="[text]"):
    condition = f", where: [{where}]" if where else ""
    return f"  - {{id: A, effect: allow, to: {to}, data: c, fields: {fields}{condition}}}\n"


def deny(where="", to="{worker: reader}", fields="'*'", name="D"):
    condition = f", where: [{where}]" if where else ""
    return f"  - {{id: {name}, effect: deny, to: {to}, data: c, fields: {fields}{condition}}}\n"


def void(*rules):
    """Return the one problem of a policy with these rules; None when it loads."""
    try:
        load((SCHEMA + "".join(rules)).encode())
    except PolicyInvalid as error:
        (found,) = error.problems
        assert found.code == "POLICY_RULE_VOID"
        assert found.fix
        return found
    return None


@pytest.mark.parametrize(
    "where",
    [
        "[text, eq, a], [text, eq, b]",
        "[text, eq, a], [text, ne, a]",
        "[text, in, [a, b]], [text, not_in, [b, a]]",
        "[text, in, [a, b]], [text, gt, b]",
        "[text, lt, '']",
        "[text, gt, a], [text, lt, b], [text, lt, a]",
        "[text, gt, a], [text, lt, \"a\\0\"]",
        "[text, exists, false], [text, ne, a]",
        "[text, exists, false], [text, exists, true]",
        "[flag, eq, true], [flag, eq, false]",
        "[flag, ne, true], [flag, ne, false]",
        "[small, lt, 3], [small, gt, 5]",
        "[small, gt, 3], [small, lt, 4]",
        "[small, gt, 2147483647]",
        "[small, lt, -2147483648]",
        "[big, gt, 9223372036854775807]",
        "[small, ge, 5], [small, le, 5], [small, ne, 5]",
        "[small, gt, $worker.most], [small, lt, 4]",
        "[single, eq, 0.1], [single, eq, 0.10000001], [single, ne, 0.1]",
        "[single, gt, 1], [single, lt, 1.0000001192092896]",
        "[double, eq, 0.1], [double, eq, 0.10000000000000002]",
        "[double, eq, 0], [double, ne, -0.0]",
        "[at, ge, now-7d], [at, lt, now-7d]",
        "[at, ge, now-7d], [at, lt, now-8d]",
        "[at, exists, false], [at, ge, now-7d]",
        "[at, ge, '2024-01-02T00:00:00Z'], [at, lt, '2024-01-02T01:00:00+01:00'], [at, le, now]",
        "[at, lt, '0001-01-01T00:00:00Z']",
        "[place, exists, true], [place, exists, false]",
        "[region, eq, a], [region, eq, b]",
        "[region, eq, $worker.region], [region, ne, north]",
        "[region, eq, a], [region, gt, 5]",
        "[region, gt, 5], [region, le, 5]",
        "[region, exists, false], [region, ne, a]",
        "[text, eq, a], [small, eq, 1], [text, eq, b], [small, eq, 2]",
        # What a transform never gives.
        "[who, eq, alice]",
        "[spot, eq, r1r]",
        "[spot, in, [R1R0F, r1r0a]]",
        "[hour_of, eq, '2024-01-02T00:30:00Z']",
        "[banded, eq, 0-9]",
        "[banded, not_in, [<0, 0-10, '>=10']]",
        "[banded, lt, '0-10']",
        "[initial, eq, Alice]",
        "[ending, eq, '***ce']",
        "[dropped, ne, a]",
        "[fixed, ne, 7]",
        "[fixed, gt, 7]",
    ],
)  # fmt: skip
def test_conditions_that_no_row_satisfies_make_an_allow_void(where):
    found = void(allow(where))

    assert found is not None
    assert "A can never allow anything: no row that reader sees has" in found.message


@pytest.mark.parametrize(
    "where",
    [
        "[text, ge, a], [text, le, a]",
        "[text, gt, a], [text, lt, b]",
        "[text, gt, a], [text, lt, ab]",
        "[text, le, '']",
        "[text, ne, a], [text, ne, b], [text, ne, '']",
        "[text, exists, false]",
        "[flag, ne, true]",
        "[flag, exists, false]",
        "[small, gt, 3], [small, lt, 5]",
        "[small, ge, 2147483647]",
        "[small, gt, $worker.most], [small, lt, 5]",
        "[big, gt, 9223372036854775806]",
        "[single, eq, 0.1], [single, eq, 0.10000000149]",
        "[single, gt, 1], [single, lt, 1.0000002384185791]",
        "[double, gt, 1.7976931348623157e308]",
        "[double, lt, -1.7976931348623157e308]",
        "[double, eq, 0], [double, eq, -0.0]",
        "[double, not_in, [0, 1]], [double, ne, 2]",
        "[at, ge, now-7d], [at, lt, now-6d]",
        "[at, ge, now], [at, le, now]",
        "[at, ge, now-7d], [at, lt, '1970-01-01T00:00:00Z']",
        "[at, gt, '2024-01-02T00:00:00Z'], [at, lt, '2024-01-02T00:00:00.000002Z']",
        "[place, exists, true]",
        "[region, gt, a], [region, lt, b]",
        "[region, gt, 5], [region, lt, 6]",
        "[region, gt, 9007199254740992], [region, lt, 9007199254740994]",
        "[region, eq, $worker.region], [region, eq, north]",
        "[region, eq, true]",
        "[region, exists, false]",
        "[who, eq, '0123456789abcdef0123456789abcdef']",
        "[who, gt, alice]",
        "[spot, eq, r1r0f]",
        "[hour_of, eq, '2024-01-02T00:00:00Z']",
        "[hour_of, eq, now-30m]",
        "[hour_of, gt, '2024-01-02T00:30:00Z']",
        "[banded, eq, 0-10]",
        "[banded, exists, false]",
        "[rounded, eq, 0.5]",
        "[initial, in, [Alice, 'A***']]",
        "[initial, eq, '***']",
        "[ending, eq, '***e']",
        "[dropped, exists, false]",
        "[fixed, eq, 7]",
    ],
)  # fmt: skip
def test_conditions_that_some_row_satisfies_leave_an_allow_alone(where):
    assert void(allow(where)) is None


def test_the_problem_stands_at_the_condition_that_contradicts_and_says_what_the_worker_sees():
    found = void(allow("[small, eq, 1], [banded, eq, 0-9], [flag, eq, true]"))
    line = (SCHEMA + allow("[small, eq, 1], [banded, eq, 0-9]")).splitlines()[found.line - 1]

    assert line[found.column - 1 :].startswith("[banded")
    assert found.message == "A can never allow anything: no row that reader sees has banded eq 0-9"
    assert found.fix == "reader sees banded as band; mend the conditions, or remove the rule"


def test_an_allow_for_nobody_is_void_and_a_deny_for_nobody_is_not():
    found = void(allow(to="{place: cloud}"))

    assert found.message == "A can never allow anything: it selects no worker of the policy"
    assert found.fix == "add the worker, or remove the rule"
    assert void(allow(), deny(to="{place: cloud}")) is None


def test_an_allow_of_fields_that_nobody_it_selects_can_see_is_void():
    assert "secret is user-private and has no chain that leads to the edge" in void(allow(fields="[secret]")).message
    assert "above humble's clearance public" in void(allow(to="{worker: humble}")).message
    assert void(allow(fields="[secret, text]")) is None
    assert void(allow(to="{kind: train}")) is None, "other sees text, and humble does not"


def test_an_allow_is_void_only_if_it_is_for_every_worker_that_it_selects():
    where = "[region, eq, $worker.region], [region, eq, north]"

    assert void(allow(where, to="{worker: other}")) is not None
    assert void(allow(where, to="{operator: acme}")) is None


def test_an_allow_of_what_a_deny_holds_back_whole_is_void():
    assert void(allow(), deny()).message == "A can never allow anything: D denies reader text of c"
    assert void(allow(fields="[text, flag]"), deny(fields="[text]")) is None
    assert void(allow(to="{operator: acme}"), deny()) is None, "other is not denied"


@pytest.mark.parametrize(
    ("allowed", "denied"),
    [
        ("[text, eq, a]", "[text, eq, a]"),
        ("[text, eq, a], [small, gt, 5]", "[small, gt, 4]"),
        ("[text, eq, a], [small, gt, 5]", "[small, gt, 4], [text, in, [a, b]]"),
        ("[text, exists, false]", "[text, eq, a]"),
        ("[at, ge, now-1h]", "[at, ge, now-1d]"),
        ("[region, eq, north]", "[region, ne, south]"),
        ("", "[banded, in, [<0, 0-10, '>=10']]"),
        ("", "[dropped, eq, a]"),
        ("", "[fixed, eq, 7]"),
    ],
)
def test_an_allow_whose_every_row_a_deny_holds_back_is_void(allowed, denied):
    found = void(allow(allowed), deny(denied))

    assert found.message == "A can never allow anything: D denies reader every row of it"


@pytest.mark.parametrize(
    ("allowed", "denied"),
    [
        ("", "[text, eq, a]"),
        ("[text, ge, a]", "[text, gt, a]"),
        ("[text, eq, a]", "[text, eq, a], [small, eq, 1]"),
        ("[text, eq, a]", "[text, exists, false]"),
        ("[double, ne, 5]", "[double, lt, 5]"),
        ("[double, ne, 5], [double, not_in, [6]]", "[double, exists, true], [double, le, 5]"),
        ("[at, ge, now-1h]", "[at, ge, '2024-01-01T00:00:00Z']"),
        ("[region, eq, north]", "[region, ne, north]"),
        ("", "[rounded, lt, 0]"),
    ],
)
def test_an_allow_of_some_row_that_no_deny_holds_back_is_not_void(allowed, denied):
    assert void(allow(allowed), deny(denied)) is None


def test_denies_of_rows_together_hold_back_all_fields_of_an_allow():
    halves = [deny("[small, gt, 4]", fields=f"[{name}]", name=f"D{name}") for name in ("text", "flag")]

    assert "Dtext, Dflag denies" in void(allow("[small, gt, 5]", fields="[text, flag]"), *halves).message
    assert void(allow("[small, gt, 5]", fields="[text, flag]"), halves[0]) is None


def test_nan_is_neither_below_nor_above_so_denies_of_both_sides_leave_it():
    both = [deny("[double, exists, true], [double, lt, 5]"), deny("[double, ge, 5]", name="E")]

    assert void(allow("[double, ne, 7], [double, exists, true]"), both[0], both[1]) is None


def test_a_rule_that_an_older_revision_s_rows_may_satisfy_is_not_void():
    """Rows that ``raise`` would lift today may have come before it was written."""
    text = changed(("[region, eq, $worker.region], [started, ge, now-7d]", "[mode, eq, private_road]"))

    assert load(text.partition("tests:\n")[0].encode()).revision == 7


def test_every_void_allow_is_told_beside_the_other_problems_of_the_same_stage():
    text = changed(("[[region, eq, $worker.region], [started, ge, now-7d]]", "[[mode, eq, a], [mode, eq, b]]"))
    text = text.replace("{place: device, kind: infer}", "{place: device, kind: train}")
    with pytest.raises(PolicyInvalid) as caught:
        load(text.encode())

    codes = [(each.code, each.message.partition(" ")[0]) for each in caught.value.problems]
    assert codes == [("POLICY_RULE_VOID", "R1"), ("POLICY_RULE_VOID", "R3")]


def test_a_thousand_values_that_contradict_a_thousand_are_refused_quickly():
    lists = [", ".join(f"{letter}{n}" for n in range(1_000)) for letter in "ab"]
    for name in ("region", "text"):
        began = time.perf_counter()
        found = void(allow(f"[{name}, in, [{lists[0]}]], [{name}, in, [{lists[1]}]]"))
        assert found is not None
        assert len(found.message) < 300
        assert time.perf_counter() - began < 5
