"""Who gets into a real Mosquitto that ``datasync broker config`` configured, and what each can do there.

Nodes do not rely on it: every message is signed, and what is private is sealed. It keeps strangers from listening,
disturbing and filling up what they cannot read.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from datasync.domain.errors import LinkError, PeerRefused
from datasync.domain.ids import NodeName, dotted
from datasync.domain.limits import MESSAGE_BYTES_MAX
from datasync.nodes.shell import system_clock
from datasync.protocol import topics
from datasync.security.certificates import read_authority
from datasync.security.identity import Identity, Role
from datasync.security.revocation import RevocationList, crl
from datasync.security.revocation import revoked as revoked_entry
from datasync.security.trust import Authority
from tests.integration import verdict
from tests.integration.conftest import Peer
from tests.integration.deployment import EDGES, Deployment
from tests.integration.mosquitto import Mosquitto
from tests.integration.secured import CBD, CLOUD, DOCKS, HUB, OTHER, WATCH, Realm
from tests.integration.test_mqtt_link import LARGE, slow_line

MOVES = 2
MARK = b"what comes after all that was sent before"


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Realm:
    return Realm(tmp_path_factory.mktemp("realm"))


@pytest.fixture(scope="module")
def revoked(realm: Realm) -> Path:
    return realm.enrol(WATCH, Role.DEVICE, label="revoked")


@pytest.fixture(scope="module")
def devices(realm: Realm) -> dict[NodeName, Path]:
    return {name: realm.enrol(name, Role.DEVICE) for name in (WATCH, OTHER)}


@pytest.fixture(scope="module")
def edge_broker(realm: Realm, revoked: Path) -> Iterator[Mosquitto]:
    path = realm.folder / "revoked.pem"
    lists = [revocation_list(realm.authorities["acme"], revoked), revocation_list(realm.authorities["borealis"])]
    path.write_bytes(b"".join(lists))
    broker = realm.broker(CBD, Role.EDGE, "--crl", str(path))
    yield broker
    broker.kill()


@pytest.fixture
def start_realm_broker(realm: Realm) -> Iterator[Callable[..., Mosquitto]]:
    """Start the broker of an edge, with more options for ``datasync broker config``."""
    started: list[Mosquitto] = []

    def start(edge: NodeName, *options: str) -> Mosquitto:
        started.append(realm.broker(edge, Role.EDGE, *options))
        return started[-1]

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture(scope="module")
def backbone(realm: Realm) -> Iterator[Mosquitto]:
    broker = realm.broker(CLOUD, Role.CLOUD)
    yield broker
    broker.kill()


def test_a_device_and_its_edge_hear_each_other(run, realm, devices, edge_broker) -> None:
    async def main() -> None:
        async with (
            linked(realm, edge_broker, CBD, realm.identity(CBD), *topics.UPLINKS) as edge,
            linked(realm, edge_broker, CBD, devices[WATCH], topics.device_down(WATCH), topics.BEACONS) as watch,
        ):
            for topic in (topics.device_up(WATCH), topics.device_segments(WATCH), "ds/1/d/watch-7/json/motion"):
                await watch.publish(topic)
                assert (await edge.next()).topic == topic
            await edge.publish(topics.beacon(CBD), b"beacon", retain=True)
            assert (await watch.next()).payload == b"beacon"
            await edge.publish(topics.device_down(WATCH))
            assert (await watch.next()).topic == topics.device_down(WATCH)

    run(main())


@pytest.mark.parametrize(
    ("mistake", "alert"),
    [
        ("another authority", "UNKNOWN_CA"),
        ("expired", "CERTIFICATE_EXPIRED"),
        ("revoked", "CERTIFICATE_REVOKED"),
        ("a broker's", "UNSUPPORTED_CERTIFICATE"),
        ("none", "CERTIFICATE_REQUIRED"),
    ],
)
def test_a_certificate_that_does_not_hold_does_not_get_in(
    run, realm, edge_broker, revoked, mistake: str, alert: str, caplog
) -> None:
    identity = {
        "another authority": lambda: realm.enrol(WATCH, Role.DEVICE, "mallory", label="mallory"),
        "expired": lambda: realm.enrol(WATCH, Role.DEVICE, label="expired", ago_days=2),
        "revoked": lambda: revoked,
        "a broker's": lambda: realm.enrol(DOCKS, Role.BROKER, label="client"),
        "none": lambda: None,
    }[mistake]()

    async def main() -> None:
        link = linked(realm, edge_broker, CBD, identity, topics.device_down(WATCH))
        await refused(link, PeerRefused.code)

    run(main())
    assert alert in caplog.text


def test_who_is_revoked_while_the_broker_runs_does_not_get_in_again(run, realm, start_realm_broker) -> None:
    identity, path = realm.enrol(OTHER, Role.DEVICE, label="soon-revoked"), realm.folder / "later.pem"
    nobody = revocation_list(realm.authorities["borealis"])
    path.write_bytes(revocation_list(realm.authorities["acme"]) + nobody)
    broker = start_realm_broker(DOCKS, "--crl", str(path))

    async def main() -> None:
        async with linked(realm, broker, DOCKS, identity) as device:
            path.write_bytes(revocation_list(realm.authorities["acme"], identity) + nobody)
            broker.reload()
            while "Reloading config." not in "".join(broker.log):
                await asyncio.sleep(0.01)  # the broker tells its log alone
            assert device.states == [True]
        await refused(linked(realm, broker, DOCKS, identity), PeerRefused.code)

    run(main())


def test_a_link_that_meant_another_node_says_nothing_to_this_one(run, realm, devices, edge_broker, caplog) -> None:
    async def main() -> None:
        await refused(linked(realm, edge_broker, DOCKS, devices[WATCH]), PeerRefused.code)

    run(main())
    assert "acme/docks was called, and broker acme/cbd answered" in caplog.text


def test_nothing_but_tls_1_3_is_spoken(run, realm, devices, edge_broker) -> None:
    async def main() -> None:
        await refused(Peer(edge_broker.url.replace("mqtts", "mqtt"), "watch-7"), LinkError.code)

    run(main())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", edge_broker.port)) as plain,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain)


@pytest.mark.parametrize("client_id", ["watch-8", "watch-7", "acme.cbd"])
def test_a_device_cannot_speak_for_another_whatever_it_calls_itself(
    run, realm, devices, edge_broker, client_id: str
) -> None:
    forbidden = [
        topics.device_up(WATCH),
        topics.device_segments(WATCH),
        "ds/1/d/watch-7/json/motion",
        topics.device_down(WATCH),
        topics.device_down(OTHER),
        topics.beacon(CBD),
        topics.POLICY,
        "ds/1/d/watch-8/json/a/b",
    ]
    everything = (*topics.UPLINKS, topics.BEACONS, topics.POLICY)

    async def main() -> None:
        async with (
            linked(realm, edge_broker, CBD, realm.identity(CBD), *everything) as edge,
            linked(realm, edge_broker, CBD, devices[WATCH], topics.device_down(WATCH), topics.POLICY) as watch,
            linked(realm, edge_broker, CBD, devices[OTHER], topics.device_down(OTHER), name=client_id) as other,
        ):
            await passed(edge, watch, WATCH)
            for topic in forbidden:
                await other.publish(topic, b"forged", retain=topic in (topics.beacon(CBD), topics.POLICY))
            await other.publish(topics.device_up(OTHER), MARK)
            assert b"forged" not in await until_mark(edge)
            await edge.publish(topics.device_down(WATCH), MARK)
            assert b"forged" not in await until_mark(watch)
            assert edge.states == watch.states == other.states == [True]

    run(main())


@pytest.mark.parametrize(
    "spied", ["#", "ds/1/d/+/up", "ds/1/d/watch-7/#", "ds/1/d/watch-7/dn", "$share/spies/ds/1/d/+/seg", "$SYS/#"]
)
def test_a_device_that_subscribes_to_more_hears_nothing_more(run, realm, devices, edge_broker, spied: str) -> None:
    async def main() -> None:
        async with (
            linked(realm, edge_broker, CBD, realm.identity(CBD), *topics.UPLINKS) as edge,
            linked(realm, edge_broker, CBD, devices[WATCH], topics.device_down(WATCH)) as watch,
            linked(realm, edge_broker, CBD, devices[OTHER], spied, topics.device_down(OTHER)) as other,
        ):
            for topic in (topics.device_up(WATCH), topics.device_segments(WATCH), "ds/1/d/watch-7/json/motion"):
                await watch.publish(topic, b"private")
                await edge.next()
            await edge.publish(topics.device_down(WATCH), b"private")
            await watch.next()
            await edge.publish(topics.device_down(OTHER), MARK)
            heard = await until_mark(other)
            assert b"private" not in heard
            assert all(each == b"beacon" for each in heard)

    run(main())


@pytest.mark.parametrize("role", [Role.WORKER, Role.ADMIN])
def test_a_client_of_http_apis_with_an_edges_name_is_not_that_edge_and_hears_what_is_for_all_alone(
    run, realm, devices, edge_broker, role: Role
) -> None:
    client = realm.enrol(CBD, role)

    async def main() -> None:
        async with (
            linked(realm, edge_broker, CBD, realm.identity(CBD), *topics.UPLINKS) as edge,
            linked(realm, edge_broker, CBD, devices[WATCH], topics.device_down(WATCH), topics.POLICY) as watch,
            linked(realm, edge_broker, CBD, client, "#", name="acme.cbd") as other,
        ):
            for topic in (topics.device_down(WATCH), topics.device_up(WATCH), topics.beacon(CBD), topics.POLICY):
                await other.publish(topic, b"forged")
            await watch.publish(topics.device_up(WATCH), b"private")
            assert (await edge.next()).payload == b"private"
            await edge.publish(topics.device_down(WATCH), MARK)
            assert b"forged" not in await until_mark(watch)
            await edge.publish(topics.POLICY, MARK)
            assert b"private" not in await until_mark(other)
            assert edge.states == watch.states == other.states == [True]

    run(main())


def test_on_the_backbone_an_edge_is_heard_as_itself_alone(run, realm, devices, backbone) -> None:
    docks, hub = realm.enrol(DOCKS, Role.EDGE), realm.enrol(HUB, Role.EDGE)
    inbox = topics.edge_inbox(DOCKS)
    forbidden = (topics.cloud_in(DOCKS), topics.edge_in(DOCKS, CLOUD), topics.beacon(DOCKS), topics.POLICY)

    async def main() -> None:
        async with (
            linked(realm, backbone, CLOUD, realm.identity(CLOUD), topics.TO_CLOUD, topics.BEACONS) as cloud,
            linked(realm, backbone, CLOUD, docks, inbox, topics.POLICY) as edge,
            linked(realm, backbone, CLOUD, hub, "#") as other,
            linked(realm, backbone, CLOUD, devices[WATCH], "#") as watch,
        ):
            for liar in (other, watch):
                for topic in forbidden:
                    await liar.publish(topic, b"forged")
            await edge.publish(topics.cloud_in(DOCKS), b"private")
            assert [(await cloud.next()).payload] == [b"private"]
            await other.publish(topics.cloud_in(HUB), MARK)
            assert await until_mark(cloud) == []
            await other.publish(topics.edge_in(DOCKS, HUB), b"from the hub")
            assert (await edge.next()).payload == b"from the hub"
            await cloud.publish(topics.edge_in(DOCKS, CLOUD), b"private")
            assert (await edge.next()).payload == b"private"
            await cloud.publish(topics.POLICY, MARK)
            assert await until_mark(other) == []
            assert await until_mark(watch) == []

    run(main())


def test_a_large_message_on_a_slow_line_passes_both_ways_and_costs_no_connection(
    run, realm, devices, edge_broker
) -> None:
    async def main() -> None:
        async with slow_line(edge_broker.port) as slow:
            url = slow.replace("mqtt:", "mqtts:")
            edge_caller, watch_caller = realm.caller(CBD, realm.identity(CBD)), realm.caller(CBD, devices[WATCH])
            async with (
                Peer(url, "edge", *topics.UPLINKS, caller=edge_caller, keepalive_s=1) as edge,
                Peer(url, "watch", topics.device_down(WATCH), caller=watch_caller, keepalive_s=1) as watch,
            ):
                await watch.publish(topics.device_segments(WATCH), bytes(LARGE))
                await edge.publish(topics.device_down(WATCH), bytes(LARGE))
                assert len((await edge.next()).payload) == len((await watch.next()).payload) == LARGE
                assert watch.states == edge.states == [True]

    run(main())


def test_the_largest_message_passes_and_a_larger_one_does_not(run, realm, devices, edge_broker) -> None:
    async def main() -> None:
        async with (
            linked(realm, edge_broker, CBD, realm.identity(CBD), *topics.UPLINKS) as edge,
            linked(realm, edge_broker, CBD, devices[WATCH], packet_bytes_max=2 * MESSAGE_BYTES_MAX) as watch,
        ):
            await watch.publish(topics.device_segments(WATCH), bytes(MESSAGE_BYTES_MAX))
            assert len((await edge.next()).payload) == MESSAGE_BYTES_MAX
            await watch.publish(topics.device_segments(WATCH), bytes(MESSAGE_BYTES_MAX + (1 << 17)))
            await watch.wait(False)
            await watch.wait(True)
            await watch.publish(topics.device_up(WATCH), MARK)
            assert await until_mark(edge) == []

    run(main())


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_that_comes_back_is_found_again(run, realm, devices, edge_broker, end: str) -> None:
    async def main() -> None:
        async with (
            linked(realm, edge_broker, CBD, realm.identity(CBD), *topics.UPLINKS) as edge,
            linked(realm, edge_broker, CBD, devices[WATCH]) as watch,
        ):
            getattr(edge_broker, end)()
            await asyncio.gather(edge.wait(False), watch.wait(False))
            edge_broker.start()
            await asyncio.gather(edge.wait(True), watch.wait(True))
            await passed(edge, watch, WATCH)

    run(main())


def test_a_device_roams_with_every_connection_verified(deploy) -> None:
    deployment = deploy(tls=True)
    device = deployment.device("watch-0", EDGES[0], "--seed", "1", "--move-share", "0.5")
    deployment.start()
    device.start()
    deployment.until(device.is_at_work, "the device to record")
    deployment.until(lambda: device.whereabouts().epoch > MOVES, "the device to roam")
    deployment.halt()
    verdict.settle(deployment, 60.0)
    assert verdict.check(deployment) > 10
    assert set(connections(deployment)) == {dotted(place.name) for place in deployment.places}
    assert device.stop() == 0


def connections(deployment: Deployment) -> Sequence[str]:
    """Return the names under which clients connected to the brokers."""
    found = [line for server in deployment.servers for line in server.broker.log if "New client connected" in line]
    return [line.split(" as ")[1].split(" ")[0] for line in found]


def linked(
    realm: Realm, broker: Mosquitto, meant: NodeName, identity: Path | None, *filters: str, **options: Any
) -> Peer:
    """A link to the broker of ``meant``; unless its client id is given as ``name``, that is its own name."""
    client_id = options.pop("name", "") or dotted(Identity.load(identity).name if identity else WATCH)
    return Peer(broker.url, client_id, *filters, caller=realm.caller(meant, identity), **options)


async def refused(link: Peer, code: str) -> None:
    """Return when the link was refused with a code; it must not have been let in."""
    link.start()
    try:
        async with asyncio.timeout(10):
            while not link.link.counts.get(code):
                await asyncio.sleep(0.01)  # the link tells nobody, but counts
    finally:
        await link.stop()
    assert link.states == []


async def passed(edge: Peer, device: Peer, name: NodeName) -> None:
    """What a device says reaches its edge."""
    await device.publish(topics.device_up(name), MARK)
    await until_mark(edge)


async def until_mark(peer: Peer) -> Sequence[bytes]:
    """Return what a peer received before the mark."""
    found: list[bytes] = []
    while (payload := (await peer.next()).payload) != MARK:
        found.append(payload)
    return found


def revocation_list(authority: Authority, *identities: Path) -> bytes:
    """An authority's list of revoked identities in the form for brokers."""
    now = system_clock()
    entries = [revoked_entry(Identity.load(each).certificate, now) for each in identities]
    listed = RevocationList(authority.operator, 0, now.wall_ms, ()).extended(entries, now)
    return crl(listed, read_authority(authority.certificate), authority.key)
