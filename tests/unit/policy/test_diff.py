"""What a change of the city's policy does, change by change."""

import pytest

from datasync.policy.comparing.diff import diff, may_widen
from datasync.policy.comparing.effects import Effect
from tests.unit.policy.city import untested

CELL, AREA, HOUR = "precision: 5", "precision: 3", "unit: 1h"
R1 = "where: [[region, eq, $worker.region], [started, ge, now-7d]]"
R1_FIELDS = "fields: [user_id, gps, started, speed, mode],"
D1 = "where: [[mode, eq, school_bus]]"
R2 = "fields: [gps, started, speed, mode]}"
RAISE = "- {to: user-private, where: [[mode, eq, private_road]]}"
H0 = "  - {id: H0, from: acme, to: acme, data: '*', action: move}\n"
MOBILITY = "mobility: {hot: 24h, escrow: false}"


def effects(old, new):
    """Return the effect on each scope, name and field that changes, whatever the purpose."""
    return {(each.scope, each.name, each.field): each.effect for each in diff(untested(*old), untested(*new))}


def effect(*changes):
    """Return the one effect that a change of the city's policy has on everybody whom it concerns."""
    found = set(effects((), changes).values())
    assert len(found) == 1, found
    return found.pop().value


def test_a_policy_does_not_differ_from_itself():
    assert diff(untested(), untested()) == ()


def test_names_of_rules_and_of_transforms_and_the_order_of_rules_are_no_difference():
    renamed = (("id: R1", "id: everything"), ("  cell: {", "  tile: {"), ("[cell]", "[tile]"), ("[cell,", "[tile,"))
    assert diff(untested(), untested(*renamed)) == ()


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (CELL, "precision: 6", "widens"),
        (CELL, "precision: 4", "narrows"),
        ("edges: [0, 10, 30, 60]", "edges: [0, 10, 20, 30, 60]", "widens"),
        ("edges: [0, 10, 30, 60]", "edges: [0, 30]", "narrows"),
        ("edges: [0, 10, 30, 60]", "edges: [0, 20]", "changes"),
        ("rotate: 30d", "rotate: 60d", "widens"),
        ("rotate: 30d", "rotate: 15d", "narrows"),
        ("rotate: 30d", "rotate: 20d", "changes"),
        (" rotate: 30d, ", "", "widens"),
        (R1, "where: [[region, eq, $worker.region], [started, ge, now-14d]]", "widens"),
        (R1, "where: [[region, eq, $worker.region], [started, ge, now-6d]]", "narrows"),
        (R1, "where: [[region, eq, $worker.region], [started, gt, now-7d]]", "narrows"),
        (R1, "where: [[region, eq, $worker.region]]", "widens"),
        (R1, "where: [[region, eq, $worker.region], [started, ge, now-7d], [mode, eq, car]]", "narrows"),
        (R1, "where: [[region, eq, docks], [started, ge, now-7d]]", "changes"),
        ("region: cbd", "region: docks", "changes"),
        (R1, "where: [[region, in, [cbd, docks]], [started, ge, now-7d]]", "widens"),
        (R1, "where: [[region, eq, $worker.region], [started, ge, '2024-01-01T00:00:00Z']]", "changes"),
        (D1, "where: [[mode, in, [school_bus, ambulance]]]", "narrows"),
        (D1, "where: [[mode, eq, school_bus], [speed, eq, '0-10']]", "widens"),
        (D1, "where: [[mode, ne, car]]", "narrows"),
        (R2, "fields: [gps, started, speed, mode], where: [[mode, ne, tram]]}", "narrows"),
        (RAISE, "- {to: edge-private, where: [[mode, eq, private_road]]}", "widens"),
        (RAISE, "- {to: user-private, where: [[mode, in, [private_road, alley]]]}", "narrows"),
        ("    raise:\n      " + RAISE, "", "widens"),
        ("improve.train: opt_in", "improve.train: opt_out", "widens"),
        ("service.routing: contract", "service.routing: opt_out", "narrows"),
        ("note:    {type: string}", "note:    {type: string, up: {edge: [pid]}}", "widens"),
        ("speed:   {type: float32,", "speed:   {type: float64,", "changes"),
        ("garage: edge-private", "garage: public", "widens"),
        (MOBILITY, "mobility: {hot: 24h, escrow: true}", "widens"),
        (MOBILITY, f"{MOBILITY}\n    retain: {{edge: 30d}}", "narrows"),
        ("  - {id: R3, effect: allow, to: {place: device, kind: infer}, data: trips, fields: '*'}\n", "", "narrows"),
        ("operator: acme, kind: train", "operator: borealis, kind: train", "changes"),
        ("subject: user_id", "subject: note", "changes"),
    ],
)  # fmt: skip
def test_a_change_has_one_effect_on_whomever_it_concerns(old, new, wanted):
    assert effect((old, new)) == wanted
    opposite = {"widens": "narrows", "narrows": "widens"}.get(wanted, wanted)
    assert {each.value for each in effects(((old, new),), ()).values()} == {opposite}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (D1, "where: [[mode, exists, true], [mode, eq, school_bus]]"),
        (R1, "where: [[started, ge, now-168h], [region, eq, cbd]]"),
        (R1, "where: [[region, eq, $worker.region], [started, ge, now-7d], [started, exists, true]]"),
        (f"handover:\n{H0}", ""),
        (R2, "fields: [gps, started, speed, mode], where: [[mode, ne, school_bus]]}"),
    ],
)
def test_what_says_the_same_in_other_words_is_no_difference(old, new):
    assert effects((), ((old, new),)) == {}


