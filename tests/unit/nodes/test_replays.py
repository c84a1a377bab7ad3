"""What a broker says again: nearly everything is harmless by itself, and the rest is refused."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select

from datasync.domain.clock import HybridTime
from datasync.domain.errors import Undecipherable
from datasync.domain.ids import NodeName, node_name
from datasync.handover.states import DeviceState
from datasync.nodes.links import BACKBONE
from datasync.nodes.node import SEALED_MARK, Activate, Arrival, ConsentInput, Move, Outgoing, StartHandover
from datasync.nodes.replays import ADVICE_AGE_MS_MAX
from datasync.protocol import envelope, topics
from datasync.protocol.messages import Active, Advise, Hint, Prepare, Registered, Stored, decode
from datasync.security.identity import Role
from datasync.store import attachments, peers, tables
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, POLICY, WATCH, Wire, Wired

KINDS = frozenset((
    "beacon", "hint", "advise", "prepare", "prepared", "refused", "segments", "segments-ack", "ready", "attach",
    "fence", "delta", "superseded", "attached", "active", "release", "registered", "upload", "ack", "forward", "stored",
    "consents", "consents-ack", "rejected", "policy",
))  # fmt: skip


def kind(net: Wire, each: Outgoing) -> str:
    """Return what a message that was sent says, whoever it was for."""
    said = envelope.verify(each.payload, each.topic, net.nodes[CLOUD].kit.trust, net.now, bytes_max=1 << 24)
    if said.body[:1] != SEALED_MARK:
        return decode(said.body).t
    receivers = (envelope.Opener(net.identity(name)) for name in (CLOUD, CBD, DOCKS))
    for opener in receivers:
        with suppress(Undecipherable):
            return decode(opener.open(said.body, each.topic, said.peer)).t
    raise AssertionError(f"nobody can open what was said on {each.topic}")


def live(net: Wire) -> None:
    """Have everything happen that nodes say something about."""
    net.give(WATCH, ConsentInput(2, "test.research", given=False))
    net.record(1, 2, 3)
    net.give(WATCH, Move(3, DOCKS, planned=True))
    net.wait(2_000)
    net.record(4, 5)
    net.give(CLOUD, Activate(4, POLICY.replace(b"revision: 1", b"revision: 2")))
    net.give(CLOUD, StartHandover(5, WATCH, CBD))
    net.wait(2_000)
    net.give(WATCH, ConsentInput(6, "test.research", given=True))
    net.record(6)
    net.give(WATCH, Move(7, DOCKS, planned=False))
    net.wait(10_000)
    here = net.device.whereabouts.epoch
    for epoch in (here, here + 1):
        nowhere = Hint(epoch=epoch, candidates=[node_name("acme/nowhere")])
        net.give(DOCKS, net.signed(net.identity(WATCH), DOCKS, topics.device_up(WATCH), nowhere))
    net.wait(30_000)


def held(node: Wired) -> dict[str, list[Any]]:
    """All of the node's database but its clock, its log of what it refused, and when it last heard or touched what."""
    kept = [table for table in tables.metadata.sorted_tables if table.name not in ("registers", "audit", "counters")]
    with node.database.read() as tx:
        return {
            table.name: tx.execute(select(*(c for c in table.c if c.name not in ("updated_ms", "seen_ms")))).all()
            for table in kept
        }


def say_again(net: Wire, said: Iterable[Outgoing]) -> None:
    """Bring everything to everybody who listens where it was said."""
    for each in said:
        for name, node in net.nodes.items():
            link = str(net.device.whereabouts.edge) if name == WATCH else each.link
            if name == WATCH or link in node.node.subscriptions:
                net.give(name, Arrival(link, each.topic, each.payload), deliver=False)


def test_of_all_that_was_ever_said_nothing_has_an_effect_when_it_is_said_again(net: Wire) -> None:
    live(net)
    before, here = {name: held(node) for name, node in net.nodes.items()}, net.device.whereabouts
    assert here.state is DeviceState.ATTACHED
    first = tuple(net.sent)
    say_again(net, first)
    say_again(net, net.sent[len(first) :])
    assert {kind(net, each) for each in net.sent} >= KINDS
    for name, node in net.nodes.items():
        after = held(node)
        for table, rows in before[name].items():
            assert after[table] == rows, (name, table)
    assert net.device.whereabouts == here
    assert net.count("refused", "MESSAGE_REPLAYED") > 0
    net.record(7, 8)
    assert net.nodes[DOCKS].rows() == {"public": 8, "edge-private": 8}


