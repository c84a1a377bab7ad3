"""Learning in stages along the tiers: pre-train in the cloud, transfer at an edge, learn on after a handover.

Each stage is stochastic gradient descent on logistic loss (scikit-learn's ``partial_fit``) from the weights of the
stage before. A feature that a stage is first to see (an edge sees the gyroscope, the cloud does not) starts at
weight 0 with a scale of its own; the scales of the others stay as the first stage that saw them set them.

A stage whose data lack some labels would push these out of the model. So a learner remembers some windows of every
label and rehearses them with the new ones, all labels weighing the same (Chaudhry et al., "On Tiny Episodic
Memories in Continual Learning", 2019), and goes only half-way from its parent's weights to those that the new
windows ask for, which keeps what generalised (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).

Invariants: the same parent, windows and seed give the same learner; its label never drops below its parent's. How
the constants were chosen is in demo/roles.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasync.ai.features import Floats, Windows, windows
from datasync.ai.learner import Learner, Lineage
from datasync.domain.errors import DependencyMissing, LearningError

EPOCHS_FIRST = 20
"""Passes over the windows of a learner's first stage."""

EPOCHS_NEXT = 5
STEP_SIZE = 0.01
DECAY = 1e-4
NEXT_SHARE = 0.5
"""How far a stage goes from its parent's weights to the fitted ones; the default of the paper above."""

MEMORY_PER_LABEL = 80
"""Windows of each label that a learner remembers."""

SPREAD_MIN = 1e-9
"""A feature that varies less is constant, and is not scaled."""

Labels = npt.NDArray[np.int64]


def pretrain(seen: Windows, *, lineage: Lineage | None = None, seed: int = 0) -> Learner:
    """Return a learner of these windows alone."""
    return _stage(_grown(Learner.blank(lineage or Lineage()), seen), seen, EPOCHS_FIRST, 1.0, seed)


def transfer(parent: Learner, seen: Windows, *, lineage: Lineage | None = None, seed: int = 0) -> Learner:
    """Return the parent adapted to these windows, with the features that they are the first to have."""
    return _stage(_grown(_child(parent, lineage), seen), seen, EPOCHS_NEXT, NEXT_SHARE, seed)


def learn_on(parent: Learner, seen: Windows, *, lineage: Lineage | None = None, seed: int = 0) -> Learner:
    """Return the parent with what is new in these windows learned, by the features that it has."""
    return _stage(_with_labels(_child(parent, lineage), seen), seen, EPOCHS_NEXT, NEXT_SHARE, seed)


def accuracy(learner: Learner, seen: Windows) -> float:
    """Return the share of the windows whose label the learner predicts. Raises LearningError without windows."""
    if not len(seen):
        raise LearningError("accuracy is not defined without windows")
    return float((learner.predict(seen) == seen.labels).mean())


def train_on(
    reader: pa.RecordBatchReader,
    channels: Sequence[str],
    lineage: Lineage,
    *,
    parent: Learner | None = None,
    seed: int = 0,
) -> Learner:
    """Read a view to its end and return a learner of it, from nothing or from ``parent``.

    Raises LearningError when the view holds too little to learn from.
    """
    seen = windows(reader.read_all(), channels)
    return pretrain(seen, lineage=lineage, seed=seed) if parent is None else transfer(
        parent, seen, lineage=lineage, seed=seed
    )  # fmt: skip


def infer_on(learner: Learner, reader: pa.RecordBatchReader, channels: Sequence[str]) -> pa.Table:
    """Read a view to its end and return what the learner takes each window for.

    Columns: recording, sample (the window's first), exercise, confidence (its probability, 0 to 1).
    """
    seen = windows(reader.read_all(), channels, label=None)
    odds = learner.probabilities(seen)
    return pa.table({
        "recording": seen.groups,
        "sample": seen.starts,
        "exercise": pa.array(np.array(learner.labels, np.str_)[odds.argmax(axis=1)].tolist(), pa.string()),
        "confidence": odds.max(axis=1),
    })  # fmt: skip


def _child(parent: Learner, lineage: Lineage | None) -> Learner:
    own = lineage or Lineage()
    return replace(parent, lineage=replace(own, parent=parent.digest, tier=max(own.tier, parent.lineage.tier)))


