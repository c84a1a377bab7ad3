"""What an edge could know, put into its database as its transactions put it there."""

from typing import Any

from datasync.domain.tiers import Tier
from datasync.store import attachments, handovers, models, peers, revisions
from datasync.store.attachments import Attachment
from datasync.store.handovers import Handover
from datasync.store.models import ModelId, StoredModel
from datasync.store.peers import KnownPeer
from tests.unit.api.serving import NOW, Node

NOW_MS = NOW.wall_ms


def attach(node: Node, device: str, **values: Any) -> None:
    """Note where a device is attached."""
    usual = {
        "state": "active",
        "incarnation": 1,
        "epoch": 4,
        "edge": "acme/cbd",
        "mode": "full",
        "since_ms": NOW_MS - 3_600_000,
        "updated_ms": NOW_MS,
    }
    with node.database.write() as tx:
        attachments.put(tx, Attachment(device=device, **usual | values))


def hear_of(node: Node, edge: str, **values: Any) -> None:
    """Note an edge that was heard of."""
    usual = {"role": "edge", "certificate": b"", "address": "mqtt://10.0.0.7:1883", "load": 0.25, "seen_ms": NOW_MS}
    with node.database.write() as tx:
        peers.put(tx, KnownPeer(name=edge, **usual | values))


def follow(node: Node, name: str, revision: int) -> None:
    """Note which policy another node follows."""
    with node.database.write() as tx:
        revisions.put(tx, name, revision)


def hand_over(node: Node, number: int, **values: Any) -> None:
    """Note a handover that is over."""
    usual = {
        "device": "watch-1",
        "role": "source",
        "peer": "acme/docks",
        "phase": "erased",
        "incarnation": 1,
        "epoch": 3,
        "planned": True,
        "started_ms": NOW_MS - 60_000 + number,
        "frozen_ms": NOW_MS - 50_000,
        "active_ms": NOW_MS - 50_000 + 23,
        "finished_ms": NOW_MS - 40_000,
        "segments": 12,
        "rows": 34_567,
        "bytes": 1_234_567,
    }
    with node.database.write() as tx:
        handovers.put(tx, Handover(handover=f"{number:032x}", **usual | values))


def register(node: Node, model: str, **values: Any) -> None:
    """Note a model."""
    usual = {
        "name": "stride",
        "worker": "coach",
        "label": Tier.PUBLIC,
        "purposes": ("improve.train",),
        "parent": None,
        "views": (),
        "policy_digest": "d" * 64,
        "digest": "e" * 64,
        "size_bytes": 1_234,
        "key_id": "f" * 32,
        "created_ms": NOW_MS,
        "lineage": b"",
    }
    with node.database.write() as tx:
        models.add(tx, StoredModel(model=ModelId(model), **usual | values), [], [])
