"""Hostile messages to running nodes: each is refused with its code, changes nothing, and stops nobody."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from datasync.domain.ids import node_name
from datasync.domain.limits import EPOCH_LEAP_MAX, MESSAGE_BYTES_MAX
from datasync.domain.tiers import Tier
from datasync.nodes.shell import system_clock
from datasync.policy.loading import load
from datasync.protocol import bundle, cbor, envelope, topics
from datasync.protocol.messages import Active, Advise, Delta, Forward, PolicyBundle, SegmentsAck
from datasync.security.identity import Role
from datasync.security.trust import Authority, Trust
from datasync.sync.capture import recorded
from tests.integration import rows, verdict
from tests.integration.deployment import CBD, DOCKS, Deployment, Server, Wanderer
from tests.integration.wire import Mallory, Packet, Tap, envelope_body, held, made_segment, signed_as

SETTLE_S_MAX = 90.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A deployment at rest, a tap at each broker with what it heard till then, and a device that may say anything."""

    deployment: Deployment
    taps: dict[str, Tap]
    mallory: Mallory
    history: dict[str, tuple[Packet, ...]]

    @property
    def edge(self) -> Server:
        return self.deployment.edges[CBD]

    @property
    def tap(self) -> Tap:
        return self.taps[CBD]

    @property
    def backbone(self) -> Tap:
        return self.taps[self.deployment.cloud.name]

    def said(self, broker: str, topic: str) -> list[bytes]:
        """Return what honest nodes said at a broker on a topic."""
        return [packet.payload for packet in self.history[broker] if packet.topic == topic]

    def refused(self, server: Server, code: str, say: Callable[[], None], number: int = 1) -> None:
        """Say something, and see the server refuse it with the code, and change nothing else."""
        before, kept = server.refused(code), held(server)
        say()
        self.deployment.until(lambda: server.refused(code) >= before + number, f"{number} times {code}")
        assert server.refused(code) == before + number
        assert held(server) == kept
        assert server.metric("datasync_failures_total") == 0
        assert server.not_ready() == set()


@pytest.fixture(scope="module")
def shared_stage(shared_deployment: Deployment) -> Iterator[Stage]:
    deployment = shared_deployment
    with ExitStack() as stack:
        taps = {server.name: stack.enter_context(Tap(server.broker)) for server in deployment.servers}
        staying, moving = (deployment.device(f"watch-{number}") for number in range(2))
        for device in (staying, moving):
            device.start()
            deployment.until(device.is_at_work, f"{device.name} to record")
        move(deployment, moving)
        deployment.halt()
        verdict.settle(deployment, SETTLE_S_MAX)
        edge = deployment.edges[CBD]
        mallory_identity = deployment.authority.enrol(node_name("mallory"), Role.DEVICE, now=system_clock())
        mallory = Mallory(mallory_identity, Trust([deployment.authority.certificate]), edge, taps[CBD])
        taps[CBD].say(mallory.up, mallory.attach(1))
        deployment.until(lambda: edge.account(mallory.name).registered, "mallory to be attached")
        own = mallory_identity.stream_key("trips", Tier.EDGE_PRIVATE, 0)
        first = made_segment(own, Tier.EDGE_PRIVATE, 0, 10)
        taps[CBD].say(mallory.seg, mallory.upload(first, checkpoints=[signed_as(own, first)]))
        deployment.until(lambda: len(verdict.shown(edge, mallory.name)) == 1, "mallory's upload")
        yield Stage(deployment, taps, mallory, {name: tuple(tap.heard) for name, tap in taps.items()})


def move(deployment: Deployment, device: Wanderer) -> None:
    """Have the administrator move a device to the other edge, through the cloud."""
    deployment.until(lambda: device.whereabouts().state == "attached", f"{device.name} to attach")
    deployment.until(lambda: deployment.edges[CBD].account(device.name).registered, "its registration")
    deployment.cloud.admin.post("v1", "admin", "handovers", document={"device": device.name, "target": DOCKS})
    deployment.until(lambda: device.whereabouts().edge == DOCKS, "the device to move")


@pytest.fixture
def stage(deployment: Deployment, shared_stage: Stage) -> Iterator[Stage]:
    yield shared_stage
    for device in deployment.devices:
        device.check_alive()