UNTRUNCATED = (R1, "where: [[region, eq, $worker.region]]")


@pytest.mark.parametrize(("unit", "wanted"), [("30m", "widens"), ("2h", "narrows"), ("90m", "changes")])
def test_a_longer_unit_narrows_when_it_is_a_multiple(unit, wanted):
    assert set(effects((UNTRUNCATED,), (UNTRUNCATED, (HOUR, f"unit: {unit}"))).values()) == {wanted}


def test_a_deny_that_lets_unknown_rows_pass_widens_unless_they_were_raised_anyway():
    known = (D1, "where: [[mode, eq, school_bus], [mode, exists, true]]")
    assert effects((), (known,)) == {}

    elsewhere = (RAISE, "- {to: user-private, where: [[note, eq, x]]}")
    assert set(effects((elsewhere,), (elsewhere, known)).values()) == {Effect.WIDENS}


def test_a_deny_of_one_field_narrows_there_and_widens_elsewhere():
    found = effects((), ((f", data: trips, {D1}", ", data: trips, fields: [speed]"),))
    assert found.pop(("worker", "cloud-trainer", "speed")) is Effect.NARROWS
    assert set(found.values()) == {Effect.WIDENS}


def test_an_allow_that_another_contains_is_no_difference():
    second = "- {id: R4, effect: allow, to: {worker: edge-router}, data: trips, fields: [speed],\n     "
    within = f"{second}where: [[region, eq, cbd], [started, ge, now-3d], [mode, eq, bike]]}}\n  - {{id: R3,"
    assert effects((), (("- {id: R3,", within),)) == {}

    beside = within.replace("now-3d", "now-8d")
    assert effects((), (("- {id: R3,", beside),)) == {("worker", "edge-router", "speed"): Effect.WIDENS}


def test_two_allows_that_together_give_what_one_gave_are_no_difference():
    whole = "where: [[region, eq, cbd]]"
    low = "where: [[region, eq, cbd], [speed, lt, 10]]}"
    high = f"\n  - {{id: R9, effect: allow, to: {{worker: edge-router}}, data: trips,\n     {R1_FIELDS}\n     "
    halves = f"{low}{high}where: [[region, eq, cbd], [speed, ge, 10]]"
    # NULL and NaN are in neither half.
    assert set(effects(((R1, whole),), ((R1, halves),)).values()) == {Effect.NARROWS}

    rest = f"}}{high.replace('R9', 'R8')}where: [[region, eq, cbd], [speed, exists, false]]"
    rest += f"}}{high.replace('R9', 'R7')}where: [[region, eq, cbd], [speed, ne, 0]]"
    assert effects(((R1, whole),), ((R1, halves + rest),)) == {}


def test_a_chain_that_nobody_reads_widens_for_the_place_that_then_holds_it():
    new = ("user_id: {type: string,    tier: user-private, up: {edge: [pid]}}",
           "user_id: {type: string,    tier: user-private, up: {edge: [pid], cloud: [pid, alias]}}")  # fmt: skip
    alias = ("  area:", "  alias: {op: hmac, key: subject, from: edge-private, to: public}\n  area:")
    assert effects((), (new, alias)) == {("place", "cloud", "user_id"): Effect.WIDENS}


def test_a_field_that_is_read_and_moves_to_a_lower_tier_widens_for_its_readers_and_for_the_lower_places():
    lower = (
        "speed:   {type: float32,   tier: edge-private, up: {cloud: [band]}}",
        "speed:   {type: float32, tier: public}",
    )
    found = effects((), (lower, ("  band:", "  unused:")))
    assert found == {
        ("worker", "edge-router", "speed"): Effect.WIDENS,
        ("worker", "cloud-trainer", "speed"): Effect.WIDENS,
        ("worker", "watch-coach", "speed"): Effect.WIDENS,
        ("place", "cloud", "speed"): Effect.WIDENS,
    }


def test_a_new_worker_widens_and_one_that_goes_narrows():
    lines = untested().source.decode().splitlines(keepends=True)
    guest = next(line for line in lines if "edge-guest:" in line)
    found = diff(untested((guest, "")), untested())
    assert [(each.effect, each.name, each.reasons) for each in found] == [
        (Effect.WIDENS, "edge-guest", ("the worker is new",))
    ]
    assert effects((), ((guest, ""),)) == {("worker", "edge-guest", None): Effect.NARROWS}


