"""Signatures over many segments: when a device makes them, and what waits for them at its edge."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from datasync.domain.ids import NodeName
from datasync.nodes.node import Move
from datasync.nodes.signing import SIGN_ROWS
from datasync.protocol import envelope, topics
from datasync.protocol.envelope import Opener
from datasync.protocol.messages import Ack, Upload, decode
from datasync.store import checkpoints
from datasync.store.checkpoints import Standing
from datasync.store.segments import State
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, WATCH, Wire, recorded, wire

FLUSH_MS = 200
"""How long the device gathers rows before it captures them."""

SIGN_MS = 5_000


@pytest.fixture
def slow(folder: Path, template: Path) -> Iterator[Wire]:
    """Everybody, with a device that signs every five seconds."""
    with wire(folder, template, sign_ms=SIGN_MS) as made:
        yield made


def capture(net: Wire, *numbers: int) -> None:
    """Record rows and have them captured, as one segment of each tier, and sent."""
    net.give(WATCH, recorded(*numbers))
    net.now_ms += FLUSH_MS
    net.give(WATCH)


def unsigned(net: Wire, at: NodeName) -> int:
    return sum(each.checkpoint is None for each in net.nodes[at].segments())


def owed(net: Wire) -> int:
    with net.nodes[WATCH].database.read() as tx:
        return len(checkpoints.in_standing(tx, Standing.OWED, limit=999))


def states(net: Wire, at: NodeName) -> set[State]:
    return {each.state for each in net.nodes[at].segments()}


def test_a_reading_now_and_then_is_signed_as_it_is_taken(net: Wire) -> None:
    for number in range(3):
        net.now_ms += 1_000
        capture(net, number)
        assert unsigned(net, WATCH) == 0


def test_of_many_that_come_fast_few_signatures_are_made_and_all_are_shown(slow: Wire) -> None:
    for number in range(10):
        capture(slow, number)
    assert unsigned(slow, WATCH) == 9 * 3
    slow.wait(2 * SIGN_MS)
    assert len({each.checkpoint for each in slow.nodes[WATCH].segments()}) == 2 * 3
    assert slow.nodes[CBD].shown() == {"public": 10, "edge-private": 10}
    assert slow.nodes[CLOUD].shown() == {"public": 10}
    assert owed(slow) == 0


def test_a_collection_with_many_unsigned_rows_is_not_made_to_wait(slow: Wire) -> None:
    capture(slow, 0)
    capture(slow, *range(1, 1 + SIGN_ROWS))
    assert unsigned(slow, WATCH) == 0


def test_what_is_unsigned_is_acknowledged_and_neither_shown_nor_given_to_the_cloud(slow: Wire) -> None:
    capture(slow, 0)
    capture(slow, 1)
    assert State.WAITING not in states(slow, WATCH)
    assert slow.nodes[CBD].rows() == {"public": 2, "edge-private": 2}
    slow.wait(SIGN_MS // 2)
    assert slow.nodes[CBD].shown() == {"public": 1, "edge-private": 1}
    assert slow.nodes[CLOUD].rows() == {"public": 1}
    slow.wait(SIGN_MS)
    assert slow.nodes[CBD].shown() == {"public": 2, "edge-private": 2}
    assert slow.nodes[CLOUD].rows() == {"public": 2}


def uploads(net: Wire) -> list[Upload]:
    """Return what the device sent to its edge."""
    edge, topic, found = net.nodes[CBD], topics.device_segments(WATCH), []
    for each in net.sent:
        if each.topic == topic:
            opened = envelope.verify(each.payload, topic, edge.kit.trust, net.now, bytes_max=1 << 24)
            message = decode(Opener(edge.kit.identity).open(opened.body, topic, opened.peer))
            assert isinstance(message, Upload)
            found.append(message)
    return found


def test_a_reading_goes_with_its_signatures_in_one_message_and_none_of_what_never_leaves(net: Wire) -> None:
    net.sent.clear()
    for number in range(3):
        net.wait(1_000)
        capture(net, number)
    assert [(len(each.segments), len(each.checkpoints)) for each in uploads(net)] == [(2, 2)] * 3
    net.sent.clear()
    net.wait(10_000)
    assert uploads(net) == []


def test_the_acknowledgement_does_not_wait_for_the_verification(net: Wire) -> None:
    net.sent.clear()
    capture(net, 0)
    first = net.said(Ack)[0]
    assert first.durable
    assert not first.signed
    net.wait(1_000)
    assert any(each.signed for each in net.said(Ack))


def test_a_signature_that_was_lost_is_sent_again(slow: Wire) -> None:
    capture(slow, 0)
    capture(slow, 1)
    slow.lose = lambda each: each.topic == topics.device_segments(WATCH)
    slow.wait(SIGN_MS + 500)
    slow.lose = lambda each: False
    assert (unsigned(slow, WATCH), unsigned(slow, CBD)) == (0, 2)
    slow.wait(10_000)
    assert unsigned(slow, CBD) == 0
    assert owed(slow) == 0


def test_a_device_that_stopped_before_it_signed_signs_when_it_starts(slow: Wire) -> None:
    capture(slow, 0)
    capture(slow, 1)
    slow.restart(WATCH)
    slow.wait(2_000)
    assert unsigned(slow, WATCH) == 0
    assert slow.nodes[CBD].shown() == {"public": 2, "edge-private": 2}


def test_an_edge_that_stopped_before_it_verified_verifies_when_it_starts(net: Wire) -> None:
    net.now_ms += 1_000
    net.lose = lambda each: each.topic == topics.device_down(WATCH)
    net.give(WATCH, recorded(0))
    net.now_ms += FLUSH_MS
    net.give(WATCH)
    net.restart(CBD)
    assert unsigned(net, CBD) == 0


def test_what_is_unsigned_when_the_device_leaves_is_shown_where_it_goes(slow: Wire) -> None:
    capture(slow, 0)
    capture(slow, 1)
    assert unsigned(slow, CBD) == 2
    slow.give(WATCH, Move(1, DOCKS, planned=False))
    slow.wait(4_000)
    assert slow.nodes[DOCKS].shown() == {"public": 2, "edge-private": 2}
    assert slow.nodes[CLOUD].shown() == {"public": 2}
    assert owed(slow) == 0


def test_what_the_edge_before_never_heard_of_is_signed_there_too_before_it_gives_anything(slow: Wire) -> None:
    capture(slow, 0)
    capture(slow, 1)
    slow.lose = lambda each: each.topic == topics.edge_in(DOCKS, CBD)  # what the source gives
    slow.give(WATCH, Move(1, DOCKS, planned=False))
    slow.wait(1_000)
    assert unsigned(slow, CBD) == 0
