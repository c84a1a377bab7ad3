"""The link over TLS: to whom it speaks, and that nothing is left lying between OpenSSL and the event loop."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, LinkError, PeerRefused
from datasync.domain.ids import NodeName, node_name
from datasync.nodes.shell import system_clock
from datasync.security.identity import Identity, Role
from datasync.security.revocation import RevocationList, revoked
from datasync.security.tls import Caller, calling, listening
from datasync.security.trust import Authority, Trust
from datasync.transport.embedded import EmbeddedBroker
from datasync.transport.mqtt import MqttLink

CBD, DOCKS, WATCH = node_name("acme/cbd"), node_name("acme/docks"), node_name("watch-7")
PUBLISH, PINGRESP = 3, 13
SMALL_PACKETS = 3_000
LARGE = 6_000_000


class Operator:
    """An authority, the folders of what it enrolled, and how its nodes call each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create("acme", system_clock())
        self.trust = Trust([self.authority.certificate])

    def enrol(self, name: NodeName, role: Role, *, days: int = 30, now: Instant | None = None) -> Path:
        folder = self.folder / f"{role.value}-{name.replace('/', '.')}"
        self.authority.enrol(name, role, now=now or system_clock(), days=days).save(folder)
        return folder

    def caller(self, name: NodeName, identity: Path | None = None) -> Caller:
        return Caller(name, self.trust, calling(self.trust, identity), system_clock)


@pytest.fixture
def acme(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "acme")


@pytest.mark.parametrize("role", [Role.BROKER, Role.EDGE])
def test_the_node_that_was_meant_or_its_broker_is_spoken_to(run, peer, scripted_broker, acme, role: Role) -> None:
    async def main() -> None:
        async with scripted_broker(listening(acme.enrol(CBD, role), acme.trust)) as broker:
            link = peer(broker.url, "watch", "dn", caller=acme.caller(CBD, acme.enrol(WATCH, Role.DEVICE)))
            link.start()
            wire = await broker.wire()
            await wire.accept(1)
            await link.up.wait()
            await link.stop()

    run(main())


@pytest.mark.parametrize(
    ("name", "role", "why"),
    [
        (DOCKS, Role.BROKER, "broker acme/docks answered"),
        (DOCKS, Role.EDGE, "edge acme/docks answered"),
        (WATCH, Role.DEVICE, "device watch-7 answered"),
        (CBD, Role.POLICY, "policy acme/cbd answered"),
    ],
)
def test_another_node_is_not_spoken_to_whoever_vouches_for_it(
    run, peer, scripted_broker, acme, name: NodeName, role: Role, why: str, caplog
) -> None:
    async def main() -> None:
        async with scripted_broker(listening(acme.enrol(name, role))) as broker:
            link = peer(broker.url, "watch", caller=acme.caller(CBD))
            link.start()
            assert await (await broker.wire()).ended() == b""
            await link.trouble(PeerRefused.code)
            await link.stop()
            assert not link.states

    run(main())
    assert why in caplog.text


@pytest.mark.parametrize("mistake", ["another authority", "expired"])
def test_a_certificate_that_does_not_hold_is_refused_before_anything_is_said(
    run, peer, scripted_broker, acme, tmp_path: Path, mistake: str, caplog
) -> None:
    issuer = Operator(tmp_path / "impostor") if mistake == "another authority" else acme
    long_ago = Instant(system_clock().wall_ms - 10 * 86_400_000, 0)
    identity = issuer.enrol(CBD, Role.BROKER, days=1, now=long_ago if mistake == "expired" else None)

    async def main() -> None:
        async with scripted_broker(listening(identity)) as broker:
            link = peer(broker.url, "watch", caller=acme.caller(CBD))
            link.start()
            await link.trouble(PeerRefused.code)
            await link.stop()

    run(main())
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_a_broker_whose_certificate_was_revoked_is_not_spoken_to(run, peer, scripted_broker, acme, caplog) -> None:
    identity, now = acme.enrol(CBD, Role.BROKER), system_clock()
    listed = RevocationList("acme", 0, 0, ()).extended([revoked(Identity.load(identity).certificate, now)], now)
    acme.trust.revoke(acme.trust.authority(acme.authority.certificate), listed)

    async def main() -> None:
        async with scripted_broker(listening(identity)) as broker:
            link = peer(broker.url, "watch", caller=acme.caller(CBD))
            link.start()
            assert await (await broker.wire()).ended() == b""
            await link.trouble(PeerRefused.code)
            await link.stop()

    run(main())
    assert "acme has revoked the certificate" in caplog.text


