"""The link against the embedded broker, and against brokers that misbehave byte by byte."""

import asyncio
import logging
import threading

import pytest

from datasync.domain.errors import ConfigError, MessageTooLarge
from datasync.transport.embedded import EmbeddedBroker
from datasync.transport.link import Packet, Received
from datasync.transport.mqtt import RECONNECT_S, RECONNECT_S_MAX, MqttLink, reconnect_s
from datasync.transport.mqtt_connection import IN_FLIGHT_BYTES_MAX, UNACKNOWLEDGED_MAX

REFUSED = 0x80


def test_packets_of_any_size_arrive_in_order_at_who_subscribed(run, peer) -> None:
    async def main() -> None:
        async with (
            EmbeddedBroker() as broker,
            peer(broker.url, "edge", "d/+/up", "d/+/seg") as edge,
            peer(broker.url, "watch", "d/watch/dn") as watch,
        ):
            payloads = [b"", b"x", bytes(100_000), bytes(3_000_000)]
            for payload in payloads:
                assert await watch.publish("d/watch/seg", payload)
            assert [(await edge.next()).payload for _ in payloads] == payloads
            assert await edge.publish("d/other/dn")
            assert await edge.publish("d/watch/dn", b"for you")
            received = await watch.next()
            assert (received.topic, received.payload) == ("d/watch/dn", b"for you")

    run(main())


def test_nothing_is_published_and_nobody_waits_without_a_connection(run, peer) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker:
            watch = peer(broker.url, "watch")
            assert not await watch.publish("a")
            async with watch:
                assert await watch.publish("a")
            assert not await watch.publish("a")
            assert watch.states == [True, False]

    run(main())


def test_publishing_waits_for_a_slot_and_a_puback_frees_one(run, peer, scripted_broker) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            watch = peer(broker.url, "watch", in_flight_max=2)
            watch.start()
            wire = await broker.wire()
            await wire.accept()
            await watch.up.wait()
            assert await watch.publish("a", b"1")
            assert await watch.publish("a", b"2")
            third = asyncio.create_task(watch.publish("a", b"3"))
            first, _ = await wire.published()
            await wire.published()
            assert not third.done()
            wire.send(0x40, first.to_bytes(2, "big"))
            assert (await wire.published())[1] == b"3"
            assert await third
            await watch.stop()

    run(main())


