"""What devices record in these tests, and what of it must be where: worked out one row at a time, without Arrow.

The rows of a device follow from its name and their number, so that whoever finds a row can tell what it should be.
"""

import hmac
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from datasync.security.identity import Identity, Role

TRIPS = "trips"
PURPOSE = "test.run"
EDGE_WORKER, CLOUD_WORKER = "edge-router", "cloud-reader"
WORKERS = {Role.EDGE: (EDGE_WORKER,), Role.CLOUD: (CLOUD_WORKER,)}
START = datetime(2026, 1, 1, tzinfo=UTC)
MODES = ("bike", "car", "tram", "walk", "bike", "hush", "car", "private_road", "tram")
GEOHASH_DIGITS = "0123456789bcdefghjkmnpqrstuvwxyz"
BANDS = ((0, "<0"), (10, "0-10"), (30, "10-30"), (60, "30-60"))

POLICY = b"""
schema: datasync.policy/v1
id: roaming
revision: 1
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme]
purposes: [test.run]
transforms:
  pid:  {op: hmac, key: subject, from: user-private, to: edge-private}
  cell: {op: geohash, precision: 5, from: user-private, to: edge-private}
  area: {op: geohash, precision: 3, from: edge-private, to: public}
  hour: {op: truncate, unit: 1h, from: user-private, to: edge-private}
  day:  {op: truncate, unit: 1d, from: edge-private, to: public}
  band: {op: bucket, edges: [0, 10, 30, 60], from: edge-private, to: public}
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
      label:   {type: string,    tier: public}
      note:    {type: string}
    raise:
      - {to: user-private, where: [[mode, eq, private_road]]}
      - {to: edge-private, where: [[mode, eq, hush]]}
    mobility: {hot: 10s, escrow: false}
  pictures:
    kind: stream
    subject: user_id
    fields:
      user_id: {type: string, tier: user-private}
      picture: {type: bytes,  tier: edge-private}
workers:
  edge-router:  {place: edge,  operator: acme, kind: infer, clearance: edge-private, purposes: [test.run]}
  cloud-reader: {place: cloud, operator: acme, kind: train, clearance: public, purposes: [test.run]}
  watch-coach:  {place: device, kind: infer, clearance: user-private, purposes: [test.run]}
rules:
  - {id: R1, effect: allow, to: {worker: edge-router}, data: trips,
     fields: [user_id, gps, started, speed, mode, label]}
  - {id: R2, effect: allow, to: {worker: cloud-reader}, data: trips, fields: [gps, started, speed, mode, label]}
  - {id: R3, effect: allow, to: {place: device, kind: infer}, data: trips, fields: '*'}
consent:
  basis: {test.run: contract}
handover:
  - {id: H0, from: acme, to: acme, data: '*', action: move}
"""


def row_of(device: str, number: int) -> dict[str, Any]:
    """Return the row that a device's program records as its ``number``-th."""
    return {
        "user_id": f"person of {device}",
        "gps": {"lat": -37.8 + number * 0.0137, "lon": 144.9 - number * 0.0271},
        "started": START + timedelta(seconds=97 * number, microseconds=number),
        "speed": (number * 7 % 80) - 4.5,
        "mode": MODES[number % len(MODES)],
        "label": f"{device}/{number}",
        "note": f"secret {device} {number}",
    }


def device_form(device: str, number: int) -> dict[str, Any]:
    """Return what only the device holds of a row; of one that never leaves it, all."""
    row = row_of(device, number)
    if row["mode"] == "private_road":
        return row
    return {name: row[name] for name in ("user_id", "gps", "started", "note")}


def edge_form(identity: Identity, number: int) -> dict[str, Any] | None:
    """Return the edge-private columns of a row; for one that was lifted there, the public ones too."""
    row = row_of(identity.name, number)
    if row["mode"] == "private_road":
        return None
    pseudonym = hmac.digest(identity.pseudonym_key("pid", 0), row["user_id"].encode(), "sha256").hex()[:32]
    form = {
        "user_id": pseudonym,
        "gps": geohash(row["gps"], 5),
        "started": row["started"].replace(minute=0, second=0, microsecond=0),
        "speed": struct.unpack("f", struct.pack("f", row["speed"]))[0],
    }
    return form | ({"mode": row["mode"], "label": row["label"]} if row["mode"] == "hush" else {})


def public_form(device: str, number: int) -> dict[str, Any] | None:
    """Return the public columns of a row; None for one that was lifted."""
    row = row_of(device, number)
    if row["mode"] in ("private_road", "hush"):
        return None
    return {
        "gps": geohash(row["gps"], 3),
        "started": row["started"].replace(hour=0, minute=0, second=0, microsecond=0),
        "speed": next((name for edge, name in BANDS if row["speed"] < edge), ">=60"),
        "mode": row["mode"],
        "label": row["label"],
    }


def edge_view(identity: Identity, number: int) -> dict[str, Any] | None:
    """Return a row as the edge's worker sees it."""
    row, form = row_of(identity.name, number), edge_form(identity, number)
    return None if form is None else form | {"mode": row["mode"], "label": row["label"]}


def geohash(point: dict[str, float], precision: int) -> str:
    """Return a point's geohash (Niemeyer, 2008), bit by bit."""
    bounds = {"lon": [-180.0, 180.0], "lat": [-90.0, 90.0]}
    bits = 0
    for index in range(5 * precision):
        axis = ("lon", "lat")[index % 2]
        low, high = bounds[axis]
        middle = (low + high) / 2
        upper = point[axis] >= middle
        bounds[axis] = [middle, high] if upper else [low, middle]
        bits = bits << 1 | upper
    return "".join(GEOHASH_DIGITS[bits >> 5 * place & 31] for place in reversed(range(precision)))