def test_a_beacon_that_is_older_than_the_known_one_is_refused_and_the_same_one_is_not(net: Wire) -> None:
    net.wait(61_000)
    oldest, *_, latest = [each for each in net.sent if each.topic == topics.beacon(CLOUD)]
    known = nonce(net, CBD, CLOUD)
    refused = net.count("refused", "MESSAGE_REPLAYED")
    net.give(CBD, Arrival(BACKBONE, oldest.topic, oldest.payload))
    assert net.count("refused", "MESSAGE_REPLAYED") == refused + 1
    net.give(CBD, Arrival(BACKBONE, latest.topic, latest.payload))
    assert net.count("refused", "MESSAGE_REPLAYED") == refused + 1
    assert nonce(net, CBD, CLOUD) == known


def nonce(net: Wire, at: NodeName, of: NodeName) -> str | None:
    with net.nodes[at].database.read() as tx:
        known = peers.get(tx, of)
    return None if known is None else known.nonce


def test_a_nodes_beacons_count_up_though_its_clock_is_set_back(net: Wire) -> None:
    net.wall_shift_ms = -3_600_000
    refused = net.count("refused", "MESSAGE_REPLAYED")
    net.wait(61_000)
    assert net.count("refused", "MESSAGE_REPLAYED") == refused


def advised(net: Wire, wall_ms: int, counter: int = 0, target: NodeName = DOCKS) -> Arrival:
    served = net.account(CBD).served
    advise = Advise(
        device=WATCH,
        incarnation=served[0],
        epoch=served[1],
        target=target,
        stamp=HybridTime(wall_ms, counter).pack(),
    )
    return net.signed(net.identity(CLOUD), CBD, topics.edge_in(CBD, CLOUD), advise)


def test_an_advice_is_followed_once_and_never_after_a_later_one(net: Wire) -> None:
    now_ms = net.now.wall_ms
    nowhere = advised(net, now_ms, 2, node_name("acme/nowhere"))
    for arrival, code in [
        (advised(net, now_ms, 1), None),
        (advised(net, now_ms, 1), "MESSAGE_REPLAYED"),
        (nowhere, "NOT_FOUND"),
        (nowhere, "NOT_FOUND"),  # it had no effect, so it may be said again
        (advised(net, now_ms, 0), "MESSAGE_REPLAYED"),
    ]:
        effects = net.give(CBD, arrival, deliver=False)
        assert {what: n for (kind_, what), n in effects.counts.items() if kind_ == "refused"} == (
            {} if code is None else {code: 1}
        )
    net.restart(CBD)
    assert net.give(CBD, advised(net, now_ms, 1), deliver=False).counts["refused", "MESSAGE_REPLAYED"] == 1


@pytest.mark.parametrize("age_ms", [ADVICE_AGE_MS_MAX + 1, -ADVICE_AGE_MS_MAX - 1])
def test_an_advice_that_was_held_back_is_not_followed(net: Wire, age_ms: int) -> None:
    late = advised(net, net.now.wall_ms - age_ms)
    assert net.give(CBD, late, deliver=False).counts["refused", "MESSAGE_REPLAYED"] == 1
    assert net.said(Prepare) == []


def test_a_registration_that_was_full_is_not_degraded_by_an_older_word(net: Wire) -> None:
    token = net.account(CBD).token
    said = net.signed(net.identity(CBD), CLOUD, topics.cloud_in(CBD), Active(token=token, full=False))
    net.give(CLOUD, said)
    with net.nodes[CLOUD].database.read() as tx:
        registered = attachments.get(tx, WATCH)
    assert registered is not None
    assert registered.mode == "full"


def test_an_edge_takes_orders_from_its_own_cloud_alone(net: Wire) -> None:
    """An operator that is trusted enrols what clouds it likes."""
    foreign = net.other.enrol(node_name("globex/cloud"), Role.CLOUD, now=net.now)
    topic = topics.edge_in(CBD, foreign.name)
    served = net.account(CBD).served
    orders = [
        Advise(device=WATCH, incarnation=served[0], epoch=served[1], target=DOCKS, stamp=net.now.wall_ms << 16),
        Registered(device=WATCH, incarnation=served[0], epoch=served[1]),
        Stored(durable={}, consents=[]),
    ]
    for order in orders:
        assert net.say(foreign, CBD, topic, order).counts["refused", "SIGNER_FOREIGN"] == 1