def test_the_embedded_broker_lets_in_who_has_a_certificate_of_a_trusted_authority(
    run, peer, acme, tmp_path: Path
) -> None:
    watch, stranger = acme.enrol(WATCH, Role.DEVICE), Operator(tmp_path / "stranger").enrol(WATCH, Role.DEVICE)

    async def main() -> None:
        async with EmbeddedBroker(context=listening(acme.enrol(CBD, Role.EDGE), acme.trust)) as broker:
            async with peer(broker.url, "watch", "seg", caller=acme.caller(CBD, watch)) as link:
                await link.publish("seg", bytes(LARGE))
                assert (await link.next()).payload == bytes(LARGE)
            for identity in (stranger, None):
                refused = peer(broker.url, "watch", caller=acme.caller(CBD, identity))
                refused.start()
                await refused.trouble(LinkError.code)
                await refused.stop()
                assert refused.states == []

    run(main())


def test_packets_of_one_record_are_all_handled(run, peer, scripted_broker, acme) -> None:
    """The kernel says once that there is something to read, for a record of hundreds of packets."""

    async def main() -> None:
        async with scripted_broker(listening(acme.enrol(CBD, Role.BROKER))) as broker:
            link = peer(broker.url, "edge", "seg", caller=acme.caller(CBD))
            link.start()
            wire = await broker.wire()
            await wire.accept(1)
            wire.raw(b"".join(_packets(SMALL_PACKETS)))
            assert [int((await link.next()).payload) for _ in range(SMALL_PACKETS)] == list(range(SMALL_PACKETS))
            await link.stop()

    run(main())


def test_a_large_packet_passes_in_both_directions_at_once_while_the_broker_reads_slowly(
    run, peer, scripted_broker, acme
) -> None:
    async def main() -> None:
        async with scripted_broker(listening(acme.enrol(CBD, Role.BROKER))) as broker:
            link = peer(broker.url, "edge", "seg", caller=acme.caller(CBD), acknowledge=False)
            link.start()
            wire = await broker.wire()
            await wire.accept(1)
            await link.up.wait()
            payload = bytes(range(256)) * (LARGE // 256)
            assert await link.publish("up", payload)
            assert await link.publish("up", b"small and behind it")
            wire.publish(1, b"seg", payload[::-1])
            assert (await link.next()).payload == payload[::-1]
            assert [(await wire.published())[1] for _ in range(2)] == [payload, b"small and behind it"]
            await link.stop()

    run(main())


@pytest.mark.parametrize(("url", "named"), [("mqtts://127.0.0.1", False), ("mqtt://127.0.0.1", True)])
def test_tls_needs_somebody_who_is_meant_and_somebody_who_is_meant_needs_tls(acme, url: str, named: bool) -> None:
    with pytest.raises(ConfigError, match="mqtts://host:port"):
        MqttLink(url, "watch", [], caller=acme.caller(CBD) if named else None)


def _packets(count: int) -> Iterable[bytes]:
    for number in range(count):
        text = str(number).encode()
        body = b"\0\3seg" + (number + 1).to_bytes(2, "big") + text
        yield bytes([PUBLISH << 4 | 2, len(body)]) + body
        yield bytes([PINGRESP << 4, 0])  # what the link counts as no packet must not end its reading
