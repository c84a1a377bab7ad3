"""A policy with verdicts between two operators, and rows captured under it as signed segments."""

from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import stream_id
from datasync.domain.tiers import Tier
from datasync.policy.compiled import Policy
from datasync.policy.loading import load
from datasync.policy.projection import split, to_batch
from datasync.protocol import segment
from datasync.protocol.segment import Header, Segment
from datasync.store.opening import Layer

NOW = Instant(1_800_000_000_000, 0)

POLICY = """
schema: datasync.policy/v1
id: crossing
revision: 3
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme, borealis]
purposes: [service.routing, improve.train]
transforms:
  pid: {op: hmac, key: subject, rotate: 30d, from: user-private, to: edge-private}
  hour: {op: truncate, unit: 1h, from: user-private, to: edge-private}
  band: {op: bucket, edges: [0, 10, 30], from: edge-private, to: public}
collections:
  trips:
    kind: stream
    subject: user_id
    time: started
    meta: {region: public, floor: edge-private}
    fields:
      user_id: {type: string, tier: user-private, up: {edge: [pid]}}
      started: {type: timestamp, tier: user-private, up: {edge: [hour]}}
      speed: {type: float32, tier: edge-private, up: {cloud: [band]}}
      mode: {type: string, tier: public}
    raise:
      - {to: edge-private, where: [[mode, eq, school_bus]]}
  likes:
    kind: document
    subject: user_id
    key: name
    fields:
      user_id: {type: string, tier: user-private, up: {edge: [pid]}}
      name: {type: string, tier: edge-private}
      tint: {type: string, tier: public}
rules: []
consent:
  basis: {service.routing: contract, improve.train: opt_out}
  roaming: opt_in
handover: []
"""


def policy(*rules: str, source: str = POLICY) -> Policy:
    """Return the policy with these rules of handover."""
    listed = "".join(f"\n  - {rule}" for rule in rules)
    return load(source.replace("handover: []", f"handover:{listed}" if rules else "handover: []").encode())


def key_of(tier: Tier) -> Ed25519PrivateKey:
    """Return the signing key of the device's stream at a tier."""
    return Ed25519PrivateKey.from_private_bytes(bytes([tier + 1]) * 32)


def captured(
    under: Policy,
    collection: str,
    rows: Sequence[dict[str, Any]],
    *,
    first: int = 10,
    meta: dict[str, str] | None = None,
) -> list[Segment]:
    """Return a batch's layers as the device signs them, those that edges may hold, low tier to high."""
    batch = to_batch(under.collection(collection), rows)
    layers = split(under, collection, batch, subject_key=lambda name, _: name.encode().ljust(32), now=NOW)
    made = []
    for layer in layers:
        if layer.tier > Tier.EDGE_PRIVATE:
            continue
        public_key = key_of(layer.tier).public_key().public_bytes_raw()
        timed = collection == "trips" and layer.tier is Tier.EDGE_PRIVATE
        header = Header(
            stream=stream_id(public_key),
            public_key=public_key,
            collection=collection,
            tier=layer.tier,
            seq_first=first,
            seq_last=first + len(rows) - 1,
            rows=layer.batch.num_rows,
            captured=HybridTime(NOW.wall_ms, 0),
            time_min_ms=NOW.wall_ms if timed else None,
            time_max_ms=NOW.wall_ms if timed else None,
            policy_digest=under.digest,
            meta={name: value for name, value in (meta or {}).items() if (name, layer.tier) != ("floor", Tier.PUBLIC)},
            previous="",
        )
        salt = segment.salt_of(header, key_of(layer.tier))
        made.append(segment.encode(header, layer.batch, layer.positions, salt))
    return made


def opened(made: Sequence[Segment]) -> list[Layer]:
    """Return segments as an edge opens them."""
    return [Layer(each.header, *segment.rows(segment.parse(each.data))) for each in made]
