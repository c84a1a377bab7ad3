"""How policies come to nodes: whose signature counts, and what keeps a wrong one out."""

from collections.abc import Callable

import pytest

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, node_name
from datasync.domain.limits import BUNDLE_BYTES_MAX, POLICY_BYTES_MAX
from datasync.nodes.cloud import CloudNode
from datasync.nodes.links import BACKBONE
from datasync.nodes.node import Activate, Arrival, Effects, Install
from datasync.policy.loading import load
from datasync.protocol import bundle as bundles
from datasync.protocol import cbor, envelope, topics
from datasync.protocol.messages import Attach, PolicyBundle
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority
from datasync.store import audit, policies, revisions
from datasync.store.audit import Event
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, POLICY, POLICY_KEY, START_MS, WATCH, Wire, recorded

NOW = Instant(START_MS, 0)
FAILING = b"""
tests:
  - {name: wrong, ask: {worker: coach, data: steps, field: secret, purpose: test.run}, expect: {allow: []}}
"""


def source(revision: int, more: bytes = b"") -> bytes:
    return POLICY.replace(b"revision: 1", b"revision: %d" % revision) + more


def signed(key: Identity, policy: bytes, **claims: object) -> bytes:
    """Return a bundle of a policy that may not even load, with claims that may not be true."""
    message = {"t": "policy", "revision": 2, "digest": "d" * 64, "source": policy} | claims
    return envelope.sign(key, topics.POLICY, cbor.dumps(message))


def good(net: Wire, revision: int) -> bytes:
    return bundles.sign(net.policy_key, load(source(revision)))


def by(key: Callable[[Wire], Identity]) -> Callable[[Wire], bytes]:
    """A policy that is in order, signed by somebody with a good certificate."""
    return lambda net: bundles.sign(key(net), load(source(2)))


def changed_since_it_was_signed(net: Wire) -> bytes:
    return signed(
        net.policy_key, source(2, b"# and more\n").replace(b"opt_out", b"opt_in"), digest=load(source(2)).digest
    )


def numbered_otherwise(net: Wire) -> bytes:
    return signed(net.policy_key, source(3), revision=2, digest=load(source(3)).digest)


WRONG = {
    "an edge's key": (by(lambda net: net.identity(DOCKS)), "SIGNER_FOREIGN"),
    "the cloud's own key": (by(lambda net: net.identity(CLOUD)), "SIGNER_FOREIGN"),
    "a device's key": (
        by(lambda net: net.authority.enrol(node_name("mallory"), Role.DEVICE, now=NOW)),
        "SIGNER_FOREIGN",
    ),
    "another operator's policy key": (
        by(lambda net: net.other.enrol(node_name("globex/policy"), Role.POLICY, now=NOW)),
        "SIGNER_FOREIGN",
    ),
    "a stranger's policy key": (
        by(lambda _: Authority.create("acme", NOW).enrol(POLICY_KEY, Role.POLICY, now=NOW)),
        "SIGNER_UNTRUSTED",
    ),
    "the same revision with another content": (
        lambda net: bundles.sign(net.policy_key, load(source(1).replace(b"opt_out", b"opt_in"))),
        "POLICY_REVISION_CONFLICT",
    ),
    "changed since it was signed": (changed_since_it_was_signed, "POLICY_DIGEST_MISMATCH"),
    "numbered otherwise": (numbered_otherwise, "POLICY_DIGEST_MISMATCH"),
    "its own tests fail": (lambda net: signed(net.policy_key, source(2, FAILING)), "POLICY_INVALID"),
    "not a policy": (lambda net: signed(net.policy_key, b"\xff\x00"), "POLICY_INVALID"),
    "a source over the limit": (lambda net: signed(net.policy_key, b"#" * (POLICY_BYTES_MAX + 1)), "MESSAGE_INVALID"),
    "a message over the limit": (lambda net: signed(net.policy_key, b"#" * (3 << 20)), "MESSAGE_TOO_LARGE"),
}


def bring(net: Wire, name: NodeName, bundle: bytes) -> Effects:
    """Let a broker bring a bundle to a node."""
    link = next(iter(net.nodes[WATCH].links)) if name == WATCH else BACKBONE
    return net.give(name, Arrival(link, topics.POLICY, bundle), deliver=False)


def revision(net: Wire, name: NodeName) -> int:
    policy = net.nodes[name].node.policy
    return 0 if policy is None else policy.revision


@pytest.mark.parametrize("place", [CBD, WATCH])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_bundle_is_refused_loudly_and_a_good_one_is_still_taken(net: Wire, place: NodeName, wrong: str) -> None:
    make, code = WRONG[wrong]
    before, kept = net.nodes[place].node.policy, net.nodes[place].held()
    effects = bring(net, place, make(net))
    assert (effects.counts["refused", code], dict(effects.policies_refused)) == (1, {code: 1})
    assert [code in alarm for alarm in effects.alarms] == [True]
    assert effects.send == []
    assert net.nodes[place].node.policy is before
    assert net.nodes[place].held() == kept
    with net.nodes[place].database.read() as tx:
        refusal, logged = policies.last_refusal(tx), audit.page(tx)[-1]
    assert refusal is not None
    assert (logged.event, logged.detail["code"]) == (Event.POLICY_REFUSED, code)
    assert (refusal.code, refusal.at_ms) == (code, net.now.wall_ms)
    assert bring(net, place, good(net, 2)).counts["refused", code] == 0
    assert revision(net, place) == 2