def test_large_packets_fill_the_window_by_their_bytes(run, peer, scripted_broker) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            watch = peer(broker.url, "watch")
            watch.start()
            wire = await broker.wire()
            await wire.accept()
            await watch.up.wait()
            half = bytes(IN_FLIGHT_BYTES_MAX // 2)
            assert await watch.publish("a", half)
            assert await watch.publish("a", half)
            third = asyncio.create_task(watch.publish("a", b"x"))
            first, _ = await wire.published()
            assert not third.done()
            wire.send(0x40, first.to_bytes(2, "big"))
            assert await third
            await watch.stop()

    run(main())


def test_a_publisher_that_waits_hears_at_once_that_the_connection_is_gone(run, peer, scripted_broker) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            watch = peer(broker.url, "watch", in_flight_max=1)
            watch.start()
            wire = await broker.wire()
            await wire.accept()
            await watch.up.wait()
            assert await watch.publish("a", b"1")
            waiting = [asyncio.create_task(watch.publish("a", b"2")) for _ in range(3)]
            await wire.published()
            wire.close()
            assert await asyncio.gather(*waiting) == [False, False, False]
            await watch.stop()

    run(main())


def test_what_was_in_flight_is_not_sent_again_on_the_next_connection(run, peer, scripted_broker) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            watch = peer(broker.url, "watch", "in")
            watch.start()
            wire = await broker.wire()
            await wire.accept(1)
            await watch.up.wait()
            assert await watch.publish("a", b"lost")
            await wire.published()
            wire.close()
            wire = await broker.wire()
            await wire.accept(1)
            await watch.up.wait()
            assert await watch.publish("a", b"fresh")
            assert (await wire.published())[1] == b"fresh"
            assert watch.states == [True, False, True]
            await watch.stop()

    run(main())


def test_a_packet_is_acknowledged_to_the_broker_only_when_the_receiver_says_so(run, peer, scripted_broker) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            edge = peer(broker.url, "edge", "a", acknowledge=False)
            edge.start()
            wire = await broker.wire()
            await wire.accept(1)
            for mid in (7, 8):
                wire.publish(mid, b"a")
            first, second = await edge.next(), await edge.next()
            second.acknowledge()
            second.acknowledge()
            assert await wire.acknowledged() == 8
            thread = threading.Thread(target=first.acknowledge)
            thread.start()
            assert await wire.acknowledged() == 7
            thread.join()
            await edge.stop()
            assert await wire.ended() == b"\xe0\x00"

    run(main())


def test_an_acknowledgement_that_comes_too_late_hits_no_other_message(run, peer, scripted_broker) -> None:
    late: list[Received] = []

    async def main() -> None:
        async with scripted_broker() as broker:
            edge = peer(broker.url, "edge", "a", acknowledge=False)
            edge.start()
            wire = await broker.wire()
            await wire.accept(1)
            wire.publish(1, b"a", b"old")
            late.append(await edge.next())
            wire.close()
            wire = await broker.wire()
            await wire.accept(1)
            wire.publish(1, b"a", b"new")
            wire.publish(2, b"a", b"newer")
            late.append(await edge.next())
            late[0].acknowledge()
            (await edge.next()).acknowledge()
            assert await wire.acknowledged() == 2
            await edge.stop()

    run(main())
    for received in late:
        received.acknowledge()


def test_connected_means_that_the_broker_accepted_every_subscription(run, peer, scripted_broker) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            edge = peer(broker.url, "edge", "a", "b")
            edge.start()
            wire = await broker.wire()
            await wire.accept(1, REFUSED)
            await wire.ended()
            assert edge.states == []
            await (await broker.wire()).accept(1, 1)
            await edge.up.wait()
            assert edge.link.counts == {"SUBSCRIPTION_REFUSED": 1}
            await edge.stop()

    run(main())


@pytest.mark.parametrize(
    "answer",
    [b"\x20\x02\x00\x05", b"\x20\x02\x00\x01", b"\xff\xff\xff\xff\xff\xff", b"\x90\x00", b"\x20\x00", b"\x30\x01\x00"],
    ids=["not authorised", "wrong protocol", "endless length", "empty SUBACK", "empty CONNACK", "cut PUBLISH"],
)
def test_a_broker_that_refuses_or_talks_nonsense_is_tried_again(run, peer, scripted_broker, answer: bytes) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            edge = peer(broker.url, "edge", "a")
            edge.start()
            wire = await broker.wire()
            wire.send(answer[0], answer[2:]) if answer[0] == 0x20 else wire.raw(answer)
            await wire.ended()
            await (await broker.wire()).accept(1)
            await edge.up.wait()
            assert edge.link.counts == {"LINK_FAILED": 1}
            await edge.stop()

    run(main())


def test_oversized_packets_are_dropped_counted_and_logged_once(run, peer, caplog) -> None:
    async def main() -> None:
        async with (
            EmbeddedBroker() as broker,
            peer(broker.url, "watch") as watch,
            peer(broker.url, "edge", "a", packet_bytes_max=100) as edge,
        ):
            for size in (101, 5_000, 100):
                await watch.publish("a", bytes(size))
            assert len((await edge.next()).payload) == 100
            assert edge.link.counts == {"MESSAGE_TOO_LARGE": 2}

    with caplog.at_level(logging.WARNING):
        run(main())
    (record,) = [record for record in caplog.records if "MESSAGE_TOO_LARGE" in record.getMessage()]
    assert "dropped 101 bytes from 'a', at most 100 fit a packet" in record.getMessage()


def test_an_oversized_packet_is_acknowledged_so_that_it_does_not_come_back(run, peer, scripted_broker) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            edge = peer(broker.url, "edge", "a", packet_bytes_max=100)
            edge.start()
            wire = await broker.wire()
            await wire.accept(1)
            wire.publish(3, b"a", bytes(101))
            wire.publish(4, b"\xff\xfe")
            assert [await wire.acknowledged(), await wire.acknowledged()] == [3, 4]
            assert edge.link.counts == {"MESSAGE_TOO_LARGE": 1, "TOPIC_INVALID": 1}
            await edge.stop()

    run(main())


def test_a_packet_too_large_to_send_is_refused_to_the_caller(run, peer) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker, peer(broker.url, "watch", packet_bytes_max=100) as watch:
            with pytest.raises(MessageTooLarge, match="101 bytes, at most 100"):
                await watch.publish("a", bytes(101))
            assert await watch.publish("a", bytes(100))

    run(main())


def test_what_waits_for_acknowledgement_is_bounded_even_if_the_broker_knows_no_limit(
    run, peer, scripted_broker
) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            edge = peer(broker.url, "edge", "a", acknowledge=False)
            edge.start()
            wire = await broker.wire()
            await wire.accept(1)
            for mid in range(1, UNACKNOWLEDGED_MAX + 3):
                wire.publish(mid, b"a")
            dropped = [await wire.acknowledged(), await wire.acknowledged()]
            assert dropped == [UNACKNOWLEDGED_MAX + 1, UNACKNOWLEDGED_MAX + 2]
            assert edge.link.counts == {"RECEIVER_BEHIND": 2}
            (await edge.next()).acknowledge()
            assert await wire.acknowledged() == 1
            wire.publish(9, b"a")
            await edge.topics(UNACKNOWLEDGED_MAX)
            await edge.stop()

    run(main())


def test_a_receiver_that_raises_is_reported_and_its_packet_stays_unacknowledged(run, scripted_broker, caplog) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            link = MqttLink(broker.url, "edge", ["a"])

            def receive(received: Received) -> None:
                if received.payload == b"bad":
                    raise RuntimeError("the receiver's own fault")
                received.acknowledge()

            def changed(connected: bool) -> None:
                raise RuntimeError(f"no use for {connected}")

            task = asyncio.create_task(link.run(receive, changed))
            wire = await broker.wire()
            await wire.accept(1)
            wire.publish(1, b"a", b"bad")
            wire.publish(2, b"a", b"good")
            assert await wire.acknowledged() == 2
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert link.counts == {"RECEIVER_FAILED": 3}

    run(main())
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_silent_broker_is_given_up_after_two_keepalives(run, peer, scripted_broker) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            edge = peer(broker.url, "edge", "a", keepalive_s=1)
            edge.start()
            wire = await broker.wire()
            await wire.accept(1)
            await edge.up.wait()
            assert await wire.ended() == b"\xc0\x00"
            assert edge.link.counts == {"LINK_FAILED": 1}
            await edge.stop()

    run(main())


def test_cancelling_says_goodbye_and_leaves_no_thread_behind(run, peer, scripted_broker) -> None:
    threads = threading.enumerate()

    async def main() -> None:
        async with scripted_broker() as broker:
            watch = peer(broker.url, "watch")
            watch.start()
            wire = await broker.wire()
            await wire.accept()
            await watch.up.wait()
            assert await watch.publish("a", b"last words")
            await watch.stop()
            assert (await wire.published())[1] == b"last words"
            assert await wire.ended() == b"\xe0\x00"
            assert watch.states == [True, False]
            assert threading.enumerate() == threads

    run(main())


@pytest.mark.parametrize("stage", ["dialling", "before CONNACK", "before SUBACK", "waiting to dial again"])
def test_cancelling_works_at_every_stage(run, peer, scripted_broker, stage: str) -> None:
    async def main() -> None:
        async with scripted_broker() as broker:
            edge = peer(broker.url, "edge", "a")
            edge.start()
            if stage != "dialling":
                wire = await broker.wire()
                if stage == "before SUBACK":
                    await wire.accept()
                elif stage == "waiting to dial again":
                    wire.close()
                    await wire.ended()
            await edge.stop()
            assert edge.states == []

    run(main())


def test_a_link_can_run_again_after_it_was_cancelled(run, peer) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker:
            watch = peer(broker.url, "watch", "a")
            for _ in range(2):
                async with watch:
                    assert await watch.publish("a")
                    await watch.next()
            assert watch.states == [True, False, True, False]

    run(main())


def test_a_host_is_tried_at_each_of_its_addresses(run, peer) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker:
            url = broker.url.replace("127.0.0.1", "localhost")
            async with peer(url, "watch") as watch:
                assert await watch.publish("a")

    run(main())


def test_the_wait_between_attempts_grows_spreads_and_is_bounded() -> None:
    waits = [reconnect_s(failures, 0.0) for failures in range(1, 2_000)]
    assert waits[:3] == [RECONNECT_S, 2 * RECONNECT_S, 4 * RECONNECT_S]
    assert max(waits) == waits[-1] == RECONNECT_S_MAX
    assert reconnect_s(1, 1.0) == RECONNECT_S / 2


@pytest.mark.parametrize(
    "url", ["", "localhost:1883", "http://host:1", "mqtt://", "mqtt://host:0", "mqtt://host:99999", "mqtt://a@host"]
)
def test_an_address_that_cannot_be_one_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="mqtt://host:port"):
        MqttLink(url, "watch", [])


def test_a_filter_that_cannot_be_one_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="'a/#/b' is no topic filter"):
        MqttLink("mqtt://host", "watch", ["a", "a/#/b"])


def test_the_same_packet_may_be_published_many_times_at_once(run, peer) -> None:
    async def main() -> None:
        async with (
            EmbeddedBroker() as broker,
            peer(broker.url, "edge", "a/+") as edge,
            peer(broker.url, "watch", in_flight_max=4) as watch,
        ):
            sent = [watch.link.publish(Packet(f"a/{number}", b"x")) for number in range(200)]
            assert all(await asyncio.gather(*sent))
            assert sorted(await edge.topics(200)) == sorted(f"a/{number}" for number in range(200))

    run(main())
