"""Two operators and what they enrolled, drawn from a seed."""

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

from datasync.domain.clock import Instant
from datasync.domain.ids import node_name
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority, Trust

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@pytest.fixture
def now() -> Instant:
    return Instant(wall_ms=1_750_000_000_000, steady_ms=0)


@pytest.fixture
def entropy() -> Callable[[int], bytes]:
    return random.Random(1).randbytes


@pytest.fixture
def acme(now: Instant, entropy: Callable[[int], bytes]) -> Authority:
    return Authority.create("acme", now, entropy=entropy)


@pytest.fixture
def borealis(now: Instant, entropy: Callable[[int], bytes]) -> Authority:
    return Authority.create("borealis", now, entropy=entropy)


@pytest.fixture
def trust(acme: Authority, borealis: Authority) -> Trust:
    return Trust([acme.certificate, borealis.certificate])


@pytest.fixture
def edge(acme: Authority, now: Instant, entropy: Callable[[int], bytes]) -> Identity:
    return acme.enrol(node_name("acme/cbd"), Role.EDGE, now=now, entropy=entropy)


@pytest.fixture
def watch(acme: Authority, now: Instant, entropy: Callable[[int], bytes]) -> Identity:
    return acme.enrol(node_name("watch-7"), Role.DEVICE, now=now, entropy=entropy)