def _grown(learner: Learner, seen: Windows) -> Learner:
    """Return the learner with the windows' labels and features; the new ones have weight 0."""
    new = [column for column, name in enumerate(seen.names) if name not in learner.names]
    values = seen.values[:, new] if len(seen) else np.zeros((1, len(new)))
    spread = values.std(axis=0)
    learner = _with_labels(learner, seen)
    return replace(
        learner,
        names=(*learner.names, *(seen.names[column] for column in new)),
        centre=np.concatenate([learner.centre, values.mean(axis=0)]),
        scale=np.concatenate([learner.scale, np.where(spread > SPREAD_MIN, spread, 1.0)]),
        weights=np.pad(learner.weights, [(0, 0), (0, len(new))]),
        memory=np.pad(learner.memory, [(0, 0), (0, len(new))]),
    )


def _with_labels(learner: Learner, seen: Windows) -> Learner:
    new = [str(label) for label in np.unique(seen.labels) if label not in learner.labels]
    return replace(
        learner,
        labels=(*learner.labels, *new),
        weights=np.pad(learner.weights, [(0, len(new)), (0, 0)]),
        bias=np.pad(learner.bias, (0, len(new))),
    )


def _stage(learner: Learner, seen: Windows, epochs: int, share: float, seed: int) -> Learner:
    """Return the learner, ``share`` of the way to what ``epochs`` passes over windows and memory make of it.

    It remembers the windows, too.
    """
    if len(learner.labels) < 2:
        raise LearningError(f"{len(seen)} windows of {len(learner.labels)} labels are too few to learn from")
    fresh = learner.scaled(seen)
    number_of = {label: number for number, label in enumerate(learner.labels)}
    numbers = np.array([number_of[str(label)] for label in seen.labels], np.int64)
    values = np.concatenate([learner.memory, fresh])
    labels = np.concatenate([learner.memory_labels, numbers])
    importance = len(labels) / (np.bincount(labels, minlength=1)[labels] * len(np.unique(labels)))
    fitted = [
        _fit(learner.weights[number], learner.bias[number], values, labels == number, importance, epochs, seed)
        for number in range(len(learner.labels))
    ]
    memory, memory_labels = _remembered(learner, fresh, numbers, np.random.default_rng(seed))
    return replace(
        learner,
        weights=(1 - share) * learner.weights + share * np.array([weights for weights, _ in fitted]),
        bias=(1 - share) * learner.bias + share * np.array([bias for _, bias in fitted]),
        memory=memory,
        memory_labels=memory_labels,
    )


def _fit(
    weights: Floats, bias: float, values: Floats, member: npt.NDArray[np.bool_], importance: Floats, epochs: int,
    seed: int,
) -> tuple[Floats, float]:  # fmt: skip
    """Return one label's weights and bias after ``epochs`` passes."""
    model = _classifier(seed)
    model.classes_ = np.array([False, True])
    model.coef_, model.intercept_ = weights[None].copy(), np.array([bias])
    model.n_features_in_, model.t_ = len(weights), 1.0
    for _ in range(epochs):
        model.partial_fit(values, member, sample_weight=importance)
    return model.coef_[0], float(model.intercept_[0])


def _classifier(seed: int) -> Any:
    try:
        from sklearn.linear_model import SGDClassifier  # an extra, and slow to import: only who trains pays for it
    except ImportError as error:
        raise DependencyMissing("training needs scikit-learn", fix="pip install 'datasync[demo]'") from error
    return SGDClassifier(
        loss="log_loss", alpha=DECAY, learning_rate="constant", eta0=STEP_SIZE,
        random_state=np.random.RandomState(seed),
    )  # fmt: skip


def _remembered(learner: Learner, fresh: Floats, numbers: Labels, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Return the memory after this stage: of each label a random choice among old windows and as many new."""
    kept_values, kept_labels = [learner.memory[:0]], [learner.memory_labels[:0]]
    for number in range(len(learner.labels)):
        new = rng.permutation(fresh[numbers == number])[:MEMORY_PER_LABEL]
        both = rng.permutation(np.concatenate([learner.memory[learner.memory_labels == number], new]))
        kept_values.append(both[:MEMORY_PER_LABEL])
        kept_labels.append(np.full(len(kept_values[-1]), number, np.int64))
    return np.concatenate(kept_values), np.concatenate(kept_labels)
