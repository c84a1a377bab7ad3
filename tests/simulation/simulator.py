"""A deterministic simulator of the real nodes: virtual time, a seeded network, real SQLite, crashes at any commit.

Everything that happens follows from the seed. The network loses, doubles, delays and so reorders messages; a node
crashes before a commit, or after it and before anything is sent, and is built anew from its database. While faults
last devices record rows and roam; then the faults stop, and what was recorded must be where it belongs, once.
"""

import heapq
import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, node_name, operator_of
from datasync.handover import accounts
from datasync.handover.states import DeviceState, EdgeState
from datasync.nodes.cloud import CloudNode
from datasync.nodes.device import DeviceNode, DeviceSettings
from datasync.nodes.edge import EdgeNode, EdgeSettings
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import Activate, Arrival, Effects, Input, Kit, LinkChange, Move, Node, Record
from datasync.nodes.roster import Patience
from datasync.protocol import segment
from datasync.security.identity import Role
from datasync.security.trust import Authority, Trust
from datasync.security.vault import Vault
from datasync.store import segments, tables
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.segments import State
from datasync.store.streams import get as get_streams
from datasync.sync.capture import recorded
from datasync.transport.link import Packet
from datasync.transport.memory import MemoryBroker
from tests.simulation.rows import POLICY, ROW_SCHEMA, row_of
from tests.simulation.world import NO_FAULTS, Crash, Faults, Process, Walk

START_MS = 1_800_000_000_000
EDGES = tuple(node_name(f"acme/{name}") for name in ("cbd", "docks", "airport", "stadium"))
CLOUD = node_name("acme/cloud")


