"""Which recording is for what in the comparison of the learning stages.

The protocol, for one seed:

- **Held out.** Of the two recordings that a subject made of an exercise, the one on the wrist of parity
  ``subject + exercise + 1`` is held out, for every seed alike. So held-out windows are of the same subjects, but of
  recordings that nothing was trained on, with the watch on the other wrist. The learners' constants were chosen on
  the other recordings alone. One design choice came after a first look at held-out figures, where transfer did
  worse than pre-training: ``NEXT_SHARE``; its value is the paper's, and was then checked on the others.
- **Public.** Two fifths of each edge's devices, drawn with the seed, are the cohort that the cloud trains on, as if
  they had come first: all their recordings, in the public form. No edge trains or is tested on them, and the cloud
  trains on no one else, so transfer means new subjects as well as new channels.
- **Before and after.** The other devices' recordings that are not held out are learned from by their home edge: those
  complete before the device first left by the transfer, the rest, which reach the edge with the state that the
  device brings back, by the incremental stage.
- **Old.** The held-out recordings of the exercises that the device did before: what may be forgotten.

Edges are not identically distributed: they have different subjects, and before the first move different exercises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from datasync.ai.experiment import EdgeData, Split
from datasync.ai.features import windows
from datasync.demo.recordings import CHANNELS, EXERCISES, PUBLIC_CHANNELS, DemoData, DeviceData, Recording

COHORT = 0.4
SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class EdgeRoles:
    """Numbers of recordings; ``old`` is part of ``held_out``."""

    before: frozenset[int]
    after: frozenset[int]
    held_out: frozenset[int]
    old: frozenset[int]


@dataclass(frozen=True, slots=True)
class Roles:
    """Numbers of the recordings that are public, and each edge's roles."""

    public: frozenset[int]
    edges: Mapping[str, EdgeRoles]


def roles(data: DemoData, seed: int) -> Roles:
    """Return what each recording is for; with fewer than three devices, not both edges have any."""
    by_edge: dict[str, list[DeviceData]] = {}
    for device in data.devices:
        by_edge.setdefault(device.home, []).append(device)
    cohort = _cohort(np.random.default_rng(seed), by_edge)
    return Roles(
        frozenset(recording.number for device in cohort for recording in device.recordings),
        {edge: _edge_roles([device for device in homed if device not in cohort]) for edge, homed in by_edge.items()},
    )


def splits(
    data: DemoData, cloud: pa.Table, edges: Mapping[str, pa.Table], seeds: Sequence[int] = SEEDS
) -> dict[int, Split]:
    """Return the windows of each seed's split, for :func:`datasync.ai.experiment.experiment`.

    ``cloud`` is what the cloud's trainer sees and ``edges`` what each edge's sees, once all devices are home; tables
    with the columns exercise, recording, sample and channels. Edges that lack a role's windows are left out.
    """
    public = windows(cloud, PUBLIC_CHANNELS)
    private = {edge: windows(table, CHANNELS) for edge, table in edges.items()}
    found = {}
    for seed in seeds:
        drawn = roles(data, seed)
        parts = {
            edge: EdgeData(*(private[edge].of(part) for part in (own.before, own.after, own.held_out, own.old)))
            for edge, own in drawn.edges.items()
            if edge in private
        }
        complete = {edge: part for edge, part in parts.items() if all(map(len, (part.before, part.after, part.old)))}
        found[seed] = Split(public.of(drawn.public), complete)
    return found


def is_held_out(recording: Recording) -> bool:
    """Whether the recording is held out unless it is the cohort's; one of a subject's two of each exercise is."""
    return recording.wrist == (recording.subject + EXERCISES.index(recording.exercise) + 1) % 2


def _cohort(rng: np.random.Generator, by_edge: Mapping[str, list[DeviceData]]) -> list[DeviceData]:
    """Return two fifths of each edge's devices, or one device where no edge has enough for that."""
    drawn = [
        homed[index]
        for homed in by_edge.values()
        for index in rng.permutation(len(homed))[: int(COHORT * len(homed))].tolist()
    ]
    return drawn or next(iter(by_edge.values()))[:1]


def _edge_roles(devices: Sequence[DeviceData]) -> EdgeRoles:
    found: dict[str, set[int]] = {role: set() for role in ("before", "after", "held_out", "old")}
    for device in devices:
        for recording in device.recordings:
            early = recording.number in device.before
            if not is_held_out(recording):
                found["before" if early else "after"].add(recording.number)
            else:
                found["held_out"].add(recording.number)
                found["old"].update([recording.number] if early else [])
    return EdgeRoles(**{role: frozenset(numbers) for role, numbers in found.items()})
