"""What each stage of learning is worth, measured on windows that no stage was trained on.

One seed, one split: a cloud's public windows, and for each edge the windows it had before its devices went roaming,
what arrived after, and held-out windows of the same subjects. Four learners are compared on the held-out windows:

- ``scratch``: the edge alone, on what it had before;
- ``pre_trained``: the cloud's learner as it is;
- ``transferred``: the cloud's learner adapted to what the edge had before;
- ``incremental``: that one, learned on with what arrived after.

``old`` are the held-out windows of what the edge had seen before: accuracy there shows forgetting. Whether the
stages improve in this order is a result, and the report says so either way.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from datasync.ai.features import Windows
from datasync.ai.learner import Learner
from datasync.ai.learning import accuracy, learn_on, pretrain, transfer
from datasync.domain.errors import LearningError

STAGES = ("scratch", "pre_trained", "transferred", "incremental")


@dataclass(frozen=True, slots=True)
class EdgeData:
    """One edge's windows; ``old`` are those of ``held_out`` that are like ``before``."""

    before: Windows
    after: Windows
    held_out: Windows
    old: Windows


@dataclass(frozen=True, slots=True)
class Split:
    """What the cloud trains on and what each edge trains and is tested on."""

    public: Windows
    edges: Mapping[str, EdgeData]


@dataclass(frozen=True, slots=True)
class Measure:
    """One learner's accuracy (0 to 1) on an edge's held-out windows, and on those of them that are like before."""

    seed: int
    edge: str
    stage: str
    accuracy: float
    old_accuracy: float
    windows: int


@dataclass(frozen=True, slots=True)
class Report:
    """Every measure, and what follows from them."""

    measures: tuple[Measure, ...]
    seen_before: Mapping[str, Mapping[str, int]]
    """Windows of each label that each edge had before, over all seeds: how far the edges differ."""

    def mean(self, stage: str, *, edge: str | None = None, seed: int | None = None) -> float:
        """Return the stage's mean accuracy over edges and seeds, or of one edge or seed."""
        return float(np.mean([measure.accuracy for measure in self._of(stage, edge, seed)]))

    def old_mean(self, stage: str, *, edge: str | None = None, seed: int | None = None) -> float:
        """Return the stage's mean accuracy on old data over edges and seeds, or of one edge or seed."""
        return float(np.mean([measure.old_accuracy for measure in self._of(stage, edge, seed)]))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds measured."""
        return tuple(sorted({measure.seed for measure in self.measures}))

    @property
    def edges(self) -> tuple[str, ...]:
        """The edges measured."""
        return tuple(sorted({measure.edge for measure in self.measures}))

    @property
    def ordered(self) -> bool:
        """Whether each stage is better than the one before it, in the mean over edges and seeds."""
        return not self._reversals(None)

    @property
    def sentence(self) -> str:
        """The outcome in plain words, with what does not hold, be it in the mean or for single seeds."""
        wrong = self._reversals(None)
        text = f"Mean of {len(self.seeds)} seeds and {len(self.edges)} edges: "
        text += f"the order does not hold: {'; '.join(wrong)}." if wrong else "each stage is better than the last."
        single = [f"{reversal} (seed {seed})" for seed in self.seeds for reversal in self._reversals(seed)]
        return text + (f" Single seeds where it does not hold: {'; '.join(single)}." if single else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        edges: tuple[str | None, ...] = (None, *self.edges)
        return {
            "ordered": self.ordered,
            "sentence": self.sentence,
            "accuracy": {edge or "overall": {stage: self.mean(stage, edge=edge) for stage in STAGES} for edge in edges},
            "old_accuracy": {
                edge or "overall": {stage: self.old_mean(stage, edge=edge) for stage in STAGES} for edge in edges
            },
            "seen_before": {edge: dict(counts) for edge, counts in self.seen_before.items()},
            "measures": [asdict(measure) for measure in self.measures],
        }

    def _of(self, stage: str, edge: str | None, seed: int | None) -> list[Measure]:
        return [
            measure
            for measure in self.measures
            if measure.stage == stage and edge in (None, measure.edge) and seed in (None, measure.seed)
        ]

    def _reversals(self, seed: int | None) -> list[str]:
        means = [(stage, self.mean(stage, seed=seed)) for stage in STAGES]
        return [
            f"{after} at {better:.3f} is not above {before} at {worse:.3f}"
            for (before, worse), (after, better) in pairwise(means)
            if better <= worse
        ]


def experiment(splits: Mapping[int, Split]) -> Report:
    """Train and test the four learners on each seed's split. Raises LearningError when no edge can be measured."""
    measures: list[Measure] = []
    seen_before: dict[str, dict[str, int]] = {}
    for seed, split in splits.items():
        cloud = pretrain(split.public, seed=seed)
        for edge, data in sorted(split.edges.items()):
            measures += _measured(seed, edge, _learners(cloud, data, seed), data)
            for label in data.before.labels.tolist():
                counts = seen_before.setdefault(edge, {})
                counts[label] = counts.get(label, 0) + 1
    if not measures:
        raise LearningError("no edge has windows to learn from and windows held out")
    return Report(tuple(measures), seen_before)


def _learners(cloud: Learner, data: EdgeData, seed: int) -> dict[str, Learner]:
    transferred = transfer(cloud, data.before, seed=seed)
    incremental = learn_on(transferred, data.after, seed=seed)
    learners = (pretrain(data.before, seed=seed), cloud, transferred, incremental)
    return dict(zip(STAGES, learners, strict=True))


def _measured(seed: int, edge: str, learners: Mapping[str, Learner], data: EdgeData) -> list[Measure]:
    return [
        Measure(seed, edge, stage, accuracy(learner, data.held_out), accuracy(learner, data.old), len(data.held_out))
        for stage, learner in learners.items()
    ]
