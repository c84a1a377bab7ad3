"""Nodes by hand: what they do with what they are told, and what they refuse."""

import json

import pytest

from datasync.domain.clock import Instant
from datasync.domain.ids import node_name
from datasync.handover import accounts, whereabouts
from datasync.handover.machine import Account
from datasync.handover.states import DeviceState, EdgeState
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import Activate, Arrival, Move, StartHandover
from datasync.protocol import envelope, topics
from datasync.protocol.messages import Attach, PolicyBundle
from datasync.security.identity import Role
from datasync.security.trust import Authority
from datasync.store import segments, streams
from datasync.store.segments import State
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, POLICY, START_MS, WATCH, Wire


def test_a_new_device_attaches_at_home_and_gets_the_policy_from_its_edge(net: Wire) -> None:
    assert net.device.whereabouts.state is DeviceState.ATTACHED
    assert net.device.whereabouts.edge == CBD
    assert net.state(CBD) is EdgeState.ACTIVE
    assert net.device.policy is not None


def test_rows_end_at_the_edge_and_in_the_cloud_and_each_place_has_its_tiers_alone(net: Wire) -> None:
    net.record(1, 2, 3)
    assert net.nodes[WATCH].rows() == {"public": 3, "edge-private": 3, "user-private": 3}
    assert net.nodes[CBD].rows() == {"public": 3, "edge-private": 3}
    assert net.nodes[CLOUD].rows() == {"public": 3}
    with net.nodes[WATCH].database.read() as tx:
        assert segments.count(tx, [State.WAITING, State.DURABLE]) == 0


