"""The demo's input: real smartwatch recordings, each subject a device that roams between two edges.

The motion is real: ``watch_dataset.npy`` of the PyPI package seglearn (D. Burns and others, "Shoulder physiotherapy
exercise recognition: machine learning the inertial signals from a smartwatch", 2018): 140 recordings at 50 Hz, 10
subjects, 7 exercises, each once with the watch on either wrist. Made up, and seeded, are what the file has not: user
ids, positions (see positions.py), when a device moves to another edge, notes, and one short stretch for each device
whose exercise is called PRIVATE, so that the policy has rows to raise. A few notes are canaries, strings that occur
nowhere else: whoever finds one outside its device has found a leak.

Each device starts at its home edge, leaves, and is home again before its rows end; moves are by turns planned and
reactive. What is recorded before it first leaves follows its edge's habits: each edge has usual exercises, so the
edges' data differ in kind, not only in subjects. Both recordings of an exercise come on the same side of that move.

Invariants: the same seed gives the same rows; every row of the file belongs to one device at most, and none is left
out or repeated; a move falls inside a recording.
"""

import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasync.demo.positions import SITES, Site, walk
from datasync.domain.errors import ConfigError, DependencyMissing

COLLECTION = "motion"
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
"""Acceleration in multiples of gravity, and angular velocity, in the watch's axes."""

EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
"""Pendulum, abduction, forward elevation, internal and external rotation, trapezius extension, upright row."""

PUBLIC_CHANNELS = ("ax", "ay", "az")
"""What the demo's policy lets the cloud see, rounded."""

PRIVATE = "PRIVATE"
SUBJECTS_MAX = 10
PERIOD_US = 20_000

SCHEMA = pa.schema([
    ("user_id", pa.string()),
    ("at", pa.timestamp("us", "UTC")),
    ("gps", pa.struct([("lat", pa.float64()), ("lon", pa.float64())])),
    *((channel, pa.float32()) for channel in CHANNELS),
    ("exercise", pa.string()),
    ("recording", pa.int32()),
    ("sample", pa.int32()),
    ("note", pa.string()),
])  # fmt: skip

HABITUAL = 4
"""How many exercises are usual at an edge, and how many a device records before it first leaves."""

HABIT = 6.0
"""How much likelier a usual exercise is than another to be recorded before the first move."""

PRIVATE_ROWS = 150
CANARIES_PER_DEVICE = 5
COORDINATES_PER_DEVICE = 25


@dataclass(frozen=True, slots=True)
class Recording:
    """One real recording: ``signal`` (samples, 6) in the order of CHANNELS, and the wrist, 0 or 1."""

    number: int
    subject: int
    exercise: str
    wrist: int
    signal: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Move:
    """From this row of its stream on, the device is served by this edge."""

    row: int
    edge: str
    planned: bool


@dataclass(frozen=True, slots=True)
class DeviceData:
    """What one device records, in order, and how it roams while it does."""

    name: str
    user_id: str
    home: str
    recordings: tuple[Recording, ...]
    before: frozenset[int]
    """Numbers of the recordings that are complete before the first move."""
    rows: pa.RecordBatch
    moves: tuple[Move, ...]
    canaries: tuple[str, ...]
    """Strings of this device's notes that may be nowhere but on the device."""
    coordinates: tuple[tuple[float, float], ...]
    """Some of its positions, exactly as in the rows: (lat, lon) in degrees."""


@dataclass(frozen=True, slots=True)
class DemoData:
    """All devices, and what the search for leaks looks for."""

    devices: tuple[DeviceData, ...]

    @property
    def canaries(self) -> tuple[str, ...]:
        """Every planted string: the canaries of the notes, and the user ids, which no policy lets off a device."""
        return tuple(text for device in self.devices for text in (*device.canaries, device.user_id))

    @property
    def coordinates(self) -> tuple[tuple[float, float], ...]:
        """Exact positions of all devices, (lat, lon) in degrees."""
        return tuple(point for device in self.devices for point in device.coordinates)


def load(seed: int, devices: int, *, start_ms: int) -> DemoData:
    """Return what ``devices`` subjects, drawn with ``seed``, record from ``start_ms`` (since 1970) on.

    Raises ConfigError for a number of devices outside 1..10, DependencyMissing without seglearn's file.
    """
    if not 1 <= devices <= SUBJECTS_MAX:
        raise ConfigError(
            f"the recordings are of {SUBJECTS_MAX} subjects, so 1 to {SUBJECTS_MAX} devices, not {devices}"
        )
    recordings = read_recordings(dataset_path())
    rng = np.random.default_rng(seed)
    subjects = (rng.permutation(SUBJECTS_MAX)[:devices] + 1).tolist()
    usual = _usual_exercises(rng)
    return DemoData(tuple(
        _device(
            np.random.default_rng([seed, subject]),
            [recording for recording in recordings if recording.subject == subject],
            SITES[index % len(SITES)],
            usual[index % len(SITES)],
            start_ms,
        )
        for index, subject in enumerate(subjects)
    ))  # fmt: skip


def dataset_path(package: str = "seglearn") -> Path:
    """Return where the package keeps its recordings. Raises DependencyMissing when it is not installed."""
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found else []:
        if (path := Path(folder) / "data" / "watch_dataset.npy").is_file():
            return path
    raise DependencyMissing(f"the demo's recordings come with {package}", fix="pip install 'datasync[demo]'")


