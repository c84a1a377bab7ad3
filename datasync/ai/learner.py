"""A learner as a value: weights over named features, a small memory, where it comes from, and its bytes.

It is a linear one-against-the-rest classifier of windows. Names, not positions, tie it to its input: a feature that
the input lacks counts as average, one that the learner does not know is ignored. So what was trained in the cloud
on few coarse channels runs at an edge as it is, and back.

The memory, some windows' features of each label, is what keeps a learner from forgetting (see learning.py). It
makes the learner as private as the data that it has seen, which is what ``lineage.tier`` says.

Invariants: a learner is immutable; equal learners have equal bytes and so equal digests; bytes from elsewhere are
bounded, checked to the last one, and nothing in them is executed.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasync.ai.features import Floats, Windows
from datasync.domain.errors import LearningError
from datasync.domain.limits import MESSAGE_BYTES_MAX
from datasync.domain.tiers import Tier

MAGIC = b"datasync.learner/1\n"

CLIP = 4.0
"""Standard deviations beyond which a feature counts no further."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a learner was trained on: a view up to a cursor, under a policy, from a parent.

    ``tier`` is the learner's label, the highest tier of what it and its ancestors saw; unsaid means user-private.
    """

    collection: str = ""
    purpose: str = ""
    cursor: int = 0
    policy_digest: str = ""
    tier: Tier = Tier.USER_PRIVATE
    parent: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """Weights (labels, features) and bias (labels) over scaled features; the memory is scaled features too."""

    labels: tuple[str, ...]
    names: tuple[str, ...]
    centre: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    memory: Floats
    memory_labels: npt.NDArray[np.int64]
    lineage: Lineage

    @classmethod
    def blank(cls, lineage: Lineage) -> Self:
        """Return the learner that knows no feature and no label yet."""
        none = np.zeros(0)
        return cls((), (), none, none, np.zeros((0, 0)), none, np.zeros((0, 0)), np.zeros(0, np.int64), lineage)

    @property
    def digest(self) -> str:
        """SHA-256 of the learner's bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def scaled(self, windows: Windows) -> Floats:
        """Return the windows' features as this learner weighs them (n, features); an absent one is 0, its average.

        Raises LearningError when the windows have none of the learner's features.
        """
        theirs = {name: column for column, name in enumerate(windows.names)}
        known = np.array([name in theirs for name in self.names], dtype=bool)
        if not known.any():
            raise LearningError("the windows have none of the features that the learner was trained on")
        values = np.zeros((len(windows), len(self.names)))
        chosen = windows.values[:, [theirs[name] for name in self.names if name in theirs]]
        values[:, known] = np.clip((chosen - self.centre[known]) / self.scale[known], -CLIP, CLIP)
        return values

    def probabilities(self, windows: Windows) -> Floats:
        """Return each label's probability for each window (n, labels): the logistic scores, made to sum to 1."""
        scores = self.scaled(windows) @ self.weights.T + self.bias
        odds = (1 + np.tanh(scores / 2)) / 2 + np.finfo(np.float64).tiny
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def predict(self, windows: Windows) -> npt.NDArray[np.str_]:
        """Return the most probable label of each window."""
        return np.asarray(np.array(self.labels, np.str_)[self.probabilities(windows).argmax(axis=1)])

    def to_bytes(self) -> bytes:
        """Return the learner as bytes: a magic line, a line of JSON, then the arrays as little-endian float64."""
        header = {
            "labels": self.labels,
            "names": self.names,
            "memory": len(self.memory),
            "lineage": asdict(self.lineage),
        }
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        arrays = (self.centre, self.scale, self.bias, self.weights, self.memory, self.memory_labels)
        return b"".join([MAGIC, text.encode(), b"\n", *(np.asarray(array, "<f8").tobytes() for array in arrays)])

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the learner that :meth:`to_bytes` wrote. Raises LearningError for anything else."""
        header, numbers = _split(data)
        labels, features, kept = len(header.labels), len(header.names), header.memory
        sizes = (features, features, labels, labels * features, kept * features, kept)
        if len(numbers) != sum(sizes) or not np.isfinite(numbers).all():
            raise LearningError("the learner's numbers are not as many as its header says, or not finite")
        centre, scale, bias, weights, memory, numbered = np.split(numbers, np.cumsum(sizes)[:-1])
        if not (scale > 0).all() or not np.isin(numbered, np.arange(labels)).all():
            raise LearningError("the learner has a scale that is not positive, or remembers a label that it has not")
        learner = cls(header.labels, header.names, centre, scale, weights.reshape(labels, features), bias,
                      memory.reshape(kept, features), numbered.astype(np.int64), header.lineage)  # fmt: skip
        if learner.to_bytes() != data:
            raise LearningError("the learner's bytes are not in canonical form")
        return learner


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: tuple[str, ...]
    names: tuple[str, ...]
    memory: int = Field(ge=0, le=MESSAGE_BYTES_MAX)
    lineage: Lineage


def _split(data: bytes) -> tuple[_Header, Floats]:
    if len(data) > MESSAGE_BYTES_MAX:
        raise LearningError(f"the learner has {len(data)} bytes, over the limit of {MESSAGE_BYTES_MAX}")
    text, _, rest = data.removeprefix(MAGIC).partition(b"\n")
    if not data.startswith(MAGIC) or len(rest) % 8:
        raise LearningError("these bytes are no learner: they do not start or end as one does")
    try:
        header = _Header.model_validate_json(text)
    except ValidationError as error:
        problem: Any = error.errors()[0]
        raise LearningError(f"the learner's header is wrong at {problem['loc']}: {problem['msg']}") from error
    if len(set(header.labels)) != len(header.labels) or len(set(header.names)) != len(header.names):
        raise LearningError("the learner's header names a label or a feature twice")
    return header, np.frombuffer(rest, "<f8").astype(np.float64)