@pytest.mark.parametrize("place", [CBD, WATCH])
def test_an_older_bundle_that_was_good_once_is_refused(net: Wire, place: NodeName) -> None:
    older = next(each.payload for each in net.sent if each.topic == topics.POLICY)
    net.give(CLOUD, Activate(3, source(2)))
    assert revision(net, place) == 2
    assert dict(bring(net, place, older).policies_refused) == {"POLICY_REVISION_STALE": 1}
    assert revision(net, place) == 2


def test_the_active_bundle_said_again_is_no_news(net: Wire) -> None:
    again = next(each.payload for each in net.sent if each.topic == topics.POLICY)
    effects = bring(net, CBD, again)
    assert not effects.policies_refused
    assert effects.send == []


@pytest.mark.parametrize("wrong", WRONG)
def test_the_cloud_takes_from_its_administrator_what_edges_take_and_nothing_else(net: Wire, wrong: str) -> None:
    make, code = WRONG[wrong]
    bundle = make(net)
    effects = net.give(CLOUD, Install(3, bundle), deliver=False)
    assert net.answers[3].code == ("MESSAGE_TOO_LARGE" if len(bundle) > BUNDLE_BYTES_MAX else code)
    assert sum(effects.policies_refused.values()) == 1
    assert (effects.send, revision(net, CLOUD)) == ([], 1)


def test_a_cloud_without_the_key_signs_nothing_and_passes_on_what_was_signed_elsewhere(net: Wire) -> None:
    cloud = net.nodes[CLOUD]
    cloud.build = lambda: CloudNode(cloud.kit)
    net.restart(CLOUD)
    net.give(CLOUD, Activate(3, source(2)))
    assert net.answers[3].code == "POLICY_KEY_MISSING"
    net.give(CLOUD, Install(4, good(net, 2)))
    assert net.answers[4].revision == 2
    assert {revision(net, name) for name in net.nodes} == {2}


def test_a_message_that_is_no_policy_is_not_installed(net: Wire) -> None:
    beacon = next(each.payload for each in net.sent if each.topic == topics.beacon(CLOUD))
    net.give(CLOUD, Install(3, beacon))
    assert net.answers[3].code == "SIGNATURE_INVALID"  # it was signed for another topic


def test_what_was_refused_is_noted_once_for_each_interval_and_counted_every_time(net: Wire) -> None:
    bundle = WRONG["an edge's key"][0](net)
    assert [len(bring(net, CBD, bundle).alarms) for _ in range(3)] == [1, 0, 0]
    net.wait(11_000, step_ms=1_000)
    effects = bring(net, CBD, bundle)
    assert (len(effects.alarms), effects.policies_refused["SIGNER_FOREIGN"]) == (1, 1)


def test_rows_that_were_recorded_before_a_policy_came_are_captured_under_the_one_before(net: Wire) -> None:
    net.give(WATCH, recorded(1), deliver=False)
    bring(net, WATCH, good(net, 2))
    net.record(2)
    digests = {each.policy_digest for each in net.nodes[WATCH].segments()}
    assert digests == {load(source(1)).digest, load(source(2)).digest}


def test_a_bundle_carries_what_its_policy_is(net: Wire) -> None:
    policy = load(source(5))
    opened = envelope.verify(
        bundles.sign(net.policy_key, policy), topics.POLICY, net.nodes[CBD].kit.trust, NOW, bytes_max=BUNDLE_BYTES_MAX
    )
    bundle = PolicyBundle(revision=5, digest=policy.digest, source=policy.source)
    assert (opened.peer.role, opened.body) == (Role.POLICY, bundle.encode())


def follows(net: Wire, at: NodeName, *names: NodeName) -> list[int | None]:
    """Return which revisions a node takes others to follow."""
    with net.nodes[at].database.read() as tx:
        return [revisions.get(tx, name) for name in names]


def test_the_cloud_knows_which_policy_each_edge_follows_and_an_edge_which_its_devices_do(net: Wire) -> None:
    assert follows(net, CLOUD, CBD, DOCKS) == [1, 1]
    assert follows(net, CBD, WATCH) == [1]
    net.give(CLOUD, Activate(3, source(2)))
    net.wait(500)
    assert follows(net, CLOUD, CBD, DOCKS) == [2, 2]
    assert follows(net, CBD, WATCH, DOCKS) == [2, 2]


def test_a_device_tells_its_edge_again_until_the_edge_knows(net: Wire) -> None:
    net.lose = lambda each: each.topic in (topics.POLICY, topics.device_up(WATCH)) and each.link != BACKBONE
    net.give(CLOUD, Activate(3, source(2)))
    bring(net, WATCH, good(net, 2))
    net.wait(2_000)
    assert follows(net, CBD, WATCH) == [1]
    net.lose = lambda _: False
    net.wait(2_000)
    assert follows(net, CBD, WATCH) == [2]
    said = len(net.carried(Attach, CBD))
    net.wait(3_000)
    assert len(net.carried(Attach, CBD)) == said
