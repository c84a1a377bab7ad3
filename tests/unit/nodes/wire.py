"""Nodes by hand: a device, edges and a cloud on SQLite, and messages that go where a test says."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, node_name, operator_of
from datasync.domain.limits import SIGN_MS
from datasync.handover import accounts
from datasync.handover.machine import Account
from datasync.handover.states import EdgeState
from datasync.nodes.cloud import CloudNode
from datasync.nodes.device import DeviceNode, DeviceSettings
from datasync.nodes.edge import EdgeNode, EdgeSettings
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import (
    SEALED_MARK,
    Activate,
    Arrival,
    Effects,
    Input,
    Kit,
    LinkChange,
    Node,
    Outgoing,
    Record,
)
from datasync.nodes.roster import Patience
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from datasync.protocol import envelope, topics
from datasync.protocol.envelope import Sealer
from datasync.protocol.messages import Message, decode
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority, Peer, Trust
from datasync.security.vault import Vault
from datasync.store import segments, tables
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.segments import StoredSegment

POLICY_KEY = node_name("acme/policy")
START_MS = 1_800_000_000_000
WATCH = node_name("watch-1")
CBD, DOCKS, AIRPORT, CLOUD = (node_name(f"acme/{name}") for name in ("cbd", "docks", "airport", "cloud"))

POLICY = b"""
schema: datasync.policy/v1
id: wire
revision: 1
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme]
purposes: [test.run, test.research]
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
  basis: {test.run: contract, test.research: opt_out}
"""

Kind = TypeVar("Kind", bound=Message)


@dataclass(slots=True)
class Wired:
    """One node with its databases; ``build`` makes it anew, as after a crash."""

    build: Callable[[], Node]
    database: Database
    keys: Database
    kit: Kit
    node: Node
    links: frozenset[str] = frozenset()
    """A device's links; those of other nodes never change."""

    @property
    def peer(self) -> Peer:
        """The node as its certificate proves it."""
        return self.kit.trust.verify(self.kit.identity.certificate, Instant(START_MS, 0))

    def held(self) -> dict[str, list[Any]]:
        """Everything in the node's database but its clock and challenge, its log, and when it last heard of whom."""
        kept = [table for table in tables.metadata.sorted_tables if table.name not in ("registers", "peers", "audit")]
        with self.database.read() as tx:
            found = {table.name: [tuple(row) for row in tx.execute(select(table))] for table in kept}
        return found | {"counters": [row for row in found["counters"] if row[0] != "audit"]}

    def segments(self) -> list[StoredSegment]:
        with self.database.read() as tx:
            return segments.page(tx, after_id=0, limit=1_000)

    def rows(self) -> dict[str, int]:
        """How many rows there are of each tier."""
        with self.database.read() as tx:
            return {each.tier.label: each.rows for each in segments.counts(tx)}

    def shown(self) -> dict[str, int]:
        """How many rows of each tier may be seen."""
        found: dict[str, int] = {}
        for each in self.segments():
            if each.position is not None:
                found[each.tier.label] = found.get(each.tier.label, 0) + each.rows
        return found


