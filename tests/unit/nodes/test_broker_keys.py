"""Brokers' and clients' certificates can name a node; what is signed with one is taken for nothing that it says."""

from collections.abc import Iterator

import pytest

from datasync.domain.errors import SignerForeign, Undecipherable
from datasync.domain.ids import NodeName
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import Arrival, Move
from datasync.protocol import envelope, topics
from datasync.security.identity import Identity, Role
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, WATCH, Wire


def signed_again(net: Wire, broker: Identity) -> Iterator[tuple[NodeName, Arrival]]:
    """Yield all that the broker's node said, signed by the broker, and whom it reaches."""
    trust = net.nodes[CLOUD].kit.trust
    for each in net.sent:
        address = topics.parse(each.topic)
        if address.kind == "policy":
            continue
        opened = envelope.verify(each.payload, each.topic, trust, net.now, bytes_max=1 << 24)
        if opened.peer.name != broker.name:
            continue
        to = WATCH if each.link == DEVICES else DOCKS if address.kind == "edge" else CLOUD
        link = CBD if each.link == DEVICES else BACKBONE
        yield to, Arrival(link, each.topic, envelope.sign(broker, each.topic, opened.body))


@pytest.mark.parametrize("role", [Role.BROKER, Role.WORKER, Role.ADMIN])
def test_nothing_that_a_broker_or_a_client_signs_in_its_nodes_name_has_an_effect(net: Wire, role: Role) -> None:
    net.record(1, 2, 3)
    net.give(WATCH, Move(7, DOCKS, True))
    net.wait(3_000)
    broker = net.authority.enrol(CBD, role, now=net.now)
    forged = list(signed_again(net, broker))
    kinds = {topics.parse(arrival.topic).kind for _, arrival in forged}
    assert kinds == {"beacon", "dn", "edge", "cloud"}
    before = {name: wired.held() for name, wired in net.nodes.items()}
    for to, arrival in forged:
        effects = net.give(to, arrival, deliver=False)
        assert {code for kind, code in effects.counts if kind == "refused"} & {SignerForeign.code, Undecipherable.code}
    assert {name: wired.held() for name, wired in net.nodes.items()} == before
