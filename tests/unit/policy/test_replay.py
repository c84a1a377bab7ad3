"""Recorded decisions, asked again of another policy."""

import json
import tracemalloc

import pytest

from datasync.domain.errors import AccessDenied, LogInvalid
from datasync.domain.limits import LOG_LINE_BYTES_MAX
from datasync.policy.decide import view_rules
from datasync.policy.replay import read_lines, replay
from tests.unit.policy.city import untested

R1 = "where: [[region, eq, $worker.region], [started, ge, now-7d]]"
R1_FIELDS = "fields: [user_id, gps, started, speed, mode],"


def line(policy, worker="edge-router", purpose="service.routing", number=1, event="opened", **changes):
    """Return the line that a node writes when a worker opens a view under the policy."""
    said = {"code": "ALLOW", "rules": [], "fields": []}
    try:
        rules = view_rules(policy, policy.workers[worker], "trips", purpose)
        said |= {"rules": list(rules.rules), "fields": rules.schema.names}
    except AccessDenied as denied:
        event, said["code"] = "refused", denied.reason
    entry = {
        "number": number, "at_ms": 1_700_000_000_000, "event": event, "worker": worker, "collection": "trips",
        "purpose": purpose, "revision": policy.revision, "digest": policy.digest, **said, "rows": 3, "bytes": 99,
        "hash": "0" * 64, **changes,
    }  # fmt: skip
    return json.dumps(entry).encode() + b"\n"


def differs(policy, *lines):
    return [each.differs for each in replay(policy, read_lines(lines))]


def test_decisions_do_not_differ_under_the_policy_that_took_them():
    policy = untested()
    lines = [
        line(policy, worker=worker.id, purpose=purpose)
        for worker in policy.workers.values()
        for purpose in sorted(policy.purposes)
    ]
    assert differs(policy, *lines) == [()] * len(lines)


def test_conditions_alone_are_no_difference_for_the_log_does_not_know_the_rows():
    assert differs(untested((R1, "where: [[region, eq, docks]]")), line(untested())) == [()]


@pytest.mark.parametrize(
    ("old", "new", "worker", "told"),
    [
        (R1_FIELDS, "fields: [started, mode, note],", "edge-router", ("loses user_id, gps, speed",)),
        (
            "clearance: edge-private, purposes: [service.routing]",
            "clearance: edge-private, purposes: [research.stats]",
            "edge-router",
            ("refused as NO_PURPOSE, was allowed",),
        ),
        (
            "- {id: D1,",
            "- {id: R6, effect: allow, to: {place: edge}, data: trips, fields: [mode]}\n  - {id: D1,",
            "edge-guest",
            ("allowed, was refused as NO_RULE",),
        ),
        (
            "- {id: D1,",
            "- {id: D0, effect: deny, to: {worker: edge-guest}, data: trips}\n  - {id: D1,",
            "edge-guest",
            ("refused as DENIED_BY, not as NO_RULE",),
        ),
        ("id: R1", "id: R9", "edge-router", ("by R9, was by R1",)),
        (
            "fields: [gps, started, speed, mode]}",
            "fields: [gps, user_id, mode]}\n"
            "  - {id: R5, effect: allow, to: {worker: cloud-trainer}, data: trips, fields: [speed, started]}",
            "cloud-trainer",
            ("by D1, R2, R5, was by D1, R2",),
        ),
        ("  edge-guest: ", "  edge-gust: ", "edge-guest", ("refused as NOT_FOUND, not as NO_RULE",)),
    ],
)
def test_a_decision_that_differs_says_in_which_ways(old, new, worker, told):
    purpose = "improve.train" if worker == "cloud-trainer" else "service.routing"
    assert differs(untested((old, new)), line(untested(), worker=worker, purpose=purpose)) == [told]


def test_fields_gained_are_told():
    fewer = untested((R1_FIELDS, "fields: [started, mode],"))
    assert differs(untested(), line(fewer)) == [("gains user_id, gps, speed",)]


def test_a_collection_that_is_gone_refuses():
    assert differs(untested(), line(untested(), collection="rides")) == [("refused as NOT_FOUND, was allowed",)]


def test_what_was_refused_at_another_operators_node_still_is():
    policy = untested()
    refused = line(policy, event="refused", code="NO_OPERATOR", rules=[], fields=[])
    assert differs(policy, refused) == [()]

    on_device = ("edge-router:   {place: edge,", "edge-router:   {place: device,")
    unbound = untested(on_device)
    assert differs(unbound, refused) == [("allowed, was refused as NO_OPERATOR",)]


def test_a_difference_is_data_with_both_answers():
    policy = untested((R1_FIELDS, "fields: [started, mode],"))
    (found,) = replay(policy, read_lines([line(untested(), number=7)]))
    data = json.loads(json.dumps(found.to_data()))
    assert (data["number"], data["worker"], data["was"]["code"], data["now"]["code"]) == (
        7,
        "edge-router",
        "ALLOW",
        "ALLOW",
    )
    assert data["now"]["fields"] == ["started", "mode"]
    assert data["differs"] == ["loses user_id, gps, speed"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"\n",
        b"{}\n",
        b"not json\n",
        b"[]\n",
        b"\xff\n",
        line(untested(), number=0),
        line(untested(), number="1"),
        line(untested(), event="closed"),
        line(untested(), rows=-1),
        line(untested(), rules="R1"),
        line(untested(), more=1),
        line(untested())[:-20],
        line(untested(), collection=3),
    ],
)
def test_a_line_that_is_no_decision_is_refused_with_its_number(wrong):
    good = line(untested())
    with pytest.raises(LogInvalid) as caught:
        list(read_lines([good, good, wrong]))
    assert caught.value.where == "line 3"
    assert caught.value.code == "LOG_INVALID"


def test_a_line_that_is_too_long_is_refused_before_it_is_parsed():
    with pytest.raises(LogInvalid, match="line 1: the line is too long"):
        list(read_lines([b" " * (LOG_LINE_BYTES_MAX + 1)]))


def test_a_long_log_needs_no_more_memory_than_a_short_one():
    policy, one = untested(), line(untested())
    used = {}
    for count in (100, 2_000):
        tracemalloc.start()
        assert sum(1 for _ in replay(policy, read_lines(one for _ in range(count)))) == count
        used[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert used[2_000] < 2 * used[100]
