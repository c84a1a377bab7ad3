"""The split alone on one core: 1000-row batches of 6 fields, of which 4 are transformed, by 6 steps into 3 layers.

The rows are those of one device, as they are in life: one subject, a drive through a town, one row in a hundred on a
private road, which is lifted out of the layers that leave the device. The rate without such rows is told beside it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from datasync.domain.clock import Instant
from datasync.policy.compiled import Policy
from datasync.policy.loading import load
from datasync.policy.projection import split, to_batch
from tests.benchmarks.figures import ROWS_PER_S, Figure, figure, seconds_each

ROWS, ROUNDS = 1_000, 300
NOW = Instant(1_700_000_000_000, 0)
POLICY = b"""\
schema: datasync.policy/v1
id: trips
revision: 1
operators: [acme]
purposes: [service.routing]
transforms:
  pid:  {op: hmac,     key: subject, rotate: 30d,      from: user-private, to: edge-private}
  cell: {op: geohash,  precision: 5,                   from: user-private, to: edge-private}
  hour: {op: truncate, unit: 1h,                       from: user-private, to: edge-private}
  day:  {op: truncate, unit: 1d,                       from: edge-private, to: public}
  band: {op: bucket,   edges: [0, 10, 30, 60],         from: edge-private, to: public}
  area: {op: geohash,  precision: 3,                   from: edge-private, to: public}
collections:
  trips:
    kind: stream
    subject: user_id
    time: started
    meta: {region: public}
    fields:
      user_id: {type: string,    tier: user-private, up: {edge: [pid]}}
      gps:     {type: point,     tier: user-private, up: {edge: [cell], cloud: [cell, area]}}
      started: {type: timestamp, tier: user-private, up: {edge: [hour], cloud: [hour, day]}}
      speed:   {type: float32,   tier: edge-private, up: {cloud: [band]}}
      mode:    {type: string,    tier: public}
      note:    {type: string}
    raise:
      - {to: user-private, where: [[mode, eq, private_road]]}
workers:
  watch-coach: {place: device, kind: infer, clearance: user-private, purposes: [service.routing]}
rules:
  - {id: R1, effect: allow, to: {worker: watch-coach}, data: trips, fields: '*'}
"""


def measure(repetitions: int) -> list[Figure]:
    """Return the rates of the split alone."""
    policy = load(POLICY)
    with _one_core():
        return [
            figure("split", "split alone on one core: 6 fields, 4 transformed, 3 layers; 1 % raised", ROWS_PER_S,
                   _rates(policy, ROWS // 100, repetitions)),
            figure("split.none_raised", "the same, no row raised", ROWS_PER_S, _rates(policy, 0, repetitions)),
        ]  # fmt: skip


def _rates(policy: Policy, raised: int, repetitions: int) -> list[float]:
    batch = to_batch(policy.collections["trips"], _rows(raised))
    key = b"k" * 32

    def work() -> None:
        split(policy, "trips", batch, subject_key=lambda name, period: key, now=NOW)

    return [ROWS / each for each in seconds_each(work, ROUNDS, repetitions)]


def _rows(raised: int) -> pa.RecordBatch:
    draw = np.random.default_rng(3)
    drive = np.cumsum(draw.normal(0, 1e-4, (ROWS, 2)), axis=0)
    gps = pa.StructArray.from_arrays([-37.81 + drive[:, 0], 144.96 + drive[:, 1]], ["lat", "lon"])
    modes = draw.choice(["bike", "car", "bus"], ROWS).astype(object)
    modes[draw.choice(ROWS, raised, replace=False)] = "private_road"
    columns = {
        "user_id": pa.array(["user-1"] * ROWS),
        "gps": gps,
        "started": pa.array(NOW.wall_ms * 1_000 + np.arange(ROWS) * 1_000_000, pa.timestamp("us", "UTC")),
        "speed": pa.array(draw.uniform(0, 80, ROWS).astype(np.float32)),
        "mode": pa.array(modes.tolist()),
        "note": pa.array([None if number % 50 else f"note {number}" for number in range(ROWS)]),
    }
    return pa.record_batch(columns)


@contextmanager
def _one_core() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