class Simulator:
    """One world, from one seed."""

    operators: ClassVar[tuple[str, ...]] = ("acme",)
    policy: bytes = POLICY

    def __init__(self, seed: int, folder: Path, *, devices: int = 3, rows: int = 60, fault_ms: int = 30_000) -> None:
        """Build the world of a seed: two, three or four edges."""
        self.chance = random.Random(seed)
        names = self.edge_names(seed)
        self.faults = Faults.drawn(self.chance)
        self.counts: Counter[str] = Counter()
        self.now_ms = 0
        self.folder = folder
        self._template = folder / "template.db"
        Database.open(f"sqlite:///{self._template}").close()
        self.fault_ms = fault_ms
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.tickets = itertools.count(1)
        self._brokers = {name: MemoryBroker() for name in (CLOUD, *names)}
        self._authorities = {
            name: Authority.create(name, Instant(START_MS, 0), entropy=self.chance.randbytes) for name in self.operators
        }
        self.trust = Trust([authority.certificate for authority in self._authorities.values()])
        name = node_name("acme/policy")
        enrol = self._authorities["acme"].enrol
        key = enrol(name, Role.POLICY, now=Instant(START_MS, 0), entropy=self.chance.randbytes)
        self.cloud = self._process(CLOUD, Role.CLOUD, (BACKBONE,), lambda kit: CloudNode(kit, key))
        settings = EdgeSettings(CLOUD, Patience(hold_ms=2_000, source_timeout_ms=3_000))
        self.edges = {
            name: self._process(name, Role.EDGE, (DEVICES, BACKBONE), lambda kit: EdgeNode(kit, settings))
            for name in names
        }
        self.walks = [self._walk(number, rows) for number in range(devices)]

    def edge_names(self, seed: int) -> tuple[NodeName, ...]:
        """Return the edges of a seed's world."""
        return EDGES[: 2 + seed % 3]

    def close(self) -> None:
        """Close all databases."""
        for process in self.processes:
            process.database.close()
            process.keys.close()

    @property
    def processes(self) -> list[Process]:
        """All processes."""
        return [self.cloud, *self.edges.values(), *(walk.process for walk in self.walks)]

    def run(self) -> None:
        """Let the world run: faults first, then none. Raises AssertionError when it does not come to rest."""
        for process in self.processes:
            self._boot(process)
        for walk in self.walks:
            self._after(self.chance.randint(100, 2_000), lambda walk=walk: self.live(walk))
        self.run_until(self.fault_ms, lambda: False)
        self.faults = NO_FAULTS
        self.run_until(self.fault_ms + 300_000, self.is_settled)
        assert self.is_settled(), self.describe()

    def describe(self) -> str:
        """Return where everything stands, for the message of a failure."""
        lines = [f"after {self.now_ms} ms, {dict(self.counts)}"]
        for walk in self.walks:
            node = walk.process.node
            here = node.whereabouts if isinstance(node, DeviceNode) else None
            lines.append(f"{walk.process.name}: row {walk.next_row} of {walk.rows}, {here}")
            lines += [f"  {name}: {self.account(name, walk.process.name)}" for name in self.edges]
        return "\n".join(lines)

    def account(self, edge: NodeName, device: NodeName) -> accounts.Account:
        """Return an edge's account of a device."""
        with self.edges[edge].database.read() as tx:
            return accounts.load(tx, device)

    # --- what devices' programs do

    def live(self, walk: Walk) -> None:
        """Record some rows or move; again until all rows are recorded."""
        if walk.process.node is not None and walk.process.node.policy is not None:
            if self.chance.random() < 0.15 and self.now_ms < self.fault_ms:
                target = self.chance.choice(list(self.edges))
                planned = self.chance.random() < 0.5
                self.counts["moves asked"] += 1
                self.deliver_input(walk.process, Move(next(self.tickets), target, planned))
            elif walk.next_row < walk.rows:
                self._record(walk)
        if walk.process.node is None or walk.next_row < walk.rows or self.now_ms < self.fault_ms:
            self._after(self.chance.randint(200, 1_500), lambda: self.live(walk))

    def _record(self, walk: Walk) -> None:
        last = min(walk.rows, walk.next_row + self.chance.randint(1, 6))
        batch = pa.RecordBatch.from_pylist(
            [row_of(walk.process.name, number) for number in range(walk.next_row, last)], schema=ROW_SCHEMA
        )
        walk.next_row = last
        self.deliver_input(walk.process, Record(next(self.tickets), "steps", batch))

    # --- processes

    def _process(self, name: NodeName, role: Role, links: tuple[str, ...], make: Callable[[Kit], Node]) -> Process:
        entropy = self.chance.randbytes
        authority = self._authorities[operator_of(name) or "acme"]
        identity = authority.enrol(name, role, now=Instant(START_MS, 0), entropy=entropy)
        path = self.folder / stem(name)
        database, keys = self._database(f"{path}.db"), self._database(f"{path}-keys.db")
        vault = Vault(entropy(32), SqlKeyShelf(keys), entropy)
        kit = Kit(identity, self.trust, vault, entropy, retry_ms=500)
        return Process(name, lambda: make(kit), database, keys, vault, self.chance.randint(-40, 40), links)

    def _database(self, path: str) -> Database:
        """Open a new database; copying one is faster than making its schema again."""
        shutil.copyfile(self._template, path)
        return Database.open(f"sqlite:///{path}")

    def _walk(self, number: int, rows: int) -> Walk:
        homes = [name for name in self.edges if operator_of(name) == "acme"]  # whose policy the devices obey
        home = homes[number % len(homes)]
        settings = DeviceSettings(frozenset({*EDGES, *self.edges}), home, flush_rows=5, flush_ms=200, meta={})
        name = node_name(f"watch-{number}")
        return Walk(self._process(name, Role.DEVICE, (), lambda kit: DeviceNode(kit, settings)), rows)

    def _boot(self, process: Process) -> None:
        process.life += 1
        process.node = process.build()
        process.inbox.clear()
        process.links.clear()
        process.turn_at_ms = None
        walk = next((walk for walk in self.walks if walk.process is process), None)
        if walk is not None:
            with process.database.read() as tx:
                walk.next_row = recorded(tx, process.name, "steps")
        process.database.checkpoint()
        if self._turn(process, lambda node, tx, now: node.start(tx, now)):
            for link in process.fixed_links:
                self._connect(process, link)
            if process is self.cloud and process.node.policy is None:
                self.deliver_input(process, Activate(next(self.tickets), self.policy))

    def _take_turn(self, process: Process, life: int) -> None:
        if process.life != life or process.node is None or process.turn_at_ms is None:
            return
        process.turn_at_ms = None
        inputs, process.inbox = process.inbox, []
        self._turn(process, lambda node, tx, now: node.handle(tx, inputs, now), inputs)

    def _turn(self, process: Process, work: Callable[..., Effects], inputs: Sequence[Input] = ()) -> bool:
        """Run one transaction and what follows; return whether the process is alive after it."""
        fate = self.chance.random()
        now = Instant(START_MS + self.now_ms + process.skew_ms, self.now_ms)
        try:
            with process.database.write() as tx:
                effects = work(process.node, tx, now)
                if fate < self.faults.crash / 2:
                    raise Crash
        except Crash:
            self._kill(process, "crashes before commit")
            return False
        self.committed(process, inputs)
        if fate < self.faults.crash:
            self._kill(process, "crashes after commit")
            return False
        self._follow(process, effects)
        return True

    def committed(self, process: Process, inputs: Sequence[Input]) -> None:
        """Do what is to be done when a transaction that took these inputs is durable."""

    def _follow(self, process: Process, effects: Effects) -> None:
        if effects.compact:
            process.database.checkpoint()
        for kind, what in effects.counts:
            self.counts[f"{kind} {what}"] += effects.counts[kind, what]
        if effects.links is not None:
            for link in sorted(process.links - effects.links):
                self._disconnect(process, link)
            for link in sorted(effects.links - process.links):
                self._connect(process, link)
        for each in effects.send:
            self.publish(process, each.link, Packet(each.topic, each.payload, each.retain))
        if effects.wake_ms is not None:
            self._schedule(process, max(effects.wake_ms, self.now_ms + 1))

    def _kill(self, process: Process, how: str, down_ms: int | None = None) -> None:
        """Let a process die, and start again when ``down_ms``, or (None) a time that is drawn, has passed."""
        self.counts[how] += 1
        process.life += 1
        process.node = None
        for link in sorted(process.links):
            self._disconnect(process, link)
        self._after(down_ms or self.chance.randint(20, 3_000), lambda: self._boot(process))

    def _cut(self, process: Process, for_ms: int) -> None:
        """Let a running process lose its fixed links for some time."""
        self.counts["is cut off"] += 1
        life = process.life
        for link in sorted(process.links):
            self._disconnect(process, link)
            self._after(for_ms, lambda link=link: self._connect(process, link) if process.life == life else None)

    def deliver_input(self, process: Process, each: Input) -> None:
        """Give a node an input soon; a process that is down does not get it."""
        if process.node is not None:
            process.inbox.append(each)
            self._schedule(process, self.now_ms + self.chance.randint(0, 3))

    def _schedule(self, process: Process, at_ms: int) -> None:
        if process.turn_at_ms is None or at_ms < process.turn_at_ms:
            process.turn_at_ms = at_ms
            life = process.life
            self._at(at_ms, lambda: self._take_turn(process, life) if process.turn_at_ms == at_ms else None)

    # --- the network

    def _broker(self, process: Process, link: str) -> tuple[NodeName, str]:
        """Return whose broker a link leads to, and the client's name there."""
        if link == DEVICES:
            return process.name, f"{process.name}-devices"
        if link == BACKBONE:
            return CLOUD, f"{process.name}-backbone"
        return NodeName(link), process.name

    def _connect(self, process: Process, link: str) -> None:
        process.links.add(link)
        life = process.life

        def connected() -> None:
            if process.life != life or link not in process.links or process.node is None:
                return
            owner, client = self._broker(process, link)
            filters = process.node.subscriptions.get(link) or process.node.subscriptions[""]
            self._brokers[owner].connect(client)
            retained = self._brokers[owner].subscribe(client, filters)
            self.deliver_input(process, LinkChange(link, up=True))
            for delivery in retained:
                self._carry(process, link, delivery.packet, kept=True)

        self._after(self.chance.randint(5, 150), connected)

    def _disconnect(self, process: Process, link: str) -> None:
        process.links.discard(link)
        owner, client = self._broker(process, link)
        self._brokers[owner].disconnect(client)
        self.deliver_input(process, LinkChange(link, up=False))

    def publish(self, process: Process, link: str, packet: Packet) -> None:
        """Let a node publish a packet on a link."""
        owner, client = self._broker(process, link)
        if link not in process.links or client not in self._brokers[owner].clients:
            self.counts["unsent"] += 1
            return
        retain = packet.retain
        for delivery in self._brokers[owner].publish(client, packet):
            self._carry(*self._client(owner, delivery.client), delivery.packet, kept=retain)

    def _client(self, owner: NodeName, client: str) -> tuple[Process, str]:
        for process in self.processes:
            for link in process.links:
                if self._broker(process, link) == (owner, client):
                    return process, link
        raise AssertionError(f"{client} is connected to the broker of {owner} and has no process")

    def _carry(self, target: Process, link: str, packet: Packet, *, kept: bool) -> None:
        """Take a packet to a client; what the broker keeps it repeats until it is acknowledged or the client leaves."""
        copies = 1 + (self.chance.random() < self.faults.duplication)
        for _ in range(copies):
            if not kept and self.chance.random() < self.faults.loss:
                self.counts["lost messages"] += 1
                continue
            life = target.life

            def arrive(life: int = life) -> None:
                if target.life == life and link in target.links:
                    self.deliver_input(target, Arrival(link, packet.topic, packet.payload))

            self._after(self.chance.randint(1, self.faults.delay_ms_max), arrive)

    # --- time

    def _after(self, delay_ms: int, event: Callable[[], None]) -> None:
        self._at(self.now_ms + delay_ms, event)

    def _at(self, at_ms: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_ms, next(self._order), event))

    def run_until(self, end_ms: int, done: Callable[[], bool]) -> None:
        """Let the world run until a time, or until it is done."""
        look_ms = self.now_ms
        while self._events and self._events[0][0] <= end_ms:
            self.now_ms, _, event = heapq.heappop(self._events)
            event()
            if self.now_ms >= look_ms:
                if done():
                    return
                look_ms = self.now_ms + 500

    # --- what must hold in the end

    def is_settled(self) -> bool:
        """Whether every device is at home at one edge alone and nothing waits anywhere."""
        return all(self._is_home(walk) for walk in self.walks) and self._nothing_waits()

    def _is_home(self, walk: Walk) -> bool:
        node = walk.process.node
        if not isinstance(node, DeviceNode):
            return False
        with walk.process.database.read() as tx:
            if recorded(tx, walk.process.name, "steps") < walk.rows:
                return False
        here = node.whereabouts
        if here.state is not DeviceState.ATTACHED or here.mode != "full" or here.wish is not None or here.edge is None:
            return False
        others = [self.account(edge, walk.process.name).state for edge in self.edges if edge != here.edge]
        serving = self.account(here.edge, walk.process.name)
        gone = all(state in (EdgeState.UNKNOWN, EdgeState.ERASED) for state in others)
        return serving.state is EdgeState.ACTIVE and serving.registered and not serving.unreleased and gone

    def _nothing_waits(self) -> bool:
        for process in self.processes:
            with process.database.read() as tx:
                if segments.count(tx, [State.WAITING, State.DURABLE]):
                    return False
        return True

    def rows_at(self, process: Process, device: NodeName | None = None) -> list[tuple[str, int, dict[str, object]]]:
        """Return (tier, sequence number, columns) of every visible row at a node, of one device if given."""
        found = []
        with process.database.read() as tx:
            metadata = tx.execute(tables.segments.select().where(tables.segments.c.position.is_not(None))).all()
            for row in metadata:
                stream = get_streams(tx, [row.stream_id])[row.stream_id]
                if device is not None and stream.device != device:
                    continue
                body = segments.bodies(tx, [row.id])[row.id]
                plain = process.vault.decrypt(row.stream_id, row.key_id, row.seq_first, body)
                batch, numbers = segment.rows(segment.parse(plain))
                tier = stream.tier.label
                found += [(tier, int(n), values) for n, values in zip(numbers, batch.to_pylist(), strict=True)]
        return found


def stem(name: NodeName) -> str:
    """Return what the names of a node's files begin with."""
    return name.replace("/", "-")
