"""The link against a real Mosquitto that stops, dies, freezes, refuses and limits."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from datasync.domain.limits import SEGMENT_BYTES_MAX

IN_FLIGHT = 20
"""Mosquitto's own limit on what a client has not acknowledged."""

LARGE = 1_500_000
LINE_BYTES_PER_S = 400_000
LINE_PIECE = 20_000


def test_two_thousand_packets_arrive_each_once_and_in_order(run, peer, start_mosquitto) -> None:
    async def main() -> None:
        broker = start_mosquitto("max_queued_messages 0")
        async with peer(broker.url, "edge", "d/+/seg") as edge, peer(broker.url, "watch") as watch:
            for number in range(2_000):
                assert await watch.publish("d/watch/seg", str(number).encode())
            assert [int((await edge.next()).payload) for _ in range(2_000)] == list(range(2_000))

    run(main())


def test_the_largest_segment_passes(run, peer, mosquitto) -> None:
    async def main() -> None:
        async with peer(mosquitto.url, "edge", "seg") as edge, peer(mosquitto.url, "watch") as watch:
            segment = bytes(range(256)) * (SEGMENT_BYTES_MAX // 256)
            assert await watch.publish("seg", segment)
            assert (await edge.next()).payload == segment

    run(main())


def test_a_retained_packet_comes_with_the_subscription(run, peer, mosquitto) -> None:
    async def main() -> None:
        async with peer(mosquitto.url, "cloud") as cloud:
            await cloud.publish("policy", b"old", retain=True)
            await cloud.publish("policy", b"new", retain=True)
            async with peer(mosquitto.url, "edge", "policy") as edge:
                assert (await edge.next()).payload == b"new"

    run(main())


def test_the_broker_sends_no_more_than_its_limit_ahead_of_the_acknowledgements(run, peer, mosquitto) -> None:
    async def main() -> None:
        async with (
            peer(mosquitto.url, "edge", "seg", acknowledge=False, in_flight_max=1) as edge,
            peer(mosquitto.url, "watch") as watch,
        ):
            for number in range(IN_FLIGHT + 5):
                await watch.publish("seg", str(number).encode())
            # The second needs the PUBACK of the first, which the broker sent after all that it would send.
            await edge.publish("elsewhere")
            await edge.publish("elsewhere")
            assert edge.waiting() == IN_FLIGHT
            for number in range(IN_FLIGHT + 5):
                received = await edge.next()
                assert int(received.payload) == number
                received.acknowledge()

    run(main())


def test_a_durable_session_gives_again_what_was_not_acknowledged(run, peer, mosquitto) -> None:
    async def main() -> None:
        edge = peer(mosquitto.url, "edge", "seg", acknowledge=False, durable_session=True)
        async with peer(mosquitto.url, "watch") as watch:
            async with edge:
                for payload in (b"committed", b"not committed"):
                    await watch.publish("seg", payload)
                (await edge.next()).acknowledge()
                await edge.next()
            await watch.publish("seg", b"while away")
            async with edge:
                again = [await edge.next() for _ in range(2)]
                assert [received.payload for received in again] == [b"not committed", b"while away"]
                for received in again:
                    received.acknowledge()
            async with edge:
                await watch.publish("seg", b"last")
                assert (await edge.next()).payload == b"last"

    run(main())


def test_a_process_killed_before_its_commit_is_given_everything_again(run, peer, mosquitto) -> None:
    victim = f"""
import asyncio
from datasync.transport.mqtt import MqttLink
link = MqttLink({mosquitto.url!r}, "edge", ["seg"], durable_session=True)
def receive(received):
    print(received.payload.decode(), flush=True)
def changed(connected):
    print(connected, flush=True)
asyncio.run(link.run(receive, changed))
"""

    async def main() -> None:
        async with peer(mosquitto.url, "watch") as watch:
            with subprocess.Popen([sys.executable, "-c", victim], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "True\n"
                for number in range(3):
                    await watch.publish("seg", str(number).encode())
                assert [process.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
                process.kill()
            async with peer(mosquitto.url, "edge", "seg", durable_session=True) as edge:
                assert [(await edge.next()).payload for _ in range(3)] == [b"0", b"1", b"2"]

    run(main())


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_that_comes_back_is_subscribed_to_again(run, peer, mosquitto, end: str) -> None:
    async def main() -> None:
        async with peer(mosquitto.url, "edge", "seg") as edge, peer(mosquitto.url, "watch") as watch:
            getattr(mosquitto, end)()
            await asyncio.gather(edge.wait(False), watch.wait(False))
            assert not await watch.publish("seg")
            mosquitto.start()
            await asyncio.gather(edge.wait(True), watch.wait(True))
            assert await watch.publish("seg", b"after")
            assert (await edge.next()).payload == b"after"
            assert edge.states == [True, False, True]

    run(main())


def test_a_durable_session_survives_a_broker_that_is_stopped(run, peer, mosquitto) -> None:
    async def main() -> None:
        edge = peer(mosquitto.url, "edge", "seg", acknowledge=False, durable_session=True)
        async with edge, peer(mosquitto.url, "watch") as watch:
            await watch.publish("seg", b"kept")
            await edge.next()
            mosquitto.stop()
            await asyncio.gather(edge.wait(False), watch.wait(False))
            mosquitto.start()
            assert (await edge.next()).payload == b"kept"

    run(main())


def test_everyone_who_waits_to_publish_hears_when_the_broker_dies(run, peer, mosquitto) -> None:
    async def main() -> None:
        async with peer(mosquitto.url, "watch", in_flight_max=4) as watch:
            mosquitto.pause()
            sent = [asyncio.create_task(watch.publish("seg")) for _ in range(20)]
            done, waiting = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
            assert (len(done), len(waiting)) == (4, 16)
            mosquitto.kill()
            assert await asyncio.gather(*sent) == [True] * 4 + [False] * 16

    run(main())


def test_a_broker_that_freezes_is_left_after_two_keepalives_and_found_again(run, peer, mosquitto) -> None:
    async def main() -> None:
        async with peer(mosquitto.url, "edge", "seg", keepalive_s=1) as edge:
            mosquitto.pause()
            await edge.wait(False)
            mosquitto.resume()
            await edge.wait(True)
            assert await edge.publish("seg")
            assert (await edge.next()).topic == "seg"

    run(main())


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_packet_that_takes_longer_than_the_keepalives_does_not_cost_the_connection(
    run, peer, mosquitto, direction: str
) -> None:
    async def main() -> None:
        async with slow_line(mosquitto.port) as slow:
            sender, receiver = (slow, mosquitto.url) if direction == "up" else (mosquitto.url, slow)
            async with (
                peer(receiver, "edge", "seg", keepalive_s=1) as edge,
                peer(sender, "watch", keepalive_s=1) as watch,
            ):
                await watch.publish("seg", bytes(LARGE))
                assert len((await edge.next()).payload) == LARGE
                assert watch.states == edge.states == [True]

    run(main())


def test_a_packet_over_the_brokers_limit_vanishes_although_the_broker_acknowledges_it(
    run, peer, start_mosquitto
) -> None:
    async def main() -> None:
        broker = start_mosquitto("message_size_limit 1000")
        async with peer(broker.url, "watch", "seg", in_flight_max=1) as watch:
            assert await watch.publish("seg", bytes(2_000))
            assert await watch.publish("seg", bytes(900))
            assert len((await watch.next()).payload) == 900
            assert watch.states == [True]

    run(main())


def test_two_links_with_one_id_take_turns_without_a_storm(run, peer, mosquitto) -> None:
    async def main() -> None:
        async with peer(mosquitto.url, "same", "seg") as first, peer(mosquitto.url, "same", "seg") as second:
            await first.wait(False)
            await second.wait(False)
            await first.wait(False)
            assert sum(len(one.states) for one in (first, second)) < 12

    run(main())


@contextlib.asynccontextmanager
async def slow_line(port: int) -> AsyncIterator[str]:
    """A relay to ``port`` that passes little each second either way and buffers little: about 4 s for ``LARGE``."""
    ends: list[asyncio.StreamWriter] = []
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(LINE_PIECE):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(len(piece) / LINE_BYTES_PER_S)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_PIECE)
        ends.extend((writer, far_writer))
        pumps.extend(asyncio.create_task(pump(*pair)) for pair in ((reader, far_writer), (far_reader, writer)))

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LINE_PIECE)
    async with await asyncio.start_server(relay, sock=listener, limit=LINE_PIECE):
        yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
    for end in ends:
        end.transport.abort()
    await asyncio.gather(*pumps, return_exceptions=True)
