"""Revoked certificates: what ends at which node, how soon, and what goes on."""

from dataclasses import replace
from typing import Any

import pytest

from datasync.domain.ids import NodeName, node_name
from datasync.handover.states import DeviceState, EdgeState
from datasync.nodes.cloud import CloudNode
from datasync.nodes.edge import EdgeNode
from datasync.nodes.links import BACKBONE
from datasync.nodes.node import Arrival, Move, Revoke
from datasync.protocol import revocations, topics
from datasync.protocol.messages import Attach
from datasync.security.identity import Identity, Role
from datasync.security.revocation import RevocationList, revoked
from datasync.security.trust import Authority, Trust
from datasync.store import audit
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, WATCH, Wire

EMPTY = RevocationList("acme", 0, 0, ())


def listed(net: Wire, *names: NodeName, after: RevocationList = EMPTY) -> RevocationList:
    return after.extended((revoked(net.identity(name).certificate, net.now) for name in names), net.now)


def revoke(net: Wire, *names: NodeName, after: RevocationList = EMPTY) -> RevocationList:
    """Let the cloud's administrator give it a list that revokes these nodes."""
    made = listed(net, *names, after=after)
    net.give(CLOUD, Revoke(9, revocations.sign(net.authority, made)))
    return made


def test_what_a_revoked_device_sends_is_taken_no_longer_and_what_it_sent_stays_in_view(net: Wire) -> None:
    net.record(1, 2)
    seen, known = net.nodes[CBD].shown(), net.account(CBD).known
    revoke(net, WATCH)
    assert net.state(CBD) is EdgeState.FROZEN
    assert net.account(CBD).known == known
    net.record(3)
    assert net.count("refused", "SIGNER_REVOKED") > 0
    assert net.nodes[CBD].shown() == seen == {"public": 2, "edge-private": 2}
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(5_000)
    assert net.state(DOCKS) is EdgeState.UNKNOWN
    assert net.nodes[CBD].shown() == seen
    assert net.nodes[WATCH].rows() == {"public": 3, "edge-private": 3, "user-private": 3}


def test_a_revocation_changes_nothing_for_anybody_else(net: Wire) -> None:
    other = net.authority.enrol(node_name("watch-2"), Role.DEVICE, now=net.now)
    made = EMPTY.extended([revoked(other.certificate, net.now)], net.now)
    before, here = net.account(CBD), net.device.whereabouts
    net.give(CLOUD, Revoke(9, revocations.sign(net.authority, made)))
    net.record(1, 2)
    assert net.account(CBD) == before
    assert net.device.whereabouts == here
    assert net.nodes[CLOUD].rows() == {"public": 2}


def test_a_list_reaches_edges_and_devices_and_is_known_after_a_restart(net: Wire) -> None:
    made = revoke(net, DOCKS)
    for name in (CLOUD, CBD, WATCH):
        kit = net.nodes[name].kit
        assert kit.trust.revocations == (made,)
        forgetful = replace(kit, trust=Trust(kit.trust.certificates))
        build = type(net.nodes[name].node)
        again = build(forgetful, *settings(net, name))
        with net.nodes[name].database.write() as tx:
            again.start(tx, net.now)
        assert forgetful.trust.revocations == (made,)


def settings(net: Wire, name: NodeName) -> tuple[Any, ...]:
    node = net.nodes[name].node
    return () if isinstance(node, CloudNode) else (node._settings,)


def test_a_list_that_was_put_beside_the_authorities_holds_from_the_start(net: Wire) -> None:
    wired, made = net.nodes[CBD], listed(net, WATCH)
    kit = replace(wired.kit, revocations=(revocations.sign(net.authority, made),))
    wired.build = lambda: EdgeNode(kit, *settings(net, CBD))
    net.restart(CBD)
    assert net.state(CBD) is EdgeState.FROZEN
    assert net.nodes[WATCH].kit.trust.revocations == (made,)


def test_of_a_revoked_edge_nothing_is_taken_and_to_it_nothing_is_given(net: Wire) -> None:
    net.record(1, 2)
    revoke(net, DOCKS)
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(10_000)
    assert net.nodes[DOCKS].rows() == {}
    assert net.device.whereabouts.state is DeviceState.ATTACHING
    assert net.state(CBD) is EdgeState.ACTIVE
    net.give(WATCH, Move(6, CBD, planned=False))
    net.record(3)
    net.wait(5_000)  # in which the edge waits for what the other one might have
    assert net.nodes[CBD].shown() == {"public": 3, "edge-private": 3}