def test_what_is_lost_on_the_way_is_sent_again_and_what_comes_twice_is_stored_once(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.device_down(WATCH)  # the acknowledgements
    net.record(1, 2)
    net.wait(5_000)
    assert net.count("stored", "duplicates") > 0
    assert net.nodes[CBD].rows() == {"public": 2, "edge-private": 2}
    net.lose = lambda _: False
    net.wait(20_000)
    with net.nodes[WATCH].database.read() as tx:
        assert segments.count(tx, [State.WAITING, State.DURABLE]) == 0


def test_the_epoch_is_durable_before_the_attach_that_carries_it_leaves(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.device_up(WATCH)
    net.give(WATCH, Move(5, DOCKS, planned=False))
    with net.nodes[WATCH].database.read() as tx:
        stored = whereabouts.load(tx, net.nodes[WATCH].kit.vault, WATCH)
    assert (stored.epoch, stored.edge) == (2, DOCKS)
    net.restart(WATCH)
    net.lose = lambda _: False
    net.wait(3_000)
    assert (net.device.whereabouts.epoch, net.device.whereabouts.edge) == (2, DOCKS)


def test_a_planned_move_takes_everything_along_and_leaves_nothing(net: Wire) -> None:
    net.record(1, 2, 3)
    net.give(WATCH, Move(5, DOCKS, planned=True))
    net.wait(2_000)
    assert net.device.whereabouts.edge == DOCKS
    assert net.count("received", "segments") > 0
    assert net.nodes[DOCKS].rows() == {"public": 3, "edge-private": 3}
    assert net.state(CBD) is EdgeState.HELD
    net.wait(6_000)
    assert net.state(CBD) is EdgeState.ERASED
    assert net.nodes[CBD].rows() == {}
    with net.nodes[CBD].database.read() as tx:
        assert streams.of_device(tx, WATCH) == []


def test_what_a_source_holds_is_in_no_view(net: Wire) -> None:
    net.record(1, 2, 3)
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(1_000)
    assert net.state(CBD) is EdgeState.HELD
    with net.nodes[CBD].database.read() as tx:
        shown = [each for each in segments.page(tx, after_id=0, limit=100) if each.position is not None]
    assert shown == []


def test_ciphertext_that_came_in_advance_cannot_be_read(net: Wire) -> None:
    net.record(1, 2, 3)
    net.lose = lambda each: each.topic == topics.device_down(WATCH)  # ready never arrives, so the device stays
    net.give(WATCH, Move(5, DOCKS, planned=True))
    net.wait(2_000)
    assert net.state(DOCKS) is EdgeState.PREPARED
    with net.nodes[DOCKS].database.read() as tx:
        held = segments.page(tx, after_id=0, limit=100)
    assert len(held) == 2
    vault = net.nodes[DOCKS].kit.vault
    assert not any(vault.has(each.stream, each.key_id) for each in held)
    assert all(each.position is None for each in held)


def test_a_planned_move_goes_without_help_when_there_is_none(net: Wire) -> None:
    net.lose = lambda each: each.link == BACKBONE and "/e/acme.docks/in/acme.cbd" in each.topic
    net.give(WATCH, Move(5, DOCKS, planned=True))
    net.wait(15_000)
    net.lose = lambda _: False
    net.wait(2_000)
    assert net.device.whereabouts.edge == DOCKS


def test_a_source_that_stays_silent_does_not_keep_the_device_waiting_for_ever(net: Wire) -> None:
    net.record(1, 2)
    net.lose = lambda each: each.link == BACKBONE and "acme.cbd" in each.topic
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(6_000)
    assert net.device.whereabouts.mode == "degraded"
    net.lose = lambda _: False
    net.wait(20_000)
    assert net.device.whereabouts.mode == "full"
    assert net.nodes[DOCKS].rows() == {"public": 2, "edge-private": 2}


def test_an_administrator_can_move_a_device(net: Wire) -> None:
    net.give(CLOUD, StartHandover(9, WATCH, DOCKS))
    net.wait(2_000)
    assert net.device.whereabouts.edge == DOCKS
    assert net.answers[9] is None


def test_uploads_under_an_older_epoch_are_refused_and_the_sender_is_told(net: Wire) -> None:
    net.record(1)
    old = [each for each in net.sent if each.topic == topics.device_segments(WATCH)][-1]
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(1_000)
    effects = net.give(CBD, Arrival(DEVICES, old.topic, old.payload), deliver=False)
    assert effects.counts["refused", "EPOCH_STALE"] == 1
    assert [each.topic for each in effects.send] == [topics.device_down(WATCH)]


def test_a_recorded_attach_is_refused_by_an_edge_without_history(net: Wire) -> None:
    recorded = net.carried(Attach, CBD)[-1]
    net.wait(200_000, step_ms=20_000)  # two beacons later
    stranger = net.nodes[DOCKS]
    effects = net.give(DOCKS, recorded, deliver=False)
    assert effects.counts["refused", "HANDOVER_INVALID"] == 1  # it names another edge
    with stranger.database.read() as tx:
        assert accounts.load(tx, WATCH).state is EdgeState.UNKNOWN
    with net.nodes[CBD].database.write() as tx:
        accounts.save(tx, Account(WATCH), CBD, 0)  # an edge that lost its disk
    effects = net.give(CBD, recorded, deliver=False)
    assert effects.counts["refused", "NONCE_STALE"] == 1


def test_a_stranger_and_a_device_on_another_ones_topic_are_refused(net: Wire) -> None:
    now = Instant(START_MS, 0)
    foreign = Authority.create("acme", now).enrol(WATCH, Role.DEVICE, now=now)
    topic = topics.device_up(WATCH)
    effects = net.give(CBD, Arrival(DEVICES, topic, envelope.sign(foreign, topic, b"\xa0")), deliver=False)
    assert effects.counts["refused", "SIGNER_UNTRUSTED"] == 1
    other = topics.device_up(node_name("watch-2"))
    signed = envelope.sign(net.nodes[WATCH].kit.identity, other, b"\xa0")
    effects = net.give(CBD, Arrival(DEVICES, other, signed), deliver=False)
    assert effects.counts["refused", "SIGNER_FOREIGN"] == 1
    assert effects.notes
    again = net.give(CBD, Arrival(DEVICES, other, signed), deliver=False)
    assert again.counts["refused", "SIGNER_FOREIGN"] == 1
    assert not again.notes  # noted once for each sender and interval


@pytest.mark.parametrize("payload", [b"", b"\xff" * 40, b"\xd2\x84", bytes(3 << 20), b'{"a": 1}'])
def test_what_is_no_message_is_refused_and_changes_nothing(net: Wire, payload: bytes) -> None:
    before = net.nodes[CBD].rows()
    for topic in (topics.device_up(WATCH), topics.device_segments(WATCH), topics.edge_in(CBD, DOCKS), "ds/1/nonsense"):
        effects = net.give(CBD, Arrival(DEVICES, topic, payload), deliver=False)
        assert sum(number for (kind, _), number in effects.counts.items() if kind == "refused") == 1
        assert effects.send == []
    assert net.nodes[CBD].rows() == before


def test_only_the_cloud_gives_out_policies(net: Wire) -> None:
    newer = POLICY.replace(b"revision: 1", b"revision: 2")
    bundle = PolicyBundle(revision=2, digest="d" * 64, source=newer)
    signed = envelope.sign(net.nodes[DOCKS].kit.identity, topics.POLICY, bundle.encode())
    effects = net.give(CBD, Arrival(BACKBONE, topics.POLICY, signed), deliver=False)
    assert effects.counts["refused", "SIGNER_FOREIGN"] == 1
    assert net.nodes[CBD].node.policy is not None
    assert net.nodes[CBD].node.policy.revision == 1


def test_a_new_policy_reaches_everybody_and_an_older_one_nobody(net: Wire) -> None:
    net.give(CLOUD, Activate(3, POLICY.replace(b"revision: 1", b"revision: 4")))
    assert {wired.node.policy.revision for wired in net.nodes.values() if wired.node.policy} == {4}
    net.give(CLOUD, Activate(4, POLICY.replace(b"revision: 1", b"revision: 3")))
    assert net.answers[4].code == "POLICY_REVISION_STALE"
    net.give(CLOUD, Activate(5, b"schema: nonsense"))
    assert net.answers[5].code == "POLICY_INVALID"
    assert {wired.node.policy.revision for wired in net.nodes.values() if wired.node.policy} == {4}


def test_a_plain_device_is_captured_for_and_what_is_the_users_alone_is_dropped(net: Wire) -> None:
    topic = "ds/1/d/plain-1/json/steps"
    row = {"who": "bob", "number": 7, "label": "seven", "secret": "s"}
    effects = net.give(CBD, Arrival(DEVICES, topic, json.dumps([row, row]).encode()))
    assert effects.counts["captured", "steps"] == 2
    assert net.nodes[CBD].rows() == {"public": 2, "edge-private": 2}
    net.wait(1_000)
    assert net.nodes[CLOUD].rows() == {"public": 2}


@pytest.mark.parametrize(
    ("topic", "payload", "code"),
    [
        ("ds/1/d/plain-1/json/steps", b"{", "ROWS_INVALID"),
        ("ds/1/d/plain-1/json/steps", b"[1]", "ROWS_INVALID"),
        ("ds/1/d/plain-1/json/steps", b"[]", "ROWS_INVALID"),
        ("ds/1/d/plain-1/json/steps", b'{"number": "x"}', "ROWS_INVALID"),
        ("ds/1/d/plain-1/json/steps", b'{"unknown": 1}', "ROWS_INVALID"),
        ("ds/1/d/plain-1/json/steps", b" " * ((1 << 20) + 1), "MESSAGE_TOO_LARGE"),
        ("ds/1/d/plain-1/json/nowhere", b'{"number": 1}', "COLLECTION_UNKNOWN"),
        ("ds/1/d/watch-1/json/steps", b'{"number": 1}', "NOT_ATTACHED"),
        ("ds/1/d/Plain 1/json/steps", b'{"number": 1}', "MESSAGE_INVALID"),
    ],
)
def test_json_that_does_not_fit_is_refused(net: Wire, topic: str, payload: bytes, code: str) -> None:
    effects = net.give(CBD, Arrival(DEVICES, topic, payload), deliver=False)
    assert effects.counts["refused", code] == 1
    assert net.nodes[CBD].rows() == {}
