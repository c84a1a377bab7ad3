"""What devices record in simulated worlds, and the policy that says where it belongs."""

from collections.abc import Sequence

import pyarrow as pa

from datasync.domain.ids import NodeName

POLICY = b"""
schema: datasync.policy/v1
id: simulation
revision: 1
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme]
purposes: [test.run]
transforms:
  pid: {op: hmac, key: subject, rotate: 30d, from: user-private, to: edge-private}
collections:
  steps:
    kind: stream
    subject: who
    fields:
      who: {type: string, tier: user-private, up: {edge: [pid]}}
      number: {type: int64, tier: edge-private}
      label: {type: string, tier: public}
      secret: {type: string}
    raise:
      - {to: edge-private, where: [[label, eq, hush]]}
workers:
  edge-worker: {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [test.run]}
rules:
  - {id: R1, effect: allow, to: {worker: edge-worker}, data: steps, fields: [number, label]}
consent:
  basis: {test.run: contract}
"""

ROW_SCHEMA = pa.schema([("who", pa.string()), ("number", pa.int64()), ("label", pa.string()), ("secret", pa.string())])


def row_of(device: NodeName, number: int) -> dict[str, object]:
    """Return the row that a device's program records as its ``number``-th."""
    label = "hush" if number % 11 == 5 else f"{device}/{number}"
    return {"who": f"person of {device}", "number": number, "label": label, "secret": f"secret {device} {number}"}


def sequence(rows: Sequence[tuple[str, int, dict[str, object]]], tier: str) -> list[int]:
    """Return the sequence numbers of a tier's rows, sorted."""
    return sorted(number for at, number, _ in rows if at == tier)
