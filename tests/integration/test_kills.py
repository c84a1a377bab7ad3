"""Nodes that are killed at random moments, over real brokers: nothing is lost, doubled or shown where it may not be."""

import os
import random
import time
from collections import Counter
from collections.abc import Sequence

from datasync.security.identity import Role
from tests.integration import verdict
from tests.integration.deployment import CBD, DOCKS, Deployment, Place

SEED = int(os.environ.get("DATASYNC_TESTS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
DRAIN_S_MAX = 150.0
MOVE_SHARE = 0.1
"""How often a device moves before it records: about once in a second."""


class Reaper:
    """Kills nodes with SIGKILL at moments that follow from a seed, and starts them again."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self._deployment = deployment
        self._chance = random.Random(seed)
        self._down: list[Place] = []
        self.kills: Counter[Role] = Counter()

    def run(self, victims: Sequence[Role]) -> None:
        """Kill a node of each of the roles, in an order that is drawn; now and then two are down at one time."""
        for role in self._chance.sample(victims, len(victims)):
            victim = self._chance.choice([each for each in self._deployment.places if each.identity.role is role])
            if victim in self._down:
                self._down.remove(victim)
                victim.start()
            self._let_live(victim)
            victim.kill()
            self._down.append(victim)
            self.kills[role] += 1
            self._pause(1.0)
            while len(self._down) > 1 or (self._down and self._chance.random() < 0.7):
                self._down.pop(0).start()
        for place in self._down:
            place.start()

    def _let_live(self, victim: Place) -> None:
        """Let a moment pass; mostly not before the node has got going: what is killed as it starts has done little."""
        if self._chance.random() < 0.8:
            self._deployment.until(lambda: victim.is_at_work(), f"{victim.name} to get to work")
        self._pause(2.0)

    def _pause(self, seconds_max: float) -> None:
        end = time.monotonic() + self._chance.uniform(0, seconds_max)
        self._deployment.until(lambda: time.monotonic() >= end, "a moment to pass")


def roam(deployment: Deployment, devices: int, victims: Sequence[Role]) -> None:
    """Let devices record and roam while nodes are killed; then let it all come to rest, and compare."""
    print(f"replay with: DATASYNC_TESTS_SEED={SEED} pytest {__file__}")
    for number in range(devices):
        words = ("--seed", str(SEED), "--move-share", str(MOVE_SHARE))
        deployment.device(f"watch-{number}", (CBD, DOCKS)[number % 2], *words)
    deployment.start()
    for device in deployment.devices:
        device.start()
    reaper = Reaper(deployment, SEED)
    reaper.run(victims)
    deployment.halt()
    verdict.settle(deployment, DRAIN_S_MAX)
    total = verdict.check(deployment)
    kills = ", ".join(f"{count} times {role}" for role, count in reaper.kills.items())
    print(f"killed {kills}; {total} rows of {devices} devices, {moves(deployment)} moves")
    assert total > 50 * devices
    assert all(device.stop() == 0 for device in deployment.devices)


def moves(deployment: Deployment) -> int:
    """Return how often devices attached after the first time."""
    return sum(device.whereabouts().epoch - 1 for device in deployment.devices)


def test_every_row_is_where_it_belongs_once_after_kills_of_every_kind_of_node(deploy) -> None:
    roam(deploy(), 3, 8 * [Role.DEVICE, Role.EDGE, Role.CLOUD])


def test_every_row_is_where_it_belongs_once_after_kills_of_a_cloud_on_postgres(deploy, postgres_cluster) -> None:
    names = [postgres_cluster.database() for _ in range(2)]
    database, keys = map(postgres_cluster.url, names)
    roam(deploy(cloud_database=database, cloud_keys=keys), 2, [*6 * [Role.CLOUD], Role.DEVICE, Role.EDGE])
