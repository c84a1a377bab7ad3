import pytest

from datasync.transport.link import Packet, is_filter, is_topic


@pytest.mark.parametrize("topic", ["a", "a/b", "/", "a//b", "ds/1/d/watch-7/up", "x" * 65_535])
def test_a_packet_may_go_to_any_topic_without_wildcards(topic: str) -> None:
    assert Packet(topic, b"").topic == topic


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a+b", "a\0b", "x" * 65_536, "ü" * 40_000])
def test_a_packet_for_what_is_no_topic_is_refused(topic: str) -> None:
    assert not is_topic(topic)
    with pytest.raises(ValueError, match="no topic"):
        Packet(topic, b"")


@pytest.mark.parametrize("text", ["a", "+", "#", "a/+/b", "a/#", "+/+", "/", "+/#", "$share/group/a"])
def test_a_wildcard_that_fills_its_level_makes_a_filter(text: str) -> None:
    assert is_filter(text)


@pytest.mark.parametrize("text", ["", "a/b+", "a+/b", "#/a", "a#", "a/#/b", "a\0", "x" * 65_536])
def test_a_wildcard_elsewhere_makes_none(text: str) -> None:
    assert not is_filter(text)
