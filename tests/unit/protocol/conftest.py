"""An operator's edge and device, and a stream of the device's, drawn from a seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings

from datasync.domain.clock import Instant
from datasync.domain.ids import node_name
from datasync.domain.tiers import Tier
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority, Peer, Trust

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@dataclass(frozen=True, slots=True)
class World:
    """Who talks to whom."""

    now: Instant
    authority: Authority
    trust: Trust
    edge: Identity
    docks: Identity
    watch: Identity

    def peer(self, identity: Identity) -> Peer:
        return self.trust.verify(identity.certificate, self.now)


@pytest.fixture
def entropy() -> Callable[[int], bytes]:
    return random.Random(2).randbytes


@pytest.fixture(scope="module")
def world() -> World:
    now, entropy = Instant(1_750_000_000_000, 0), random.Random(1).randbytes
    authority = Authority.create("acme", now, entropy=entropy)

    def enrol(name: str, role: Role) -> Identity:
        return authority.enrol(node_name(name), role, now=now, entropy=entropy)

    trust = Trust([authority.certificate])
    edge, docks = enrol("acme/cbd", Role.EDGE), enrol("acme/docks", Role.EDGE)
    return World(now, authority, trust, edge, docks, enrol("watch-7", Role.DEVICE))


@pytest.fixture(scope="module")
def stream_key(world: World) -> Ed25519PrivateKey:
    return world.watch.stream_key("trips", Tier.EDGE_PRIVATE, 0)
