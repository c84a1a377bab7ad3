from itertools import product

import pytest

from datasync.domain.errors import LinkError
from datasync.transport.link import Packet
from datasync.transport.memory import Delivery, MemoryBroker, matches

LEVELS = ("a", "b", "")
TOPICS = ["/".join(levels) for count in (1, 2, 3) for levels in product(LEVELS, repeat=count) if any(levels)]
FILTERS = ["/".join(levels) for count in (1, 2, 3) for levels in product((*LEVELS, "+"), repeat=count) if any(levels)]


def slow_matches(wanted: list[str], levels: list[str]) -> bool:
    """The words of MQTT 3.1.1, section 4.7.1, level by level."""
    if wanted == ["#"]:
        return True
    if not wanted or not levels:
        return not wanted and not levels
    return wanted[0] in ("+", levels[0]) and slow_matches(wanted[1:], levels[1:])


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    for client in ("edge", "watch"):
        broker.connect(client)
    return broker


def test_topics_match_filters_as_the_specification_says() -> None:
    for text, topic in product([*FILTERS, *(f"{text}/#" for text in FILTERS), "#"], TOPICS):
        assert matches(text, topic) == slow_matches(text.split("/"), topic.split("/")), (text, topic)


@pytest.mark.parametrize("text", ["#", "+/a", "+/#"])
def test_a_wildcard_at_the_front_hides_the_brokers_own_topics(text: str) -> None:
    assert not matches(text, "$SYS/a")
    assert matches("$SYS/#", "$SYS/a")


def test_a_packet_goes_once_to_every_client_that_wants_it(broker: MemoryBroker) -> None:
    broker.subscribe("edge", ["d/+/up", "d/#"])
    broker.subscribe("watch", ["d/watch/dn"])
    packet = Packet("d/watch/up", b"1")
    assert broker.publish("watch", packet) == [Delivery("edge", packet)]
    assert broker.publish("edge", Packet("d/watch/dn", b"2")) == [
        Delivery("edge", Packet("d/watch/dn", b"2")),
        Delivery("watch", Packet("d/watch/dn", b"2")),
    ]


def test_the_order_of_deliveries_is_the_order_of_connecting(broker: MemoryBroker) -> None:
    broker.connect("third")
    for client in ("third", "watch", "edge"):
        broker.subscribe(client, ["a"])
    assert [delivery.client for delivery in broker.publish("edge", Packet("a", b""))] == ["edge", "watch", "third"]


def test_a_retained_packet_is_kept_for_who_comes_later(broker: MemoryBroker) -> None:
    beacon = Packet("beacon", b"old", retain=True)
    broker.subscribe("edge", ["beacon"])
    assert broker.publish("edge", beacon) == [Delivery("edge", Packet("beacon", b"old"))]
    broker.publish("edge", Packet("beacon", b"new", retain=True))
    broker.publish("edge", Packet("other", b"x", retain=True))
    broker.publish("edge", Packet("beacon", b"passing"))
    assert broker.subscribe("watch", ["be/+", "beacon"]) == [Delivery("watch", Packet("beacon", b"new", retain=True))]


def test_an_empty_retained_packet_clears_the_topic_and_is_delivered(broker: MemoryBroker) -> None:
    broker.subscribe("edge", ["#"])
    broker.publish("edge", Packet("beacon", b"old", retain=True))
    assert broker.publish("edge", Packet("beacon", b"", retain=True)) == [Delivery("edge", Packet("beacon", b""))]
    assert broker.subscribe("watch", ["#"]) == []


def test_subscribing_again_sends_what_is_retained_again_but_nothing_twice(broker: MemoryBroker) -> None:
    broker.publish("edge", Packet("beacon", b"x", retain=True))
    assert len(broker.subscribe("watch", ["beacon"])) == len(broker.subscribe("watch", ["beacon"])) == 1
    assert len(broker.publish("edge", Packet("beacon", b"y"))) == 1


def test_a_session_ends_with_its_connection(broker: MemoryBroker) -> None:
    broker.subscribe("watch", ["a"])
    broker.disconnect("watch")
    broker.disconnect("watch")
    assert broker.clients == ("edge",)
    broker.connect("watch")
    assert broker.publish("edge", Packet("a", b"")) == []


def test_connecting_again_takes_the_session_over_without_its_subscriptions(broker: MemoryBroker) -> None:
    broker.subscribe("edge", ["a"])
    broker.connect("edge")
    assert broker.clients == ("watch", "edge")
    assert broker.publish("watch", Packet("a", b"")) == []


def test_who_is_not_connected_may_neither_publish_nor_subscribe(broker: MemoryBroker) -> None:
    with pytest.raises(LinkError, match="'nobody' is not connected"):
        broker.publish("nobody", Packet("a", b""))
    with pytest.raises(LinkError, match="'nobody' is not connected"):
        broker.subscribe("nobody", ["a"])


@pytest.mark.parametrize("text", ["a/#/b", "$share/group/a", ""])
def test_what_is_no_filter_here_is_refused_and_changes_nothing(broker: MemoryBroker, text: str) -> None:
    with pytest.raises(ValueError, match="no topic filter"):
        broker.subscribe("watch", ["b", text])
    assert broker.publish("edge", Packet("b", b"")) == []
