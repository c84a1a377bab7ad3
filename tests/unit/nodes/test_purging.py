"""Purging: what edges and the cloud delete when a subject takes consent back, and what keeps it."""

from dataclasses import replace

import pytest

from datasync.handover.states import EdgeState
from datasync.nodes.links import DEVICES
from datasync.nodes.node import Activate, Arrival, ConsentInput, Effects, Move, Record, Turn
from datasync.nodes.purging import INTERVAL_MS, PAGE_SEGMENTS, Purging
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from datasync.protocol import topics
from datasync.protocol.messages import Ack
from datasync.store import consents, segments, streams
from datasync.store.segments import State
from tests.unit.nodes.test_retention import made
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, POLICY, WATCH, Wire

HOUR_MS = 3_600_000
PRIVATE = {"public": 2, "edge-private": 2}
RULES = b"""
  scholar: {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [test.research]}
  trainer: {place: cloud, operator: acme, kind: train, clearance: public, purposes: [test.research]}
rules:
  - {id: R2, effect: allow, to: {place: edge}, data: likes, fields: [seen]}
  - {id: R3, effect: allow, to: {worker: scholar}, data: steps, fields: [number]}
  - {id: R4, effect: allow, to: {worker: trainer}, data: steps, fields: [label]}
"""
DOCUMENTS = b"""
  likes:
    kind: document
    subject: who
    key: name
    fields:
      who: {type: string, tier: user-private, up: {edge: [pid]}}
      name: {type: string, tier: edge-private}
      seen: {type: int64, tier: edge-private, merge: counter}
      tint: {type: string, tier: public}
workers:"""


def purging(run: bytes = b"opt_in", purge: bytes = b"  withdraw: {stop: immediately, purge: 24h}\n") -> bytes:
    """Return the wire's policy, where ``test.run`` needs consent and ``test.research`` needs no refusal."""
    source = POLICY.replace(b"revision: 1\n", b"revision: 2\n").replace(b"test.run: contract", b"test.run: " + run)
    return source.replace(b"\nrules:\n", RULES).replace(b"\nworkers:", DOCUMENTS, 1) + purge


@pytest.fixture
def net(net: Wire) -> Wire:
    """Nodes under a policy that purges a day after the withdrawal, and two rows that both purposes may read."""
    net.give(CLOUD, Activate(2, purging()))
    net.wait(500)
    say(net, "test.run", given=True)
    net.record(1, 2)
    return net


def say(net: Wire, purpose: str, *, given: bool) -> None:
    net.give(WATCH, ConsentInput(9, purpose, given))
    net.wait(500)


def take_back(net: Wire) -> None:
    say(net, "test.run", given=False)
    say(net, "test.research", given=False)


def later(net: Wire, hours: float) -> None:
    """Let hours pass at once, and then long enough for every node to look."""
    net.now_ms += int(hours * HOUR_MS)
    net.wait(INTERVAL_MS, step_ms=INTERVAL_MS)
    net.wait(2_000)


def test_what_was_taken_back_goes_a_day_later_from_edge_and_cloud_and_stays_on_the_device(net: Wire) -> None:
    take_back(net)
    later(net, 22)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == (PRIVATE, {"public": 2})
    later(net, 2)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == ({}, {})
    assert net.nodes[WATCH].rows() == {**PRIVATE, "user-private": 2}


@pytest.mark.parametrize("purpose", ["test.run", "test.research"])
def test_a_purpose_that_is_still_allowed_keeps_the_rows(net: Wire, purpose: str) -> None:
    say(net, purpose, given=False)
    later(net, 100)
    assert net.nodes[CBD].rows() == PRIVATE


def test_each_place_goes_by_the_purposes_of_its_own_workers(net: Wire) -> None:
    say(net, "test.research", given=False)
    later(net, 100)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == (PRIVATE, {})


def test_a_purpose_that_needs_no_consent_keeps_the_rows(net: Wire) -> None:
    net.give(CLOUD, Activate(3, purging(run=b"contract").replace(b"revision: 2\n", b"revision: 3\n")))
    take_back(net)
    later(net, 100)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == (PRIVATE, {})


def test_a_purpose_that_was_never_allowed_keeps_nothing_and_takes_nothing_back(net: Wire) -> None:
    source = purging().replace(b"test.research: opt_out", b"test.research: opt_in")
    net.give(CLOUD, Activate(3, source.replace(b"revision: 2\n", b"revision: 3\n")))
    later(net, 100)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == (PRIVATE, {"public": 2})
    say(net, "test.run", given=False)
    later(net, 100)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == ({}, {"public": 2})


def test_who_allows_again_within_the_day_loses_nothing(net: Wire) -> None:
    take_back(net)
    later(net, 20)
    say(net, "test.run", given=True)
    say(net, "test.research", given=True)
    later(net, 100)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == (PRIVATE, {"public": 2})


def test_the_newest_withdrawal_counts(net: Wire) -> None:
    say(net, "test.run", given=False)
    later(net, 40)
    say(net, "test.research", given=False)
    later(net, 10)
    assert net.nodes[CBD].rows() == PRIVATE


def test_rows_that_come_while_nobody_may_read_them_go_too_until_somebody_may(net: Wire) -> None:
    take_back(net)
    later(net, 30)
    net.record(3)
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}
    later(net, 1)
    assert net.nodes[CBD].rows() == {}
    say(net, "test.run", given=True)
    net.record(4)
    later(net, 100)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == ({"public": 1, "edge-private": 1}, {})


