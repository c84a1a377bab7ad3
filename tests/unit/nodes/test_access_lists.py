"""The brokers' access lists let every node say and hear all that it has to; what is left out is dropped silently."""

import re
from collections.abc import Iterator

from datasync.domain.ids import NodeName, dotted
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import ConsentInput, Move, Outgoing
from datasync.protocol import envelope, topics
from datasync.security.identity import Role
from datasync.transport.memory import matches
from datasync.transport.mosquitto import access_list
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, WATCH, Wire

Grant = tuple[str, str]


def grants(broker: NodeName, client: NodeName) -> list[Grant]:
    """Return what a client may do at the broker of an edge or the cloud, as Mosquitto understands its list."""
    text = access_list(broker, Role.CLOUD if broker == CLOUD else Role.EDGE)
    own = re.findall(r"^topic (\w+) (\S+)$", text, re.MULTILINE) if client == broker else []
    patterns = re.findall(r"^pattern (\w+) (\S+)$", text, re.MULTILINE)
    return [*own, *((how, topic.replace("%u", dotted(client))) for how, topic in patterns)]


def may_hear(broker: NodeName, client: NodeName, topic_filter: str) -> bool:
    return any(how in ("read", "readwrite") and topic == topic_filter for how, topic in grants(broker, client))


def may_say(broker: NodeName, client: NodeName, topic: str) -> bool:
    return any(how in ("write", "readwrite") and matches(each, topic) for how, each in grants(broker, client))


def said(net: Wire, each: Outgoing) -> Iterator[tuple[NodeName, NodeName, str]]:
    """Yield broker, sender and topic of what was sent; what others signed is passed on by the broker's owner."""
    broker = CLOUD if each.link == BACKBONE else NodeName(each.link)
    if each.topic == topics.POLICY:
        yield from ((owner, owner, each.topic) for owner in ([CBD, DOCKS] if each.link == DEVICES else [broker]))
        return
    sender = envelope.verify(each.payload, each.topic, net.nodes[CLOUD].kit.trust, net.now, bytes_max=1 << 24).peer.name
    yield sender if each.link == DEVICES else broker, sender, each.topic


def test_every_node_hears_what_it_subscribes_to(net: Wire) -> None:
    for name, wired in net.nodes.items():
        for link, filters in wired.node.subscriptions.items():
            for broker in {BACKBONE: [CLOUD], DEVICES: [name], "": [CBD, DOCKS]}[link]:
                assert [each for each in filters if not may_hear(broker, name, each)] == []


def test_every_node_may_say_what_it_says(net: Wire) -> None:
    net.record(1, 2, 3)
    net.give(WATCH, ConsentInput(7, "test.research", False))
    net.give(WATCH, Move(8, DOCKS, True))
    net.wait(3_000)
    net.give(WATCH, Move(9, CBD, False))
    net.wait(10_000)
    found = {triple for each in net.sent for triple in said(net, each)}
    assert {topics.parse(topic).kind for _, _, topic in found} == {
        *("policy", "beacon", "up", "dn", "seg", "edge", "cloud"),
    }
    assert {triple for triple in found if not may_say(*triple)} == set()


def test_who_owns_a_broker_passes_on_what_was_revoked() -> None:
    for owner in (CLOUD, CBD):
        assert may_say(owner, owner, topics.revoked("globex"))
        assert not may_say(owner, WATCH, topics.revoked("globex"))
