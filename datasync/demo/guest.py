"""The guest: a borrowed watch whose wearer wants to be forgotten in the end, as a process of its own.

It records a few pieces of the last wearer's recordings, mirrored as by the other hand, so that no value of it occurs
anywhere else; it roams, visits another operator's edge with its wearer's consent when told so by a file, and comes
back. Then it is there, with an HTTP API of its own, until another file says that it may go. Its wearer asks there to be
erased; the watch knows nothing of that.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasync.demo import progress
from datasync.demo.positions import SITES
from datasync.demo.recordings import CHANNELS, COLLECTION, SCHEMA, DemoData, DeviceData, load
from datasync.demo.town import EDGES, GUEST, HUB
from datasync.demo.watch import POLL_S, is_safe, until
from datasync.nodes.agent import Device

PIECE_ROWS = 1_000
PIECES = 4
RUN_ROWS = 8
"""How many values of a channel in a row are looked for: 32 bytes, which no chance repeats."""

NUMBER_FIRST = 1_000
"""The number of the guest's first recording, above those of all real ones."""

VISIT, LEAVE = "visit", "leave"
"""The files in its folder that tell it."""


def guest_of(data: DemoData, seed: int) -> DeviceData:
    """Return what the guest records, and what of it is planted."""
    rng = np.random.default_rng([seed, NUMBER_FIRST])
    user_id, word = f"user-{rng.bytes(8).hex()}", f"exercise-{rng.bytes(8).hex()}"
    notes = tuple(f"canary-{rng.bytes(16).hex()}" for _ in range(PIECES))
    rows = data.devices[-1].rows.slice(0, PIECES * PIECE_ROWS)
    points = rows["gps"].flatten()
    positions = [np.asarray(each) + 0.01 for each in points]
    columns = {
        "user_id": [user_id] * rows.num_rows,
        "gps": pa.StructArray.from_arrays([pa.array(each) for each in positions], ["lat", "lon"]),
        "exercise": [word] * rows.num_rows,
        "recording": [NUMBER_FIRST + row // PIECE_ROWS for row in range(rows.num_rows)],
        "note": [notes[row // PIECE_ROWS] if row % PIECE_ROWS == 0 else None for row in range(rows.num_rows)],
        **{channel: -np.asarray(rows[channel]) for channel in CHANNELS},
    }
    made = [pa.array(columns.get(field.name, rows[field.name]), field.type) for field in SCHEMA]
    return DeviceData(
        name=GUEST,
        user_id=user_id,
        home=EDGES[0],
        recordings=(),
        before=frozenset(),
        rows=pa.RecordBatch.from_arrays(made, schema=SCHEMA),
        moves=(),
        canaries=(*notes, word),
        coordinates=tuple((float(positions[0][row]), float(positions[1][row])) for row in _marked(rows.num_rows)),
    )


def needles(guest: DeviceData) -> dict[str, bytes]:
    """Return what is known of the guest's rows, by a name for it, as it is in memory: of every tier something."""
    found = {text: text.encode() for text in (guest.user_id, *guest.canaries)}
    for lat, lon in guest.coordinates:
        found[f"{lat}, {lon}"] = np.float64(lat).tobytes()
    for row in _marked(guest.rows.num_rows):
        values: npt.NDArray[np.float32] = np.asarray(guest.rows["ax"])[row : row + RUN_ROWS]
        found[f"{RUN_ROWS} values of ax from row {row}"] = values.tobytes()
    return found


def _marked(rows: int) -> Sequence[int]:
    return range(PIECE_ROWS // 2, rows, PIECE_ROWS)


def main() -> int:
    """Run the guest's watch to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--start-ms", type=int, required=True)
    said = parser.parse_args()
    guest = guest_of(load(said.seed, said.devices, start_ms=said.start_ms), said.seed)
    folder = said.config.parent
    away = next(site.edge for site in SITES if site.edge != guest.home)
    with Device(said.config) as device:
        until(lambda: device.has_policy, "the policy")
        device.consent("roaming", given=True)
        _record(device, guest, range(2))
        _go(device, away, planned=True)
        _record(device, guest, range(2, 3))
        _say("roamed")
        _await(folder / VISIT)
        _go(device, HUB, planned=False)
        _go(device, guest.home, planned=False)
        _say("come back")
        _record(device, guest, range(3, PIECES))
        _say("recorded all")
        _await(folder / LEAVE)
    return 0


def _record(device: Device, guest: DeviceData, pieces: range) -> None:
    for number in pieces:
        rows = guest.rows.slice(number * PIECE_ROWS, PIECE_ROWS)
        device.record(COLLECTION, rows, wait=True)
        device.record(progress.COLLECTION, [progress.change(guest, rows, (number + 1) * PIECE_ROWS)])
    device.flush()
    until(lambda: is_safe(device), "the guest's rows to be safe")


def _go(device: Device, edge: str, *, planned: bool) -> None:
    device.move(edge, planned=planned)
    until(lambda: device.whereabouts.edge == edge and is_safe(device), f"{edge} to serve the guest")


def _await(told: Path) -> None:
    """Wait until a file is there; whoever started this process makes it, or ends this process."""
    while not told.exists():
        time.sleep(POLL_S)


def _say(step: str) -> None:
    print(json.dumps({"step": step}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
