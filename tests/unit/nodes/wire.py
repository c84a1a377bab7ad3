"""Nodes by hand: a device, two edges and a cloud on SQLite, and messages that go where a test says."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, node_name
from datasync.nodes.cloud import CloudNode
from datasync.nodes.device import DeviceNode, DeviceSettings
from datasync.nodes.edge import EdgeNode, EdgeSettings
from datasync.nodes.node import Activate, Arrival, Effects, Input, Kit, LinkChange, Node, Outgoing, Record
from datasync.nodes.roster import Patience
from datasync.nodes.source import BACKBONE, DEVICES
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from datasync.protocol import topics
from datasync.security.identity import Role
from datasync.security.trust import Authority, Trust
from datasync.security.vault import Vault
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf

START_MS = 1_800_000_000_000
WATCH = node_name("watch-1")
CBD, DOCKS, CLOUD = (node_name(f"acme/{name}") for name in ("cbd", "docks", "cloud"))

POLICY = b"""
schema: datasync.policy/v1
id: wire
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
workers:
  coach: {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [test.run]}
rules:
  - {id: R1, effect: allow, to: {worker: coach}, data: steps, fields: [number, label]}
consent:
  basis: {test.run: contract}
"""


@dataclass(slots=True)
class Wired:
    """One node with its databases; ``build`` makes it anew, as after a crash."""

    name: NodeName
    build: Callable[[], Node]
    database: Database
    keys: Database
    kit: Kit
    node: Node
    links: frozenset[str] = frozenset()


@dataclass(slots=True)
class Wire:
    """All nodes, the moment, and what was counted; ``lose`` decides what is not delivered."""

    nodes: dict[NodeName, Wired]
    now_ms: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    answers: dict[int, Any] = field(default_factory=dict)
    sent: list[Outgoing] = field(default_factory=list)
    lose: Callable[[Outgoing], bool] = lambda _: False

    @property
    def now(self) -> Instant:
        return Instant(START_MS + self.now_ms, self.now_ms)

    def give(self, name: NodeName, *inputs: Input, deliver: bool = True) -> Effects:
        """Give inputs to a node in one transaction, and deliver what follows."""
        wired = self.nodes[name]
        with wired.database.write() as tx:
            effects = wired.node.handle(tx, inputs, self.now)
        self._note(wired, effects)
        if deliver:
            self._deliver(name, effects)
        return effects

    def restart(self, name: NodeName) -> None:
        """Build a node anew from its database, its links up."""
        wired = self.nodes[name]
        wired.node = wired.build()
        with wired.database.write() as tx:
            effects = wired.node.start(tx, self.now)
        wired.links = frozenset()
        self._note(wired, effects)
        self._deliver(name, effects)
        fixed = [] if isinstance(wired.node, DeviceNode) else list(wired.node.subscriptions)
        for link in fixed:
            self.give(name, LinkChange(link, up=True))

    def wait(self, delay_ms: int, step_ms: int = 250) -> None:
        """Let time pass; nodes do what is due."""
        for _ in range(max(1, delay_ms // step_ms)):
            self.now_ms += step_ms
            for name in self.nodes:
                self.give(name)

    def record(self, *numbers: int) -> None:
        """Record rows on the device and let them be captured and sent."""
        policy = load(POLICY)
        rows = [{"who": "ann", "number": n, "label": f"row {n}", "secret": f"secret {n}"} for n in numbers]
        batch: pa.RecordBatch = to_batch(policy.collection("steps"), rows)
        self.give(WATCH, Record(1, "steps", batch))
        self.wait(500)

    def count(self, kind: str, what: str) -> int:
        return self.counts.get((kind, what), 0)

    def _note(self, wired: Wired, effects: Effects) -> None:
        self.sent += effects.send
        self.answers.update(effects.answers)
        for key, number in effects.counts.items():
            self.counts[key] = self.counts.get(key, 0) + number
        if effects.links is not None and effects.links != wired.links:
            gone, new = wired.links - effects.links, effects.links - wired.links
            wired.links = effects.links
            for link in gone:
                self.give(wired.name, LinkChange(link, up=False))
            for link in new:
                self.give(wired.name, LinkChange(link, up=True))
                self.give(NodeName(link), LinkChange(DEVICES, up=True))

    def _deliver(self, sender: NodeName, effects: Effects) -> None:
        for each in effects.send:
            if not self.lose(each):
                for name, link in self._receivers(sender, each):
                    self.give(name, Arrival(link, each.topic, each.payload))

    def _receivers(self, sender: NodeName, each: Outgoing) -> Iterator[tuple[NodeName, str]]:
        address = topics.parse(each.topic)
        if each.link == DEVICES:
            if WATCH in self.nodes and sender in self.nodes[WATCH].links and address.kind != "json":
                yield WATCH, sender
        elif each.link == BACKBONE:
            everyone = [name for name in self.nodes if name != WATCH and name != sender]
            if address.kind in ("beacon", "policy"):
                yield from ((name, BACKBONE) for name in everyone)
            else:
                yield (CLOUD if address.kind == "cloud" else address.owner), BACKBONE
        else:
            yield NodeName(each.link), DEVICES


@contextmanager
def wire(folder: Path) -> Iterator[Wire]:
    """Give a wire with everybody started, the policy active, and the device attached to its first edge."""
    entropy = random.Random(7).randbytes
    authority = Authority.create("acme", Instant(START_MS, 0), entropy=entropy)
    made: dict[NodeName, Wired] = {}

    def add(name: NodeName, role: Role, make: Callable[[Kit], Node]) -> None:
        stem = folder / name.replace("/", "-")
        database, keys = Database.open(f"sqlite:///{stem}.db"), Database.open(f"sqlite:///{stem}-keys.db")
        identity = authority.enrol(name, role, now=Instant(START_MS, 0), entropy=entropy)
        vault = Vault(entropy(32), SqlKeyShelf(keys), entropy)
        kit = Kit(identity, Trust([authority.certificate]), vault, entropy)
        made[name] = Wired(name, lambda: make(kit), database, keys, kit, make(kit))

    settings = EdgeSettings(CLOUD, Patience(hold_ms=5_000, source_timeout_ms=3_000))
    add(CLOUD, Role.CLOUD, CloudNode)
    add(CBD, Role.EDGE, lambda kit: EdgeNode(kit, settings))
    add(DOCKS, Role.EDGE, lambda kit: EdgeNode(kit, settings))
    add(WATCH, Role.DEVICE, lambda kit: DeviceNode(kit, DeviceSettings(frozenset({CBD, DOCKS}), CBD, 100, 200, {})))
    all_wired = Wire(made)
    try:
        for name in (CLOUD, CBD, DOCKS):
            all_wired.restart(name)
        all_wired.give(CLOUD, Activate(1, POLICY))
        for name in (CLOUD, CBD, DOCKS):
            for link in made[name].node.subscriptions:
                all_wired.give(name, LinkChange(link, up=True))
        all_wired.restart(WATCH)
        all_wired.wait(2_000)
        yield all_wired
    finally:
        for each in made.values():
            each.database.close()
            each.keys.close()