def read_recordings(path: Path) -> list[Recording]:
    """Return the recordings in the file. Raises ConfigError when it is not the data set that the demo knows."""
    try:
        content = np.load(path, allow_pickle=True).item()  # pickled by the package that we installed: as trusted as it
        if content["y_labels"] != list(EXERCISES):
            raise ValueError(f"its exercises are {content['y_labels']}")
        columns = [content[name] for name in ("X", "y", "subject", "side")]
        return [
            Recording(number, int(subject), EXERCISES[label], int(side), np.asarray(signal, np.float32).reshape(-1, 6))
            for number, (signal, label, subject, side) in enumerate(zip(*columns, strict=True))
        ]
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{path} is not seglearn's watch data set: {error}") from error


def _usual_exercises(rng: np.random.Generator) -> tuple[frozenset[str], frozenset[str]]:
    order = rng.permutation(EXERCISES).tolist()
    return frozenset(order[:HABITUAL]), frozenset(order[-HABITUAL:])


def _device(
    rng: np.random.Generator, recordings: list[Recording], home: Site, usual: frozenset[str], start_ms: int
) -> DeviceData:
    ordered, departure = _schedule(rng, recordings, usual)
    moves = _moves(rng, ordered, departure, home)
    rows = sum(len(recording.signal) for recording in ordered)
    site_of = {site.edge: site for site in SITES}
    positions = walk(rng, rows, home, [(move.row, site_of[move.edge]) for move in moves])
    user_id = f"user-{rng.bytes(8).hex()}"
    notes, canaries = _notes(rng, rows)
    marked = np.sort(rng.choice(rows, COORDINATES_PER_DEVICE, replace=False))
    return DeviceData(
        name=f"watch-{ordered[0].subject}",
        user_id=user_id,
        home=home.edge,
        recordings=tuple(ordered),
        before=frozenset(recording.number for recording in ordered[:departure]),
        rows=_rows(ordered, user_id, positions, notes, _exercises(rng, ordered), start_ms),
        moves=moves,
        canaries=canaries,
        coordinates=tuple((float(lat), float(lon)) for lat, lon in positions[marked]),
    )


def _schedule(
    rng: np.random.Generator, recordings: list[Recording], usual: frozenset[str]
) -> tuple[list[Recording], int]:
    """Return the recordings in the order of recording, and how many of them come before the device first leaves."""
    weights = np.array([HABIT if exercise in usual else 1.0 for exercise in EXERCISES])
    chosen = rng.choice(EXERCISES, HABITUAL, replace=False, p=weights / weights.sum()).tolist()
    first = [recording for recording in recordings if recording.exercise in chosen]
    later = [recording for recording in recordings if recording.exercise not in chosen]
    order = [group[index] for group in (first, later) for index in rng.permutation(len(group))]
    return order, len(first)


def _moves(rng: np.random.Generator, ordered: list[Recording], departure: int, home: Site) -> tuple[Move, ...]:
    """Return two or four moves: out and back, each in the middle of a recording, never two in one."""
    sizes = np.array([len(recording.signal) for recording in ordered])
    firsts = np.cumsum(sizes) - sizes
    count = int(rng.choice([2, 4]))
    later = np.sort(rng.choice(np.arange(departure + 1, len(ordered)), count - 1, replace=False))
    away = next(site for site in SITES if site != home)
    planned_first = int(rng.integers(2))
    return tuple(
        Move(
            row=int(firsts[index] + rng.integers(sizes[index] // 4, 3 * sizes[index] // 4)),
            edge=(away, home)[turn % 2].edge,
            planned=(turn + planned_first) % 2 == 0,
        )
        for turn, index in enumerate([departure, *later])
    )


def _notes(rng: np.random.Generator, rows: int) -> tuple[list[str | None], tuple[str, ...]]:
    canaries = tuple(f"canary-{rng.bytes(16).hex()}" for _ in range(CANARIES_PER_DEVICE))
    notes: list[str | None] = [None] * rows
    for row, canary in zip(rng.choice(rows, CANARIES_PER_DEVICE, replace=False), canaries, strict=True):
        notes[row] = canary
    return notes, canaries


def _exercises(rng: np.random.Generator, ordered: list[Recording]) -> npt.NDArray[np.object_]:
    """Return each row's exercise; one stretch in the middle of a recording is PRIVATE."""
    sizes = [len(recording.signal) for recording in ordered]
    exercises = np.repeat(np.array([recording.exercise for recording in ordered], object), sizes)
    chosen = int(rng.integers(len(ordered)))
    first = sum(sizes[:chosen]) + int(rng.integers(sizes[chosen] - PRIVATE_ROWS))
    exercises[first : first + PRIVATE_ROWS] = PRIVATE
    return exercises


def _rows(
    ordered: list[Recording],
    user_id: str,
    positions: npt.NDArray[np.float64],
    notes: list[str | None],
    exercises: npt.NDArray[np.object_],
    start_ms: int,
) -> pa.RecordBatch:
    signal = np.concatenate([recording.signal for recording in ordered])
    sizes = [len(recording.signal) for recording in ordered]
    at = start_ms * 1_000 + PERIOD_US * np.arange(len(signal))
    columns = [
        pa.array([user_id] * len(signal), SCHEMA.field("user_id").type),
        pa.array(at, pa.int64()).cast(SCHEMA.field("at").type),
        pa.StructArray.from_arrays([pa.array(positions[:, 0]), pa.array(positions[:, 1])], ["lat", "lon"]),
        *(pa.array(np.ascontiguousarray(signal[:, channel])) for channel in range(len(CHANNELS))),
        pa.array(exercises, pa.string()),
        pa.array(np.repeat([recording.number for recording in ordered], sizes).astype(np.int32)),
        pa.array(np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])),
        pa.array(notes, pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
