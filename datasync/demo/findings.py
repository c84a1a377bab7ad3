"""What a run of the demo found, all of it computed from what is there: rows, views, handovers, learning, leaks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasync.ai.experiment import Report, experiment
from datasync.demo.comparing import Comparison, compare
from datasync.demo.leaks import Search, needles, search
from datasync.demo.recordings import CHANNELS, COLLECTION, PRIVATE, PUBLIC_CHANNELS, DemoData
from datasync.demo.roles import splits
from datasync.demo.town import Node, Town
from datasync.domain.errors import LearningError
from datasync.policy import decide
from datasync.policy.loading import load as load_policy
from datasync.store import policies, segments
from datasync.views.client import open_view

TRAINING = "improve.train"
COARSE = 0.05 + 1e-6
"""How far a value rounded to one decimal may be from what was recorded (float32)."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a watch told of itself in the end."""

    rows: int
    private_rows: int
    comparison: Comparison
    journeys: tuple[Mapping[str, Any], ...]

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> Self:
        """Return what the last line of a watch says."""
        comparison = Comparison(**said["comparison"])
        return cls(said["rows"], said["private_rows"], comparison, tuple(said["journeys"]))


@dataclass(frozen=True, slots=True)
class Held:
    """How much a place holds at one tier."""

    place: str
    tier: str
    segments: int
    rows: int


@dataclass(frozen=True, slots=True)
class Sight:
    """What one worker gets of one field for one purpose, and why."""

    worker: str
    purpose: str
    field: str
    allowed: bool
    code: str
    chain: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is reported."""

    held: tuple[Held, ...]
    sights: tuple[Sight, ...]
    journeys: tuple[Mapping[str, Any], ...]
    devices: Comparison
    edges: Comparison
    cloud: Comparison
    learning: Report | None
    learning_missing: str
    leaks: Search
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether no row was lost, doubled, changed or foreign anywhere, and nothing leaked."""
        counts = [
            count
            for each in (self.devices, self.edges, self.cloud)
            for count in (each.lost, each.duplicated, each.foreign, each.changed)
        ]
        return not any(counts) and not self.leaks.leaked and self.leaks.control_found == self.leaks.control_wanted

    def interruption_ms(self, share: float) -> float | None:
        """Return a quantile (0 to 1) of the handovers' interruptions."""
        times = [journey["interruption_ms"] for journey in self.journeys]
        return float(np.quantile(times, share)) if times else None


def gather(town: Town, data: DemoData, told: Sequence[Told], tap: Path, began_s: float) -> Findings:
    """Look at everything there is to look at; ``began_s`` is when the run began, on the monotonic clock."""
    recorded = pa.Table.from_batches([device.rows for device in data.devices])
    shared = recorded.filter(pc.not_equal(recorded["exercise"], PRIVATE))
    by_edge = {str(edge.name): _view(edge, "edge-trainer") for edge in town.edges}
    in_cloud = _view(town.cloud, "cloud-trainer")
    learning, missing = _learn(data, in_cloud, by_edge)
    leaks = search(needles(data), tap, town.servers, town.devices)
    return Findings(
        held=tuple(held for node in (*town.devices, *town.servers) for held in _held(node)),
        sights=_sights(town),
        journeys=tuple(journey for each in told for journey in each.journeys),
        devices=_sum([each.comparison for each in told]),
        edges=compare(shared, pa.concat_tables(by_edge.values()), CHANNELS),
        cloud=compare(shared, in_cloud, PUBLIC_CHANNELS, COARSE),
        learning=learning,
        learning_missing=missing,
        leaks=leaks,
        seconds=time.monotonic() - began_s,
    )


def _view(node: Node, worker: str) -> pa.Table:
    return open_view(node.url, node.tokens[worker], COLLECTION, TRAINING).read_all()


def _learn(data: DemoData, cloud: pa.Table, edges: Mapping[str, pa.Table]) -> tuple[Report | None, str]:
    try:
        return experiment(splits(data, cloud, edges)), ""
    except LearningError as error:
        return None, error.detail  # too few devices for a comparison


def _held(node: Node) -> list[Held]:
    with node.store() as (database, _), database.read() as tx:
        return [Held(str(node.name), each.tier.label, each.segments, each.rows) for each in segments.counts(tx)]


def _sights(town: Town) -> tuple[Sight, ...]:
    with town.cloud.store() as (database, _), database.read() as tx:
        stored = policies.active(tx)
    if stored is None:
        return ()
    policy = load_policy(stored.source)
    found = []
    for worker in policy.workers.values():
        for purpose in sorted(worker.purposes):
            for field in policy.collections[COLLECTION].fields:
                decision = decide.decide(policy, worker, COLLECTION, field, purpose)
                found.append(
                    Sight(worker.id, purpose, field, decision.allowed, decision.code, decision.chain, decision.detail)
                )
    return tuple(found)


def _sum(comparisons: Sequence[Comparison]) -> Comparison:
    fields = ("expected", "found", "lost", "duplicated", "foreign", "changed")
    return Comparison(**{field: sum(getattr(each, field) for each in comparisons) for field in fields})
