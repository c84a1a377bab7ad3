"""The embedded broker: what amqtt alone gets wrong, and that nothing of it outlives its context."""

import asyncio
import logging
import sys
import threading

import pytest

from datasync.domain.errors import DependencyMissing, LinkError
from datasync.transport.amqtt_broker import QUEUED_MAX
from datasync.transport.embedded import EmbeddedBroker

CLIENTS = 20


def test_a_retained_packet_goes_to_who_subscribes_later_and_to_nobody_else(run, peer) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker, peer(broker.url, "cloud", "policy") as cloud:
            for text in (b"old", b"new"):
                await cloud.publish("policy", text, retain=True)
                await cloud.next()
            async with peer(broker.url, "edge", "policy") as edge, peer(broker.url, "watch", "dn") as watch:
                assert (await edge.next()).payload == b"new"
                await edge.publish("policy", b"", retain=True)
                assert (await edge.next()).payload == b""
                await edge.publish("dn", b"first")
                assert (await watch.next()).payload == b"first"
            async with peer(broker.url, "late", "policy", "mark") as late:
                await late.publish("mark")
                assert (await late.next()).topic == "mark"

    run(main())


def test_clients_may_connect_and_subscribe_all_at_once_while_packets_are_retained(run, peer) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker, peer(broker.url, "cloud") as cloud:
            for number in range(CLIENTS):
                await cloud.publish(f"kept/{number}", b"kept", retain=True)
            clients = [peer(broker.url, f"c{number}", f"kept/{number}", "all/+") for number in range(CLIENTS)]
            for client in clients:
                client.start()
            await asyncio.gather(*(client.up.wait() for client in clients))
            await cloud.publish("all/x")
            for number, client in enumerate(clients):
                assert sorted(await client.topics(2)) == ["all/x", f"kept/{number}"]
                assert client.states == [True]
            await asyncio.gather(*(client.stop() for client in clients))

    run(main())


@pytest.mark.parametrize("durable", [False, True])
def test_a_second_client_with_the_same_id_takes_over_and_the_first_is_told(run, peer, durable: bool) -> None:
    async def main() -> None:
        async with (
            EmbeddedBroker() as broker,
            peer(broker.url, "same", "a", durable_session=durable) as first,
            peer(broker.url, "same", "a", durable_session=durable) as second,
        ):
            await first.down.wait()
            await first.stop()
            await second.up.wait()
            await second.publish("a", b"heard")
            assert (await second.next()).payload == b"heard"

    run(main())


def test_a_client_that_acknowledges_nothing_holds_up_no_other(run, peer) -> None:
    async def main() -> None:
        async with (
            EmbeddedBroker() as broker,
            peer(broker.url, "slow", "a", acknowledge=False) as slow,
            peer(broker.url, "quick", "a") as quick,
        ):
            for number in range(1_200):
                await quick.publish("a", str(number).encode())
            assert [int((await quick.next()).payload) for _ in range(1_200)] == list(range(1_200))
            waiting = [await slow.next() for _ in range(QUEUED_MAX)]
            assert [int(received.payload) for received in waiting] == list(range(QUEUED_MAX))
            for received in waiting:
                received.acknowledge()
            assert await slow.publish("a", b"what came in between is lost")
            assert (await slow.next()).payload == b"what came in between is lost"

    run(main())


def test_a_client_killed_in_the_middle_of_a_packet_harms_no_other(run, peer) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker, peer(broker.url, "edge", "a") as edge:
            host, port = broker.url.removeprefix("mqtt://").split(":")
            for start in (b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01k\x32\xff\x7f\x00\x01a", b"\x10\xff", b"GET /"):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(start)
                await writer.drain()
                writer.transport.abort()
            await edge.publish("a")
            await edge.next()
            assert edge.states == [True]

    run(main())


def test_closing_ends_every_connection_even_one_that_never_spoke(run, peer) -> None:
    threads = threading.enumerate()

    async def main() -> None:
        async with EmbeddedBroker() as broker:
            host, port = broker.url.removeprefix("mqtt://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            watch = peer(broker.url, "watch", "a")
            watch.start()
            await watch.up.wait()
        assert await reader.read() == b""
        writer.close()
        await watch.down.wait()
        await watch.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))

    run(main())
    assert threading.enumerate() == threads


def test_closing_is_quick_and_quiet_although_a_client_stopped_reading(run, peer, caplog) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker:
            host, port = broker.url.removeprefix("mqtt://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1)
            writer.write(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01k\x82\x06\x00\x01\x00\x01a\x01")
            assert await reader.readexactly(9) == b"\x20\x02\x00\x00\x90\x03\x00\x01\x01"
            async with peer(broker.url, "watch", "b") as watch:
                for _ in range(16):
                    await watch.publish("a", bytes(1_000_000))
                await watch.publish("b")
                await watch.next()
        writer.transport.abort()

    run(main())
    assert caplog.records == []


def test_a_link_finds_its_broker_again_on_the_same_port(run, peer) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker:
            port = int(broker.url.rpartition(":")[2])
            watch = peer(broker.url, "watch", "a")
            watch.start()
            await watch.up.wait()
        await watch.down.wait()
        async with EmbeddedBroker(port=port):
            await watch.up.wait()
            await watch.publish("a")
            await watch.next()
            await watch.stop()

    run(main())


def test_a_port_that_is_taken_is_a_link_error(run) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker:
            with pytest.raises(LinkError, match="cannot listen"):
                await EmbeddedBroker(port=int(broker.url.rpartition(":")[2])).__aenter__()

    run(main())


def test_without_amqtt_the_error_says_what_to_install(run, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "datasync.transport.amqtt_broker", raising=False)
    monkeypatch.setitem(sys.modules, "amqtt", None)
    monkeypatch.setitem(sys.modules, "amqtt.adapters", None)

    async def main() -> None:
        with pytest.raises(DependencyMissing, match=r"pip install 'datasync\[demo\]'"):
            await EmbeddedBroker().__aenter__()

    run(main())


def test_payloads_stay_out_of_the_log_whatever_its_level(run, peer, caplog) -> None:
    async def main() -> None:
        async with EmbeddedBroker() as broker, peer(broker.url, "watch", "a") as watch:
            await watch.publish("a", b"the-canary")
            await watch.next()

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert "the-canary" not in caplog.text