@dataclass(slots=True)
class Wire:
    """All nodes, the moment, and what was counted; ``lose`` decides what is not delivered."""

    nodes: dict[NodeName, Wired]
    authority: Authority
    other: Authority
    """Another operator's, which everybody trusts as well."""
    policy_key: Identity
    entropy: Callable[[int], bytes]
    now_ms: int = 0
    wall_shift_ms: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    answers: dict[int, Any] = field(default_factory=dict)
    sent: list[Outgoing] = field(default_factory=list)
    lose: Callable[[Outgoing], bool] = lambda _: False

    @property
    def now(self) -> Instant:
        return Instant(START_MS + self.now_ms + self.wall_shift_ms, self.now_ms)

    @property
    def device(self) -> DeviceNode:
        node = self.nodes[WATCH].node
        assert isinstance(node, DeviceNode)
        return node

    def identity(self, name: NodeName) -> Identity:
        return self.nodes[name].kit.identity

    def account(self, edge: NodeName, device: NodeName = WATCH) -> Account:
        with self.nodes[edge].database.read() as tx:
            return accounts.load(tx, device)

    def state(self, edge: NodeName, device: NodeName = WATCH) -> EdgeState:
        return self.account(edge, device).state

    def give(self, name: NodeName, *inputs: Input, deliver: bool = True) -> Effects:
        """Give inputs to a node in one transaction, and deliver what follows."""
        wired = self.nodes[name]
        with wired.database.write() as tx:
            effects = wired.node.handle(tx, inputs, self.now)
        self._note(name, effects)
        if deliver:
            self._deliver(name, effects)
        return effects

    def signed(self, sender: Identity, to: NodeName, topic: str, message: Message, *, sealed: bool = False) -> Arrival:
        """Return a message as a broker would bring it to a node."""
        body = message.encode()
        if sealed:
            body = Sealer(sender, self.entropy).seal(self.nodes[to].peer, topic, body)
        backbone = topics.parse(topic).kind in ("edge", "cloud", "policy", "beacon")
        said = Outgoing(BACKBONE if backbone else DEVICES, topic, envelope.sign(sender, topic, body))
        return Arrival(self._link(to, said), topic, said.payload)

    def say(self, sender: Identity, to: NodeName, topic: str, message: Message, *, sealed: bool = False) -> Effects:
        """Give a node a message that ``sender`` signed; what follows is kept back."""
        return self.give(to, self.signed(sender, to, topic, message, sealed=sealed), deliver=False)

    def said(self, kind: type[Kind], effects: Effects | None = None) -> list[Kind]:
        """Return the plain messages of a kind among what was sent, in all or by these effects."""
        found = (self._plain(each) for each in (self.sent if effects is None else effects.send))
        return [message for message in found if isinstance(message, kind)]

    def carried(self, kind: type[Message], to: NodeName) -> list[Arrival]:
        """Return the plain messages of a kind that were sent to a node, as they are brought to it."""
        return [
            Arrival(self._link(to, each), each.topic, each.payload)
            for each in self.sent
            if isinstance(self._plain(each), kind) and self._receiver(each) == to
        ]

    def _plain(self, each: Outgoing) -> Message | None:
        trust = self.nodes[CLOUD].kit.trust
        body = envelope.verify(each.payload, each.topic, trust, self.now, bytes_max=1 << 24).body
        return None if body[:1] == SEALED_MARK else decode(body)

    def _receiver(self, each: Outgoing) -> NodeName:
        address = topics.parse(each.topic)
        if each.link == BACKBONE:
            return CLOUD if address.kind == "cloud" else address.owner
        return WATCH if each.link == DEVICES else NodeName(each.link)

    def _link(self, to: NodeName, each: Outgoing) -> str:
        if to == WATCH:
            return next(iter(self.nodes[WATCH].links))
        return BACKBONE if each.link == BACKBONE else DEVICES

    def restart(self, name: NodeName) -> None:
        """Build a node anew from its database, its links up."""
        wired = self.nodes[name]
        wired.node = wired.build()
        with wired.database.write() as tx:
            effects = wired.node.start(tx, self.now)
        wired.links = frozenset()
        self._note(name, effects)
        self._deliver(name, effects)
        if name != WATCH:
            self.greet(name)

    def greet(self, name: NodeName) -> None:
        """Let a node's own links come up."""
        for link in self.nodes[name].node.subscriptions:
            self.give(name, LinkChange(link, up=True))

    def wait(self, delay_ms: int, step_ms: int = 250) -> None:
        """Let time pass; nodes do what is due."""
        for _ in range(max(1, delay_ms // step_ms)):
            self.now_ms += step_ms
            for name in self.nodes:
                self.give(name)

    def record(self, *numbers: int) -> None:
        """Record rows on the device and let them be captured and sent."""
        self.give(WATCH, recorded(*numbers))
        self.wait(1_000)

    def count(self, kind: str, what: str) -> int:
        return self.counts.get((kind, what), 0)

    def _note(self, name: NodeName, effects: Effects) -> None:
        self.sent += effects.send
        self.answers.update(effects.answers)
        for key, number in effects.counts.items():
            self.counts[key] = self.counts.get(key, 0) + number
        wired = self.nodes[name]
        if effects.links is not None and effects.links != wired.links:
            gone, new = wired.links - effects.links, effects.links - wired.links
            wired.links = effects.links
            for link in gone:
                self.give(name, LinkChange(link, up=False))
            for link in new:
                self.give(name, LinkChange(link, up=True))
                self.give(NodeName(link), LinkChange(DEVICES, up=True))

    def _deliver(self, sender: NodeName, effects: Effects) -> None:
        for each in effects.send:
            if not self.lose(each):
                for name, link in self._receivers(sender, each):
                    self.give(name, Arrival(link, each.topic, each.payload))

    def _receivers(self, sender: NodeName, each: Outgoing) -> Iterator[tuple[NodeName, str]]:
        address = topics.parse(each.topic)
        if each.link == DEVICES:
            if sender in self.nodes[WATCH].links and address.kind != "json":
                yield WATCH, sender
        elif each.link == BACKBONE:
            everyone = [name for name in self.nodes if name not in (WATCH, sender)]
            if address.kind in ("beacon", "policy", "revoked"):
                yield from ((name, BACKBONE) for name in everyone)
            elif self._receiver(each) in self.nodes:
                yield self._receiver(each), BACKBONE
        else:
            yield NodeName(each.link), DEVICES


def recorded(*numbers: int, ticket: int = 1) -> Record:
    """Return rows as a device's program records them."""
    rows = [{"who": "ann", "number": n, "label": f"row {n}", "secret": f"secret {n}"} for n in numbers]
    return Record(ticket, "steps", to_batch(load(POLICY).collection("steps"), rows))


@contextmanager
def wire(
    folder: Path,
    template: Path,
    edges: Sequence[NodeName] = (CBD, DOCKS),
    policy: bytes = POLICY,
    sign_ms: int = SIGN_MS,
) -> Iterator[Wire]:
    """Give a wire with everybody started, the policy active, and the device attached to its first edge.

    ``template`` is a database with the schema. Edges hold a copy for 5 s and wait for a silent source for 3 s; those of
    the other operator obey the same cloud.
    """
    entropy = random.Random(7).randbytes
    start = Instant(START_MS, 0)
    authority = Authority.create("acme", start, entropy=entropy)
    other = Authority.create("globex", start, entropy=entropy)
    trusted = [authority.certificate, other.certificate]
    policy_key = authority.enrol(POLICY_KEY, Role.POLICY, now=start, entropy=entropy)
    net = Wire({}, authority, other, policy_key, entropy)

    def add(name: NodeName, role: Role, make: Callable[[Kit], Node]) -> None:
        stem = folder / name.replace("/", "-")
        paths = [shutil.copyfile(template, f"{stem}{end}.db") for end in ("", "-keys")]
        database, keys = (Database.open(f"sqlite:///{path}") for path in paths)
        enrolling = other if operator_of(name) == "globex" else authority
        identity = enrolling.enrol(name, role, now=start, entropy=entropy)
        kit = Kit(identity, Trust(trusted), Vault(entropy(32), SqlKeyShelf(keys), entropy), entropy)
        net.nodes[name] = Wired(lambda: make(kit), database, keys, kit, make(kit))

    patience = EdgeSettings(CLOUD, Patience(hold_ms=5_000, source_timeout_ms=3_000))
    add(CLOUD, Role.CLOUD, lambda kit: CloudNode(kit, policy_key))
    for edge in edges:
        add(edge, Role.EDGE, lambda kit: EdgeNode(kit, patience))
    settings = DeviceSettings(frozenset(edges), edges[0], flush_rows=100, flush_ms=200, meta={}, sign_ms=sign_ms)
    add(WATCH, Role.DEVICE, lambda kit: DeviceNode(kit, settings))
    try:
        for name in (CLOUD, *edges):
            net.restart(name)
        net.give(CLOUD, Activate(1, policy))
        for name in (CLOUD, *edges):
            net.greet(name)
        net.restart(WATCH)
        net.wait(1_500)
        yield net
    finally:
        for each in net.nodes.values():
            each.database.close()
            each.keys.close()