def test_a_purpose_that_a_worker_gains_widens_each_field_that_it_reads():
    gained = (
        "purposes: [service.routing],\n                  region",
        "purposes: [service.routing, research.stats],\n                  region",
    )
    found = diff(untested(), untested(gained))
    assert {each.effect for each in found} == {Effect.WIDENS}
    assert {(each.field, each.purpose) for each in found} == {
        (None, None), *((name, "research.stats") for name in ("user_id", "gps", "started", "speed", "mode"))
    }  # fmt: skip


def test_what_a_higher_clearance_shows_is_told_and_so_is_the_clearance():
    public = (
        "edge-router:   {place: edge,  operator: acme, kind: infer, clearance: edge-private",
        "edge-router:   {place: edge,  operator: acme, kind: infer, clearance: public",
    )
    lower = (public, (R1_FIELDS, "fields: [gps, mode],"), (R1, "where: [[region, eq, $worker.region]]"))
    found = effects(lower, lower[1:])
    assert found == dict.fromkeys([("worker", "edge-router", each) for each in (None, "gps")], Effect.WIDENS)


def test_what_some_rows_gain_and_others_lose_just_changes():
    other = "where: [[region, eq, $worker.region], [started, ge, now-14d], [mode, ne, bike]]"
    assert effect((R1, other)) == "changes"


def test_a_form_that_narrows_in_more_rows_just_changes():
    found = effects((), ((CELL, "precision: 4"), (R1, "where: [[region, eq, $worker.region]]")))
    assert found["worker", "edge-router", "gps"] is Effect.CHANGES
    assert found["worker", "edge-router", "mode"] is Effect.WIDENS


def test_a_condition_on_a_column_in_another_form_is_another_condition():
    on_cell = (R1, "where: [[gps, ge, r1]]")
    found = effects((on_cell,), (on_cell, (CELL, "precision: 4")))
    assert found["worker", "edge-router", "mode"] is Effect.CHANGES


def test_rounding_to_fewer_digits_instead_is_not_contained_and_in_addition_it_is():
    rounded = ("  band: {op: bucket,   edges: [0, 10, 30, 60],", "  band: {op: round, decimals: 2,")
    fewer = (rounded[0], "  band: {op: round, decimals: 0,")
    assert set(effects((rounded,), (fewer,)).values()) == {Effect.CHANGES}

    deny_raw = ("speed:   {type: float32,   tier: edge-private, up: {cloud: [band]}}",
                "speed:   {type: float32,   tier: user-private, up: {edge: [fine], cloud: [fine, band]}}")  # fmt: skip
    chained = (
        fewer,
        deny_raw,
        ("  area:", "  fine: {op: round, decimals: 2, from: user-private, to: edge-private}\n  area:"),
    )
    found = effects((rounded,), chained)
    assert found["worker", "cloud-trainer", "speed"] is Effect.NARROWS
    assert found["worker", "edge-router", "speed"] is Effect.NARROWS


def test_a_pseudonym_of_what_is_not_the_subject_tells_devices_apart_and_is_no_less():
    alias = ("  area:", "  alias: {op: hmac, key: subject, from: edge-private, to: public}\n  area:")
    note, user = "note:    {type: string}", "user_id: {type: string,    tier: user-private, up: {edge: [pid]}}"
    in_cloud = {
        "raw": ((note, "note: {type: string, tier: public}"), (user, "user_id: {type: string, tier: public}")),
        "alias": (
            (note, "note: {type: string, tier: edge-private, up: {cloud: [alias]}}"),
            (user, "user_id: {type: string, tier: edge-private, up: {cloud: [alias]}}"),
        ),
    }
    found = effects((alias, *in_cloud["raw"]), (alias, *in_cloud["alias"]))
    assert found["place", "cloud", "note"] is Effect.CHANGES
    assert found["place", "cloud", "user_id"] is Effect.NARROWS


def test_collections_that_come_and_go_widen_and_narrow_field_by_field():
    notes = "  notes:\n    kind: stream\n    subject: who\n    fields:\n      who: {type: string}\nworkers:\n"
    assert effects((), (("workers:\n", notes),)) == {("place", "device", "who"): Effect.WIDENS}
    assert effects((("workers:\n", notes),), ()) == {("place", "device", "who"): Effect.NARROWS}


def test_only_what_narrows_needs_no_sign_off():
    old = untested()
    assert not may_widen(diff(old, untested((CELL, "precision: 4"))))
    assert may_widen(diff(old, untested((CELL, "precision: 6"))))
    assert may_widen(diff(old, untested((HOUR, "unit: 90m"))))


def test_reasons_name_chains_with_their_parameters_and_rules_with_their_conditions():
    found = diff(untested(), untested((CELL, "precision: 6"), (R1, "where: [[region, eq, $worker.region]]")))
    reasons = next(each.reasons for each in found if each.name == "edge-router" and each.field == "gps")
    assert reasons == (
        "was cell (geohash precision 5), now cell (geohash precision 6)",
        "no longer: R1 allows rows where region eq cbd and started ge now-7d, now: R1 allows rows where region eq cbd",
    )
