"""Pruning: what metadata rules out is not opened, and nothing else is left out."""

import pytest

from datasync.domain.clock import Instant
from datasync.domain.tiers import Tier
from datasync.store import segments
from datasync.views.read import read

RULE = "  - {id: R2, effect: allow, to: {worker: router}, data: trips, fields: [started, speed, mode]}"
HOUR_MS = 3_600_000
NOW = Instant(100 * HOUR_MS, 0)

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite", "postgres"])


@pytest.fixture
def with_rules(edge):
    """Put other rules for the router in the place of its own."""

    def activate(*wheres):
        rules = [
            RULE.replace("R2", f"Q{n}").removesuffix("}") + f", where: {where}}}" for n, where in enumerate(wheres)
        ]
        source = edge.policy.source.decode().replace(RULE, "\n".join(rules)).replace("revision: 1", "revision: 2")
        edge.activate(
            source.replace(
                "operator: acme, kind: infer, clearance: edge-private,\n",
                "operator: acme, kind: infer, clearance: edge-private, region: cbd,\n",
                1,
            )
        )
        return edge

    return activate


def opened(site, now=NOW):
    """The speeds shown to the router, and how many segments had to be opened for that."""
    plan = site.plan("router")
    with site.database.read() as tx:
        shown = [row["speed"] for chunk in read(tx, site.vault, plan, now) for row in chunk.batch.to_pylist()]
        candidates = segments.visible(tx, "trips", plan.base, after=0, limit=100, extra=plan.conditions(now))
    return shown, sum(plan.pruning.may_show(segment.meta, now) for segment in candidates)


def test_segments_older_than_every_allow_asks_for_are_not_opened(with_rules, trip):
    site = with_rules("[[started, ge, now-10h]]")
    for hour in range(0, 100, 10):
        site.capture("watch-1", [trip(hour=hour, speed=float(hour))])
    assert opened(site) == ([90.0], 1)


def test_the_most_generous_allow_decides_how_far_back_is_read(with_rules, trip):
    site = with_rules("[[started, ge, now-10h]]", "[[started, gt, '1970-01-03T00:00:00Z'], [mode, eq, bike]]")
    for hour in range(0, 100, 10):
        site.capture("watch-1", [trip(hour=hour, speed=float(hour))])
    assert opened(site) == ([50.0, 60.0, 70.0, 80.0, 90.0], 5)


def test_an_allow_without_a_time_has_everything_opened(with_rules, trip):
    site = with_rules("[[started, ge, now-10h]]", "[[mode, eq, bus]]")
    site.capture("watch-1", [trip(hour=1, speed=1.0)])
    site.capture("watch-1", [trip("bus", hour=2, speed=2.0)])
    assert opened(site) == ([2.0], 2)


def test_the_bound_itself_and_what_lies_just_before_it_are_opened(with_rules, trip):
    site = with_rules("[[started, ge, now-10h]]")
    site.capture("watch-1", [trip(hour=90, speed=1.0)])
    site.capture("watch-1", [trip(hour=89, speed=2.0)])
    assert opened(site) == ([1.0], 1)


def test_rows_without_a_time_are_opened_and_never_satisfy_the_allow(with_rules, trip):
    site = with_rules("[[started, ge, now-10h]]")
    site.capture("watch-1", [trip(speed=1.0) | {"started": None}])
    assert opened(site) == ([], 1)


def test_segments_of_devices_whose_constants_no_allow_accepts_are_not_opened(with_rules, trip):
    site = with_rules("[[region, eq, $worker.region]]")
    site.capture("watch-1", [trip(speed=1.0)], region="cbd")
    site.capture("watch-2", [trip(speed=2.0)], region="docks")
    site.capture("watch-3", [trip(speed=3.0)])
    assert opened(site) == ([1.0], 1)


def test_one_allow_that_accepts_the_constants_is_enough(with_rules, trip):
    site = with_rules("[[region, eq, $worker.region]]", "[[region, eq, docks], [mode, eq, bike]]")
    site.capture("watch-1", [trip(speed=1.0)], region="cbd")
    site.capture("watch-2", [trip(speed=2.0)], region="docks")
    site.capture("watch-3", [trip(speed=3.0)], region="hills")
    assert opened(site) == ([1.0, 2.0], 2)


def test_times_of_another_layer_rule_nothing_out(make_site, edge, trip):
    """The tourist sees days from the public layer; raised rows have theirs elsewhere, so bounds must be its own."""
    plan = edge.plan("tourist")
    assert (plan.base, plan.pruning.time) == (Tier.PUBLIC, "started")
    assert edge.plan("counter").pruning.time == "started"
