"""Forwarding: what an edge owes the cloud, and the word that the cloud has it."""

from datasync.nodes.node import Record
from datasync.nodes.telling import TELL_MS
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from datasync.protocol import envelope, topics
from datasync.protocol.messages import Ack, AnyMessage, decode
from datasync.store import segments
from datasync.store.segments import State
from tests.unit.nodes.wire import CBD, CLOUD, POLICY, WATCH, Wire

BATCH = 100
"""As many rows as the device makes a batch of at once."""


def record_batches(net: Wire, count: int) -> None:
    """Record full batches, all at one moment, and let the edge verify them."""
    collection = load(POLICY).collection("steps")
    for first in range(0, count * BATCH, BATCH):
        rows = to_batch(collection, [{"number": number} for number in range(first, first + BATCH)])
        net.give(WATCH, Record(1, "steps", rows))
    net.give(CBD)


def told(net: Wire) -> list[AnyMessage]:
    """Return what was sent down to the device."""
    trust, topic = net.nodes[CBD].kit.trust, topics.device_down(WATCH)
    down = [each.payload for each in net.sent if each.topic == topic]
    return [decode(envelope.verify(each, topic, trust, net.now, bytes_max=1 << 20).body) for each in down]


def count(net: Wire, state: State) -> int:
    with net.nodes[WATCH].database.read() as tx:
        return segments.count(tx, [state])


def test_the_device_is_told_in_one_message_of_all_that_is_safe_and_verified(net: Wire) -> None:
    record_batches(net, 1)
    assert net.count("received", "forward") == 1
    assert count(net, State.DURABLE) == 1  # the public layer: in the cloud already, but the device has not heard
    net.sent.clear()
    net.wait(TELL_MS, step_ms=TELL_MS)
    (ack,) = told(net)
    assert isinstance(ack, Ack)
    assert not ack.durable
    assert [len(numbers) for numbers in ack.safe.values()] == [BATCH]
    assert [len(numbers) for numbers in ack.signed.values()] == [BATCH] * 2
    assert count(net, State.DURABLE) == 0


def test_the_word_goes_with_an_acknowledgement_that_is_sent_anyhow(net: Wire) -> None:
    record_batches(net, 1)
    net.sent.clear()
    record_batches(net, 1)
    ack = told(net)[0]
    assert isinstance(ack, Ack)
    assert [len(numbers) for numbers in ack.durable.values()] == [BATCH] * 2
    assert [len(numbers) for numbers in ack.safe.values()] == [BATCH]
    assert [len(numbers) for numbers in ack.signed.values()] == [BATCH] * 2


def test_a_word_that_is_lost_with_the_edge_is_asked_for_again(net: Wire) -> None:
    record_batches(net, 1)
    net.restart(CBD)
    net.wait(TELL_MS, step_ms=TELL_MS)
    assert count(net, State.DURABLE) == 1
    net.wait(10_000)
    assert count(net, State.DURABLE) == 0


def test_what_the_cloud_does_not_answer_is_sent_again(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.edge_in(CBD, CLOUD)
    record_batches(net, 1)
    assert count(net, State.DURABLE) == 1
    net.lose = lambda each: False
    net.wait(5_000)
    assert net.count("stored", "duplicates") == 1
    assert count(net, State.DURABLE) == 0
