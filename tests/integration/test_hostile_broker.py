"""Brokers that lie: what they drop comes again, what they make up is refused, and nothing of it is left."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from datasync.domain.ids import node_name
from datasync.nodes.shell import system_clock
from datasync.policy.loading import load
from datasync.protocol import bundle, envelope, revocations, topics
from datasync.protocol.messages import Advise, Attached, Beacon, Ready, Refused, Rejected
from datasync.security.identity import Role
from datasync.security.revocation import RevocationList, revoked
from datasync.security.trust import Authority
from tests.integration import rows, verdict
from tests.integration.deployment import CBD, CLOUD, DOCKS, Deployment
from tests.integration.hostile import RETAIN, HostileBroker, Mischief, Publication

HOSTILE_S = 6.0
SETTLE_S_MAX = 90.0
NONCE, DIGEST = bytes(16), "0" * 64


def forgeries(deployment: Deployment) -> list[Publication]:
    """Commands that a hostile broker may want obeyed, signed by an authority of its own or by an edge that helps it."""
    stranger = Authority.create("acme", system_clock())
    key = stranger.enrol(node_name("acme/policy"), Role.POLICY, now=system_clock())
    edge = stranger.enrol(CBD, Role.EDGE, now=system_clock())
    accomplice = deployment.authority.enrol(node_name("acme/mill"), Role.EDGE, now=system_clock())
    now_ms = system_clock().wall_ms
    down, up = topics.device_down(node_name("watch-0")), topics.device_up(node_name("watch-0"))
    victim = deployment.edges[CBD].identity.certificate
    made = RevocationList("acme", 9, now_ms, ()).extended([revoked(victim, system_clock())], system_clock())
    next_policy = load(rows.POLICY.replace(b"revision: 1", b"revision: 9"))
    ready = Ready(
        handover="0" * 32, incarnation=0, epoch=1, target=DOCKS, nonce=NONCE, root=DIGEST, certificate=edge.certificate
    )
    commands = [
        Attached(incarnation=0, epoch=1, mode="full", missing=[], has={}, safe={}, signed={}, revision=1),
        Rejected(of="upload", code="NOT_ATTACHED", detail="", incarnation=0, epoch=1),
        Refused(handover=None, device=node_name("watch-0"), reason=""),
        ready,
    ]
    beacon = Beacon(name=CBD, nonce=NONCE, load=0.0, revision=9, stamp=now_ms << 17)
    advise = Advise(device=node_name("watch-0"), incarnation=0, epoch=1, target=DOCKS, stamp=now_ms << 16)
    inbox = topics.edge_in(CBD, CLOUD)
    payloads = [
        (topics.POLICY, bundle.sign(key, next_policy)),
        (topics.POLICY, bundle.sign(accomplice, next_policy)),
        (topics.beacon(CBD), envelope.sign(edge, topics.beacon(CBD), beacon.encode())),
        (topics.beacon(CBD), envelope.sign(accomplice, topics.beacon(CBD), beacon.encode())),
        (topics.revoked("acme"), revocations.sign(stranger, made)),
        (inbox, envelope.sign(accomplice, inbox, advise.encode())),
        (up, b"\xd2" + b"\x81" * 100_000),
        (down, b"\xd2\x9a\x80\x00\x00\x00"),
        *((down, envelope.sign(signer, down, said.encode())) for said in commands for signer in (edge, accomplice)),
    ]
    return [Publication(topic, payload, RETAIN, 0) for topic, payload in payloads]


@dataclass(frozen=True, slots=True)
class Siege:
    """A deployment of which one edge reaches its devices and the cloud through hostile brokers alone."""

    deployment: Deployment
    brokers: tuple[HostileBroker, ...]


@pytest.fixture
def siege(deploy) -> Iterator[Siege]:
    deployment = deploy()
    forged = forgeries(deployment)
    cbd = deployment.edges[CBD]
    with ExitStack() as stack:
        proxied = [cbd.broker, deployment.cloud.broker]
        brokers = tuple(
            stack.enter_context(HostileBroker(broker.port, Mischief(seed, forged)).running())
            for seed, broker in enumerate(proxied)
        )
        config = cbd.config.read_text()
        cbd.config.write_text(config.replace(deployment.cloud.broker.url, brokers[1].url))
        deployment.start()
        for number in range(2):
            device = deployment.device(f"watch-{number}", CBD, "--move-share", "0.02")
            text = device.config.read_text()
            device.config.write_text(text.replace(cbd.broker.url, brokers[0].url))
            device.start()
            deployment.until(device.is_at_work, f"{device.name} to record")
        yield Siege(deployment, brokers)


def test_after_brokers_lied_in_every_way_everything_is_where_it_belongs_once(siege: Siege) -> None:
    deployment = siege.deployment
    for broker in siege.brokers:
        broker.is_hostile = True
    deadline = time.monotonic() + HOSTILE_S
    deployment.until(lambda: time.monotonic() > deadline, "the brokers to have lied", 2 * HOSTILE_S)
    for broker in siege.brokers:
        broker.relent()
        assert set(broker.mischief.done) >= {"drop", "replay", "reorder", "swap", "flip", "inject"}
    deployment.halt()
    verdict.settle(deployment, SETTLE_S_MAX)
    assert verdict.check(deployment) > 0
    edge = deployment.edges[CBD]
    refused = {code: edge.refused(code) for code in ("SIGNATURE_INVALID", "MESSAGE_INVALID", "SIGNER_UNTRUSTED")}
    assert all(refused.values()), refused
    for server in deployment.servers:
        assert server.metric("datasync_failures_total") == 0
        node = server.admin.get("v1", "admin", "node")
        assert (node["policy_revision"], node["revocations"]) == (1, {})
