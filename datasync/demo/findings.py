"""What a run of the demo found, all of it computed from what is there: rows, views, handovers, learning, leaks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasync.ai.experiment import Report, experiment
from datasync.demo import progress
from datasync.demo.comparing import Comparison, compare, compare_counts
from datasync.demo.forgetting import Forgotten
from datasync.demo.leaks import Search
from datasync.demo.meanwhile import SECOND, Happened, of_wearer, statistics
from datasync.demo.proofs import Proof
from datasync.demo.recordings import CHANNELS, COLLECTION, PRIVATE, PUBLIC_CHANNELS, DemoData
from datasync.demo.roles import splits
from datasync.demo.town import Node, Town
from datasync.demo.visiting import COACHING, Visit
from datasync.domain.errors import LearningError
from datasync.policy import decide
from datasync.policy.compiled import Policy, Worker
from datasync.policy.loading import load as load_policy
from datasync.store import policies, segments

TRAINING = "improve.train"
COARSE = 0.05 + 1e-6
"""How far a value rounded to one decimal may be from what was recorded (float32)."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a watch told of itself in the end."""

    rows: int
    private_rows: int
    comparison: Comparison
    progress_kept: bool
    journeys: tuple[Mapping[str, Any], ...]

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> Self:
        """Return what the last line of a watch says."""
        comparison = Comparison(**said["comparison"])
        return cls(said["rows"], said["private_rows"], comparison, said["progress_kept"], tuple(said["journeys"]))


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
class Documents:
    """Documents of progress: how many there are at the edges, and how many of those are what was recorded."""

    expected: int
    found: int
    equal: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the cloud counts in the end: the wearer's rows that has withdrawn, everybody else's, and the columns."""

    withdrawn: int
    others: Comparison
    columns: tuple[str, ...]
    revisions: Mapping[str, int | None]
    """What each node follows."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What is there when the devices are home."""

    held: tuple[Held, ...]
    sights: tuple[Sight, ...]
    devices: Comparison
    edges: Comparison
    cloud: Comparison
    documents: Documents
    statistics: Statistics
    learning: Report | None
    learning_missing: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is reported."""

    looked: Looked
    told: Sequence[Told]
    happened: Happened
    forgotten: Forgotten
    visits: tuple[Visit, ...]
    proofs: tuple[Proof, ...]
    leaks: Search
    seconds: float

    @property
    def journeys(self) -> tuple[Mapping[str, Any], ...]:
        """All handovers, as the devices lived them."""
        return tuple(journey for each in self.told for journey in each.journeys)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is not as it must be: rows lost, doubled, changed or foreign anywhere, leaks, what policy forbids."""
        return tuple(what for what, is_wrong in self._checks() if is_wrong)

    @property
    def is_clean(self) -> bool:
        """Whether everything is as it must be."""
        return not self.faults

    def _checks(self) -> Iterator[tuple[str, bool]]:
        looked, statistics = self.looked, self.looked.statistics
        for place, each in (("devices", looked.devices), ("edges", looked.edges), ("cloud", looked.cloud)):
            yield f"rows at the {place}", not each.is_clean
        documents = looked.documents
        yield "documents at the edges", not documents.expected == documents.found == documents.equal
        yield "documents on the devices", not all(each.progress_kept for each in self.told)
        yield "a withdrawn consent", statistics.withdrawn > 0 or self.happened.counted_before == 0
        yield "rows that are counted", not statistics.others.is_clean
        yield "the narrowed statistics", "gps" not in self.happened.columns_before or "gps" in statistics.columns
        yield "the second revision", any(number != SECOND for number in statistics.revisions.values())
        yield "a wearer who wants to be forgotten", not self.forgotten.is_clean or bool(self.leaks.back)
        for visit in self.visits:
            yield f"what another operator has of {visit.device}", not visit.is_clean
        for proof in self.proofs:
            yield f"what {proof.place} can prove", not proof.is_clean
        yield "leaks", bool(self.leaks.leaked) or self.leaks.control_found != self.leaks.control_wanted

    def interruption_ms(self, share: float) -> float | None:
        """Return a quantile (0 to 1) of the handovers' interruptions."""
        times = [journey["interruption_ms"] for journey in self.journeys]
        return float(np.quantile(times, share)) if times else None


def look(town: Town, data: DemoData, told: Sequence[Told]) -> Looked:
    """Look at everything there is to look at while the devices are home."""
    recorded = pa.Table.from_batches([device.rows for device in data.devices])
    shared = recorded.filter(pc.not_equal(recorded["exercise"], PRIVATE))
    by_edge = {str(edge.name): _view(edge, "edge-trainer") for edge in town.edges}
    in_cloud = _view(town.cloud, "cloud-trainer")
    learning, missing = _learn(data, in_cloud, by_edge)
    return Looked(
        held=tuple(held for node in (*town.devices, *town.servers) for held in _held(node)),
        sights=_sights(town),
        devices=_sum([each.comparison for each in told]),
        edges=compare(shared, pa.concat_tables(by_edge.values()), CHANNELS),
        cloud=compare(shared, in_cloud, PUBLIC_CHANNELS, COARSE),
        documents=_documents(town, data),
        statistics=_statistics(town, data, shared),
        learning=learning,
        learning_missing=missing,
    )


def _documents(town: Town, data: DemoData) -> Documents:
    found = [
        progress.comparable(each)
        for edge in town.edges
        for each in edge.view("edge-coach", progress.COLLECTION, COACHING).to_pylist()
    ]
    wanted = [progress.expected(device) for device in data.devices]
    return Documents(len(wanted), len(found), sum(each in found for each in wanted))


def _statistics(town: Town, data: DemoData, shared: pa.Table) -> Statistics:
    shown = statistics(town.cloud)
    wearer = data.devices[0]
    own = pa.array([recording.number for recording in wearer.recordings], pa.int32())
    others = compare_counts(shared.filter(pc.invert(pc.is_in(shared["recording"], own))), shown)
    revisions = {str(node.name): _revision(node) for node in (*town.devices, *town.servers)}
    return Statistics(of_wearer(shown, wearer), others, tuple(shown.column_names), revisions)


def _revision(node: Node) -> int | None:
    with node.store() as (database, _), database.read() as tx:
        stored = policies.active(tx)
    return None if stored is None else stored.revision


def _view(node: Node, worker: str) -> pa.Table:
    return node.view(worker, COLLECTION, TRAINING)


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
            for collection in policy.collections.values():
                found += [_sight(policy, worker, collection.name, field, purpose) for field in collection.fields]
    return tuple(found)


def _sight(policy: Policy, worker: Worker, collection: str, field: str, purpose: str) -> Sight:
    decision = decide.decide(policy, worker, collection, field, purpose)
    name = f"{collection}.{field}"
    return Sight(worker.id, purpose, name, decision.allowed, decision.code, decision.chain, decision.detail)


def _sum(comparisons: Sequence[Comparison]) -> Comparison:
    fields = ("expected", "found", "lost", "duplicated", "foreign", "changed")
    return Comparison(**{field: sum(getattr(each, field) for each in comparisons) for field in fields})