def test_what_is_no_message_is_refused(stage) -> None:
    chance = random.Random(0)
    real = stage.said(CBD, topics.device_up("watch-0"))[-1]
    broken = [b"", b"\x00", chance.randbytes(1_000), b"\xd2" + chance.randbytes(200), b"\x9f" * 5_000]
    broken += [real[:length] for length in range(1, len(real), len(real) // 12)]
    broken += [real + b"\x00"]

    def say() -> None:
        for payload in broken:
            stage.tap.say(topics.device_up("watch-0"), payload)

    stage.refused(stage.edge, "MESSAGE_INVALID", say, len(broken))


def test_a_message_of_which_a_byte_was_changed_is_refused(stage) -> None:
    topic, real = topics.device_up("watch-0"), stage.said(CBD, topics.device_up("watch-0"))[-1]
    changed = real[:-1] + bytes([real[-1] ^ 1])
    stage.refused(stage.edge, "SIGNATURE_INVALID", lambda: stage.tap.say(topic, changed))


def test_a_message_that_is_too_large_is_refused(stage) -> None:
    large = bytes(3 << 20)
    stage.refused(stage.edge, "MESSAGE_TOO_LARGE", lambda: stage.tap.say(topics.device_up("watch-0"), large))


def test_a_packet_that_is_larger_than_any_message_is_dropped_and_counted(stage) -> None:
    def counted() -> float:
        return stage.edge.metric("datasync_link_troubles_total", code="MESSAGE_TOO_LARGE")

    before, kept = counted(), held(stage.edge)
    stage.tap.say(topics.device_segments("watch-0"), bytes(MESSAGE_BYTES_MAX + 1))
    stage.deployment.until(lambda: counted() == before + 1, "the packet to be counted")
    assert held(stage.edge) == kept


def test_a_topic_that_is_none_of_ours_is_refused(stage) -> None:
    real = stage.said(CBD, topics.device_up("watch-0"))[-1]
    stage.refused(stage.edge, "MESSAGE_INVALID", lambda: stage.tap.say("ds/1/d/WATCH/up", real))


def test_another_devices_topic_is_closed_to_a_device(stage) -> None:
    theirs = topics.device_up("watch-0")
    signed_for_it = stage.mallory.signed(hint(), theirs)
    stage.refused(stage.edge, "SIGNER_FOREIGN", lambda: stage.tap.say(theirs, signed_for_it))
    signed_for_own = stage.mallory.signed(hint())
    stage.refused(stage.edge, "SIGNATURE_INVALID", lambda: stage.tap.say(theirs, signed_for_own))


def hint() -> Delta:
    """Return a message that only an edge may send."""
    device = node_name("watch-0")
    return Delta(
        device=device,
        incarnation=0,
        epoch=1,
        streams=[],
        derived=[],
        segments=[],
        checkpoints=[],
        consents=[],
        hot=True,
        complete=True,
    )


def test_a_device_may_not_speak_as_an_edge(stage) -> None:
    stage.refused(stage.edge, "SIGNER_FOREIGN", lambda: stage.tap.say(stage.mallory.up, stage.mallory.signed(hint())))
    topic = topics.edge_in(CBD, DOCKS)
    as_docks = stage.mallory.signed(hint(), topic)
    stage.refused(stage.edge, "SIGNER_FOREIGN", lambda: stage.backbone.say(topic, as_docks))


def test_an_edge_may_not_speak_as_the_cloud(stage) -> None:
    docks = stage.deployment.edges[DOCKS].identity
    policy = PolicyBundle(revision=9, digest="0" * 64, source=rows.POLICY.replace(b"revision: 1", b"revision: 9"))
    signed = envelope.sign(docks, topics.POLICY, policy.encode())
    stage.refused(stage.edge, "SIGNER_FOREIGN", lambda: stage.backbone.say(topics.POLICY, signed))
    topic = topics.edge_in(CBD, DOCKS)
    advise = envelope.sign(
        docks, topic, Advise(device=node_name("watch-0"), incarnation=0, epoch=1, target=DOCKS, stamp=1).encode()
    )
    stage.refused(stage.edge, "SIGNER_FOREIGN", lambda: stage.backbone.say(topic, advise))


@pytest.mark.parametrize("operator", ["acme", "evil"])
def test_a_strangers_own_authority_proves_nothing(stage, operator: str) -> None:
    stranger = Authority.create(operator, system_clock())
    device = stranger.enrol(node_name("watch-0"), Role.DEVICE, now=system_clock())
    impostor = Mallory(device, Trust([stage.deployment.authority.certificate]), stage.edge, stage.tap)
    stage.refused(stage.edge, "SIGNER_UNTRUSTED", lambda: stage.tap.say(impostor.up, impostor.attach(99)))
    edge = stranger.enrol(node_name(f"{operator}/docks"), Role.EDGE, now=system_clock())
    topic = topics.cloud_in(edge.name)
    active = envelope.sign(edge, topic, Active(token=b"", full=True).encode())
    stage.refused(stage.deployment.cloud, "SIGNER_UNTRUSTED", lambda: stage.backbone.say(topic, active))


def test_a_body_that_is_no_message_is_refused_though_well_signed(stage) -> None:
    nested: object = 0
    for _ in range(40):
        nested = [nested]
    bodies = [
        b"",
        b"\xff",
        cbor.dumps({"t": "nonsense"}),
        cbor.dumps({"t": "hint"}),
        cbor.dumps({"t": "hint", "epoch": "1", "candidates": [DOCKS]}),
        cbor.dumps({"t": "hint", "epoch": 1, "candidates": [DOCKS], "more": 1}),
        cbor.dumps({"t": "hint", "epoch": -1, "candidates": [DOCKS]}),
        cbor.dumps({"t": "hint", "epoch": 1, "candidates": []}),
        cbor.dumps([1, 2, 3]),
        b"\x81" * 40 + b"\x00",
    ]

    def say() -> None:
        for body in bodies:
            stage.tap.say(stage.mallory.up, envelope.sign(stage.mallory.identity, stage.mallory.up, body))

    stage.refused(stage.edge, "MESSAGE_INVALID", say, len(bodies))


# --- attaching


def test_an_attach_that_answers_no_challenge_is_refused(stage) -> None:
    attach = stage.mallory.attach(2, nonce=bytes(16))
    stage.refused(stage.edge, "NONCE_STALE", lambda: stage.tap.say(stage.mallory.up, attach))


def test_an_attach_far_beyond_the_known_epoch_is_refused(stage) -> None:
    attach = stage.mallory.attach(EPOCH_LEAP_MAX + 2)
    stage.refused(stage.edge, "EPOCH_LEAP", lambda: stage.tap.say(stage.mallory.up, attach))


def test_an_attach_that_names_another_edge_is_refused(stage) -> None:
    attach = stage.mallory.attach(2, edge=DOCKS)
    stage.refused(stage.edge, "HANDOVER_INVALID", lambda: stage.tap.say(stage.mallory.up, attach))


def test_an_old_attach_shown_again_after_the_device_moved_is_refused(stage) -> None:
    topic = topics.device_up("watch-1")
    old = next(said for said in stage.said(CBD, topic) if is_attach(said))
    stage.refused(stage.edge, "EPOCH_STALE", lambda: stage.tap.say(topic, old))


def is_attach(said: bytes) -> bool:
    body = cbor.loads(envelope_body(said))
    return isinstance(body, dict) and body["t"] == "attach"


def test_the_registrar_takes_no_older_token(stage) -> None:
    topic = topics.cloud_in(CBD)
    old = next(said for said in stage.said(stage.deployment.cloud.name, topic) if is_registration(said, "watch-1"))
    stage.refused(stage.deployment.cloud, "EPOCH_STALE", lambda: stage.backbone.say(topic, old))


def is_registration(said: bytes, device: str) -> bool:
    """Whether this is an edge's word that it serves the device."""
    body = envelope_body(said)
    return body[:1] != b"\xd0" and cbor.loads(body)["t"] == "active" and device.encode() in body


def test_an_edge_cannot_show_a_token_that_is_not_for_it(stage) -> None:
    token = cbor.loads(envelope_body(stage.said(CBD, topics.device_up("watch-0"))[-1]))["token"]
    docks, topic = stage.deployment.edges[DOCKS].identity, topics.cloud_in(DOCKS)
    stolen = envelope.sign(docks, topic, Active(token=token, full=True).encode())
    stage.refused(stage.deployment.cloud, "SIGNER_FOREIGN", lambda: stage.backbone.say(topic, stolen))


# --- segments


def test_an_upload_that_is_not_sealed_is_refused(stage) -> None:
    mallory = stage.mallory
    upload = cbor.dumps({"t": "upload", "incarnation": 0, "epoch": 1, "segments": []})
    stage.refused(
        stage.edge,
        "MESSAGE_INVALID",
        lambda: stage.tap.say(mallory.seg, envelope.sign(mallory.identity, mallory.seg, upload)),
    )


def test_an_upload_that_is_sealed_to_another_node_is_refused(stage) -> None:
    trust = Trust([stage.deployment.authority.certificate])
    docks = trust.verify(stage.deployment.edges[DOCKS].identity.certificate, system_clock())
    upload = stage.mallory.upload(receiver=docks)
    stage.refused(stage.edge, "UNDECIPHERABLE", lambda: stage.tap.say(stage.mallory.seg, upload))


def test_an_upload_under_another_epoch_is_refused(stage) -> None:
    stage.refused(stage.edge, "EPOCH_STALE", lambda: stage.tap.say(stage.mallory.seg, stage.mallory.upload(epoch=0)))
    stage.refused(stage.edge, "NOT_ATTACHED", lambda: stage.tap.say(stage.mallory.seg, stage.mallory.upload(epoch=7)))


BAD_SEGMENTS = {
    "SEGMENT_INVALID": lambda key, other: b"no segment",
    "TIER_FORBIDDEN": lambda key, other: made_segment(key(Tier.USER_PRIVATE), Tier.USER_PRIVATE, 0, 5),
    "STREAM_FOREIGN": lambda key, other: made_segment(other(Tier.EDGE_PRIVATE), Tier.EDGE_PRIVATE, 90_000, 5),
    "SEGMENT_CONFLICT": lambda key, other: made_segment(key(Tier.EDGE_PRIVATE), Tier.EDGE_PRIVATE, 5, 10),
}


@pytest.mark.parametrize("code", BAD_SEGMENTS)
def test_a_bad_segment_is_refused_with_all_that_came_with_it(stage, code: str) -> None:
    def key(tier: Tier):
        return stage.mallory.identity.stream_key("trips", tier, 0)

    def other(tier: Tier):
        return stage.deployment.devices[0].identity.stream_key("trips", tier, 0)

    good = made_segment(key(Tier.EDGE_PRIVATE), Tier.EDGE_PRIVATE, 500, 5)
    upload = stage.mallory.upload(good, BAD_SEGMENTS[code](key, other))
    stage.refused(stage.edge, code, lambda: stage.tap.say(stage.mallory.seg, upload))


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_the_cloud_takes_nothing_but_what_is_public_and_signed(stage) -> None:
    topic, cbd = topics.cloud_in(CBD), stage.edge.identity
    trust = Trust([stage.deployment.authority.certificate])
    cloud = trust.verify(stage.deployment.cloud.identity.certificate, system_clock())
    private, public = (stage.mallory.identity.stream_key("trips", tier, 0) for tier in (Tier.EDGE_PRIVATE, Tier.PUBLIC))
    held_back = made_segment(private, Tier.EDGE_PRIVATE, 0, 5)
    unsigned = made_segment(public, Tier.PUBLIC, 0, 5)
    other = made_segment(public, Tier.PUBLIC, 5, 5)
    for code, blob, signature in (
        ("TIER_FORBIDDEN", held_back, signed_as(private, held_back)),
        ("SIGNATURE_INVALID", unsigned, signed_as(public, other)),
        ("SIGNATURE_INVALID", unsigned, signed_as(private, unsigned)),
        ("SIGNATURE_INVALID", unsigned, flipped(signed_as(public, unsigned))),
    ):
        forward = Forward(segments=[blob], checkpoints=[signature], consents=[])
        sealed = envelope.Sealer(cbd, os.urandom).seal(cloud, topic, forward.encode())
        said = envelope.sign(cbd, topic, sealed)
        stage.refused(stage.deployment.cloud, code, lambda said=said: stage.backbone.say(topic, said))


def test_an_acknowledgement_that_nobody_waits_for_changes_nothing(stage) -> None:
    docks, topic = stage.deployment.edges[DOCKS].identity, topics.edge_in(CBD, DOCKS)
    ack = SegmentsAck(device=node_name("watch-0"), incarnation=0, epoch=5, has={})
    kept, received = held(stage.edge), stage.edge.metric("datasync_events_total", kind="received", what="segments-ack")
    stage.backbone.say(topic, envelope.sign(docks, topic, ack.encode()))
    stage.deployment.until(
        lambda: stage.edge.metric("datasync_events_total", kind="received", what="segments-ack") == received + 1,
        "the acknowledgement",
    )
    assert held(stage.edge) == kept


# --- replay


def test_everything_that_was_ever_said_may_be_said_again_and_changes_nothing(stage) -> None:
    deployment = stage.deployment
    places = [*deployment.servers, *deployment.devices]
    before = {place.name: held(place) for place in places}
    stale = {server.name: server.refused("EPOCH_STALE") for server in deployment.servers}
    duplicates = stage.edge.metric("datasync_events_total", kind="stored", what="duplicates")
    for broker, packets in stage.history.items():
        for packet in packets:
            if not packet.topic.endswith("beacon"):
                stage.taps[broker].say(packet.topic, packet.payload)
    for server in deployment.servers:  # brokers keep the order: what was said before this has been heard after it
        marker = f"ds/1/{server.name}"
        for topic, tap in markers(stage, server):
            seen = server.refused("MESSAGE_INVALID")
            tap.say(topic, marker.encode())
            deployment.until(lambda server=server, seen=seen: server.refused("MESSAGE_INVALID") > seen, "the marker")
    verdict.settle(deployment, SETTLE_S_MAX)
    assert stage.edge.metric("datasync_events_total", kind="stored", what="duplicates") > duplicates
    assert any(server.refused("EPOCH_STALE") > stale[server.name] for server in deployment.servers)
    for place in places:
        assert held(place) == before[place.name], place.name
    assert all(server.metric("datasync_failures_total") == 0 for server in deployment.servers)


def markers(stage: Stage, server: Server) -> list[tuple[str, Tap]]:
    if server is stage.deployment.cloud:
        return [(topics.cloud_in(CBD), stage.backbone)]
    return [(topics.device_up("watch-0"), stage.taps[server.name]), (topics.edge_in(server.name, CBD), stage.backbone)]


OTHER = rows.POLICY.replace(b"\nid: ", b"\nid: not-")
NEXT = rows.POLICY.replace(b"revision: 1", b"revision: 2")
BAD_POLICIES = {
    "SIGNER_FOREIGN": lambda stage: bundle.sign(stage.deployment.cloud.identity, load(NEXT)),
    "POLICY_REVISION_CONFLICT": lambda stage: bundle.sign(stage.deployment.policy_key, load(OTHER)),
    "POLICY_DIGEST_MISMATCH": lambda stage: claimed(stage, NEXT),
    "POLICY_INVALID": lambda stage: claimed(stage, NEXT + b"rules_of_its_own: []\n"),
    "MESSAGE_TOO_LARGE": lambda stage: bytes(3 << 20),
}


def claimed(stage: Stage, source: bytes) -> bytes:
    """Return a policy that is well signed, and whatever its digest, of another one."""
    said = PolicyBundle(revision=2, digest="0" * 64, source=source)
    return envelope.sign(stage.deployment.policy_key, topics.POLICY, said.encode())


@pytest.mark.parametrize("code", BAD_POLICIES)
def test_a_policy_that_must_not_be_followed_is_refused_and_whoever_watches_comes_to_know(stage, code: str) -> None:
    edge, bad = stage.edge, BAD_POLICIES[code](stage)
    counted = edge.metric("datasync_policy_refused_total", code=code)
    stage.refused(edge, code, lambda: stage.backbone.say(topics.POLICY, bad))
    assert edge.metric("datasync_policy_refused_total", code=code) == counted + 1
    assert edge.metric("datasync_policy_revision") == 1
    assert edge.admin.get("v1", "admin", "node")["policy_refused"]["code"] == code
    assert f"refused as {code}, the active policy stays in force" in edge.tail()


def test_an_older_policy_said_again_does_not_replace_a_newer_one(stage) -> None:
    deployment, cloud = stage.deployment, stage.deployment.cloud
    with cloud.admin.request("POST", ("v1", "admin", "policies"), {}, NEXT, "application/yaml") as response:
        response.read()
    for edge in deployment.edges.values():
        deployment.until(lambda edge=edge: revision(edge) == 2, f"the newer policy at {edge.name}")
    older = stage.said(cloud.name, topics.POLICY)[0]
    stage.refused(stage.edge, "POLICY_REVISION_STALE", lambda: stage.backbone.say(topics.POLICY, older))
    assert [revision(edge) for edge in deployment.edges.values()] == [2, 2]
    known = cloud.admin.get("v1", "admin", "edges")["edges"]
    assert [edge["policy_revision"] for edge in known] == [2, 2]
    assert [edge.metric("datasync_policy_revision") for edge in deployment.edges.values()] == [2, 2]


def revision(server: Server) -> int:
    number: int = server.admin.get("v1", "admin", "node")["policy_revision"]
    return number


def test_after_all_that_devices_record_and_every_row_is_where_it_belongs(stage) -> None:
    deployment = stage.deployment
    before = [recorded_rows(device) for device in deployment.devices]
    for device in deployment.devices:
        device.tell(halt=False)
    deployment.until(
        lambda: all(recorded_rows(each) > count for each, count in zip(deployment.devices, before, strict=True)),
        "new rows",
    )
    deployment.halt()
    verdict.settle(deployment, SETTLE_S_MAX)
    assert verdict.check(deployment) > sum(before)


def recorded_rows(device: Wanderer) -> int:
    with device.store() as (database, _), database.read() as tx:
        return recorded(tx, device.name, rows.TRIPS)