def test_what_a_source_was_giving_to_an_edge_that_is_revoked_meanwhile_stays(net: Wire) -> None:
    net.record(1, 2, 3)
    net.lose = lambda each: topics.edge_in(DOCKS, CBD) == each.topic
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(500)
    assert net.state(CBD) is EdgeState.FROZEN
    revoke(net, DOCKS)
    net.lose = lambda _: False
    net.wait(60_000)
    assert net.nodes[DOCKS].rows().get("edge-private") is None
    assert net.nodes[CBD].rows()["edge-private"] == 3


def test_an_edge_gives_nothing_to_a_cloud_that_is_revoked(net: Wire) -> None:
    made = listed(net, CLOUD)
    net.give(CBD, Revoke(9, revocations.sign(net.authority, made)))
    net.record(1, 2)
    assert net.nodes[CLOUD].rows() == {}
    net.restart(CBD)
    net.record(3)
    assert net.nodes[CLOUD].rows() == {}


def test_a_device_that_is_enrolled_again_under_its_name_is_served_again(net: Wire) -> None:
    revoke(net, WATCH)
    assert net.state(CBD) is EdgeState.FROZEN
    wired = net.nodes[WATCH]
    former = wired.kit.identity
    renewed = Identity(
        former.name,
        former.role,
        net.authority.renew(former, now=net.now),
        former.signing_key,
        former.sealing_key,
        former.secret,
    )
    net.nodes[WATCH].kit = kit = replace(wired.kit, identity=renewed)
    settings = net.device._settings
    wired.build = lambda: type(net.device)(kit, settings)
    net.restart(WATCH)
    net.wait(10_000)
    net.record(1)
    assert net.device.whereabouts.state is DeviceState.ATTACHED
    assert net.state(CBD) is EdgeState.ACTIVE
    assert net.nodes[CBD].shown() == {"public": 1, "edge-private": 1}


def test_a_list_that_is_older_than_the_known_one_is_refused_wherever_it_comes_from(net: Wire) -> None:
    first = revoke(net, DOCKS)
    second = revoke(net, WATCH, after=first)
    old = revocations.sign(net.authority, first)
    for name in (CLOUD, CBD):
        assert net.give(name, Revoke(9, old)).counts["refused", "REVOCATION_STALE"] == 1
    arrival = Arrival(BACKBONE, topics.revoked("acme"), old)
    assert net.give(CBD, arrival).counts["refused", "REVOCATION_STALE"] == 1
    same = Arrival(BACKBONE, topics.revoked("acme"), revocations.sign(net.authority, second))
    effects = net.give(CBD, same)
    assert (effects.send, effects.counts) == ([], {})
    other = replace(second, revoked=())
    assert net.give(CBD, Revoke(9, revocations.sign(net.authority, other))).counts["refused", "REVOCATION_STALE"] == 1


def test_nobody_but_an_authority_revokes_and_only_its_own(net: Wire) -> None:
    stranger = Authority.create("acme", net.now)
    made = listed(net, WATCH)
    signed_by_stranger = revocations.sign(stranger, made)
    assert net.give(CBD, Revoke(9, signed_by_stranger)).counts["refused", "SIGNER_UNTRUSTED"] == 1
    of_another = revocations.sign(net.other, replace(made, operator="globex"))
    net.give(CBD, Revoke(9, of_another))
    net.record(1)
    assert net.state(CBD) is EdgeState.ACTIVE
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}
    says_more = revocations.sign(net.other, made)
    assert net.give(CBD, Revoke(9, says_more)).counts["refused", "MESSAGE_INVALID"] == 1
    elsewhere = Arrival(BACKBONE, topics.revoked("globex"), revocations.sign(net.authority, made))
    assert net.give(CBD, elsewhere).counts["refused", "MESSAGE_INVALID"] == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_list_is_refused(net: Wire, damage: str) -> None:
    signed = revocations.sign(net.authority, listed(net, WATCH))
    broken = {"flip": signed[:-1] + bytes([signed[-1] ^ 1]), "cut": signed[:-1], "empty": b""}[damage]
    effects = net.give(CBD, Arrival(BACKBONE, topics.revoked("acme"), broken))
    assert sum(effects.counts.values()) == 1
    assert net.state(CBD) is EdgeState.ACTIVE


def test_a_revocation_is_in_the_audit_log(net: Wire) -> None:
    revoke(net, WATCH)
    for name, actor in ((CLOUD, "administrator"), (CBD, "acme")):
        with net.nodes[name].database.read() as tx:
            entry = audit.page(tx, event="node-revoked")[-1]
        assert (entry.actor, entry.subject, entry.detail["new"]) == (actor, "acme", [WATCH])


def test_attaching_says_that_the_certificate_was_revoked(net: Wire) -> None:
    attach = net.carried(Attach, CBD)[-1]
    revoke(net, WATCH)
    assert net.give(CBD, attach).counts["refused", "SIGNER_REVOKED"] == 1