def test_a_policy_that_does_not_say_when_purges_nothing(net: Wire) -> None:
    net.give(CLOUD, Activate(3, purging(purge=b"").replace(b"revision: 2\n", b"revision: 3\n")))
    take_back(net)
    later(net, 1_000)
    assert net.nodes[CBD].rows() == PRIVATE


def test_what_the_cloud_lacks_stays_with_all_its_layers_until_the_cloud_has_it(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.cloud_in(CBD)
    net.record(3)
    take_back(net)
    later(net, 100)
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}
    net.lose = lambda _: False
    net.wait(120_000, step_ms=5_000)
    later(net, 1)
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == ({}, {})


def test_what_a_handover_holds_stays_until_it_is_over(net: Wire) -> None:
    take_back(net)
    net.lose = lambda each: topics.edge_in(CBD, DOCKS) == each.topic  # the fence
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(1_000)
    net.lose = lambda each: topics.edge_in(DOCKS, CBD) == each.topic  # what it gives
    net.wait(5_000)
    assert net.state(CBD) is EdgeState.FROZEN
    later(net, 100)
    assert net.nodes[CBD].rows() == PRIVATE
    net.lose = lambda _: False
    net.wait(60_000, step_ms=1_000)
    later(net, 1)
    assert net.nodes[DOCKS].rows() == net.nodes[CBD].rows() == {}


def test_what_was_purged_is_acknowledged_and_not_taken_a_second_time(net: Wire) -> None:
    upload = next(each for each in net.sent if each.topic == topics.device_segments(WATCH))
    take_back(net)
    later(net, 30)
    (ack,) = net.said(Ack, net.give(CBD, Arrival(DEVICES, upload.topic, upload.payload), deliver=False))
    assert [len(ranges) for ranges in ack.durable.values()] == [2, 2]
    assert net.nodes[CBD].rows() == {}


def test_documents_go_with_all_their_changes(net: Wire) -> None:
    collection = load(purging()).collection("likes")
    for seen in (1, 2):
        net.give(WATCH, Record(1, "likes", to_batch(collection, [{"who": "ann", "name": "walk", "seen": seen}])))
        net.wait(1_000)
    take_back(net)
    net.lose = lambda each: each.topic == topics.cloud_in(CBD)
    net.give(WATCH, Record(1, "likes", to_batch(collection, [{"who": "ann", "name": "walk", "seen": 3}])))
    net.wait(1_000)
    later(net, 30)
    assert net.nodes[CBD].rows() == {"public": 3, "edge-private": 3}, "one change is owed"
    net.lose = lambda _: False
    net.wait(120_000, step_ms=5_000)
    later(net, 1)
    assert net.nodes[CBD].rows() == {}
    assert net.nodes[CLOUD].rows() == {"public": 3}, "no worker of the cloud may read them"


# --- many segments, made by hand


def fill(net: Wire, state: State = State.LOCAL) -> None:
    """Give the edge more segments of each layer than a transaction looks at."""
    with net.nodes[CBD].database.write() as tx:
        layers = streams.of_device(tx, WATCH)
        numbers = range(10, 10 + PAGE_SEGMENTS)
        segments.append(tx, [made(net, each, number, 0, state) for number in numbers for each in layers])


def look(net: Wire, purge: Purging) -> Effects:
    with net.nodes[CBD].database.write() as tx:
        turn = Turn(tx, net.now)
        purge.duties(turn)
    return turn.effects


def test_a_transaction_purges_a_part_and_the_next_goes_on_at_once(net: Wire) -> None:
    take_back(net)
    fill(net)
    net.now_ms += 30 * HOUR_MS
    purge = Purging(net.nodes[CBD].node)
    first = look(net, purge)
    assert first.counts["purge rows", "steps"] == 2 * (PAGE_SEGMENTS - 1) + 4, "a page with its other layer"
    assert first.wake_ms == net.now.steady_ms
    rest = look(net, purge)
    assert net.nodes[CBD].rows() == {}
    assert rest.notes == [f"purge: deleted {2 * PAGE_SEGMENTS + 4} rows of steps, whose subjects took consent back"]
    assert rest.wake_ms == net.now.steady_ms + INTERVAL_MS


def test_what_is_owed_does_not_keep_a_look_from_going_on(net: Wire) -> None:
    take_back(net)
    fill(net, State.WAITING)
    with net.nodes[CBD].database.write() as tx:
        segments.append(tx, [made(net, each, 5_000, 0, State.LOCAL) for each in streams.of_device(tx, WATCH)])
    net.now_ms += 30 * HOUR_MS
    purge = Purging(net.nodes[CBD].node)
    looks = [look(net, purge) for _ in range(5)]
    assert [each.wake_ms == net.now.steady_ms for each in looks] == [True, True, False, False, False]
    assert net.nodes[CBD].rows() == {"public": PAGE_SEGMENTS, "edge-private": PAGE_SEGMENTS}


def test_who_allows_again_in_between_keeps_what_is_left(net: Wire) -> None:
    take_back(net)
    fill(net)
    net.now_ms += 30 * HOUR_MS
    purge = Purging(net.nodes[CBD].node)
    look(net, purge)
    left = net.nodes[CBD].rows()
    assert left != {}
    with net.nodes[CBD].database.write() as tx:
        known = [each.stream for each in streams.of_device(tx, WATCH)]
        for each in consents.of_streams(tx, known, "test.run"):
            consents.put(tx, replace(each, given=True, stamp=each.stamp.tick(net.now)))
    for _ in range(4):
        look(net, purge)
    assert net.nodes[CBD].rows() == left
