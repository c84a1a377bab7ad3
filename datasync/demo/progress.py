"""Each wearer's progress: one document, which the watch changes with every piece that it records.

What the document must be in the end is computed from the recordings alone, in another way than merging does.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasync.demo.recordings import PRIVATE, DeviceData

COLLECTION = "progress"
NAME = "training"
COMPARED = ("name", "goal", "samples", "exercises", "hardest")


def change(data: DeviceData, rows: pa.RecordBatch, end: int) -> dict[str, Any]:
    """Return what a piece of the recording that ends before row ``end`` changes of the document."""
    return {
        "user_id": data.user_id,
        "name": NAME,
        "goal": _goal(end),
        "samples": rows.num_rows,
        "exercises": _exercises(rows),
        "hardest": _hardest(rows),
        "latest": pc.max(rows["at"]).as_py(),
        "mood": data.canaries[0],
    }


def expected(data: DeviceData) -> Mapping[str, Any]:
    """Return the fields of COMPARED as they must be when everything is recorded; exercises in alphabetical order."""
    rows = data.rows
    values = (NAME, _goal(rows.num_rows), rows.num_rows, _exercises(rows), _hardest(rows))
    return dict(zip(COMPARED, values, strict=True))


def comparable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of COMPARED of a document that was read, its exercises in alphabetical order."""
    found = {name: document[name] for name in COMPARED if name in document}
    return found | {"exercises": sorted(found["exercises"])} if found.get("exercises") else found


def _goal(row: int) -> str:
    return f"{row // 10_000 + 1}0,000 samples"


def _exercises(rows: pa.RecordBatch) -> list[str]:
    return sorted(set(rows["exercise"].to_pylist()) - {PRIVATE})


def _hardest(rows: pa.RecordBatch) -> float:
    acceleration = np.stack([rows[name].to_numpy() for name in ("ax", "ay", "az")])
    return float(np.abs(acceleration).max())
