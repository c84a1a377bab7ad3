"""Worlds of two operators: devices cross between their edges, and their subjects say whether their rows may.

The same simulator with faults of all kinds, another policy, and half of the edges another operator's. What acme's edges
give to the other's is looked at on its way, packet by packet. When all has come to rest, each device crosses once more
without faults, so that what arrives can be compared with what was there, row by row.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, StreamId, node_name, operator_of, stream_id
from datasync.nodes.device import DeviceNode
from datasync.nodes.node import ConsentInput, Move
from datasync.protocol import envelope, segment, topics
from datasync.protocol.messages import Delta, Prepare, Segments, decode
from datasync.store import segments, streams, terms
from datasync.store.segments import StoredSegment
from datasync.transport.link import Packet
from tests.simulation.erasing import ErasingSimulator
from tests.simulation.rows import POLICY
from tests.simulation.simulator import START_MS
from tests.simulation.world import Process, Walk

ACME = tuple(node_name(f"acme/{name}") for name in ("cbd", "docks"))
BOREALIS = tuple(node_name(f"borealis/{name}") for name in ("pier", "quay"))
FIELDS = {"who", "number"}
SHORT_MS, LONG_MS = 20_000, 3_600_000
BACK = "\n  - {id: H2, from: borealis, to: acme, data: steps, action: move, onward: true}"


def crossing_policy(retain_ms: int, *, back: bool) -> bytes:
    """Return the simulation's policy for two operators: what crosses is narrowed; ``back``, originals move."""
    source = POLICY.decode().replace("operators: [acme]", "operators: [acme, borealis]")
    narrow = (
        "{id: H1, from: acme, to: borealis, data: steps, action: pseudonymise, fields: [who, number],"
        f" purposes: [test.run], requires: [roaming], retain: {retain_ms // 1_000}s, onward: false}}"
    )
    return f"{source}  roaming: opt_in\nhandover:\n  - {narrow}{BACK if back else ''}\n".encode()


@dataclass(frozen=True, slots=True)
class Held:
    """A row at an edge: of a derived stream or an original one, and when it was captured (ms)."""

    tier: str
    number: int
    columns: dict[str, Any]
    derived: bool
    captured_ms: int
    visible: bool


class CrossingSimulator(ErasingSimulator):
    """One world of two operators, from one seed."""

    operators: ClassVar[tuple[str, ...]] = ("acme", "borealis")

    def __init__(self, seed: int, folder: Path, *, devices: int = 3, rows: int = 60, fault_ms: int = 30_000) -> None:
        """Build the world of a seed: rows that cross are kept for long or for a short time, and come back or do not."""
        self.words = random.Random(f"words of {seed}")
        self.retain_ms = self.words.choice([SHORT_MS, LONG_MS])
        self.back = self.words.random() < 0.5
        self.policy = crossing_policy(self.retain_ms, back=self.back)
        self.said_yes: set[NodeName] = set()
        super().__init__(seed, folder, devices=devices, rows=rows, fault_ms=fault_ms)

    def edge_names(self, seed: int) -> tuple[NodeName, ...]:
        """Return one or two edges of each operator."""
        return (ACME[0], BOREALIS[0], ACME[1], BOREALIS[1])[: 2 + seed % 3]

    def live(self, walk: Walk) -> None:
        """Sometimes the subject says whether its rows may cross; one in three never says yes."""
        if self.words.random() < 0.2:
            self.say(walk, given=self.words.random() < 0.8 and walk is not self.walks[0])
        super().live(walk)

    def say(self, walk: Walk, *, given: bool) -> None:
        """Let the subject of a device say whether its rows may cross."""
        if walk.process.node is not None and walk.process.node.policy is not None:
            if given:
                self.said_yes.add(walk.process.name)
            self.deliver_input(walk.process, ConsentInput(next(self.tickets), "roaming", given))

    def publish(self, process: Process, link: str, packet: Packet) -> None:
        """Look at what crosses from acme, then let it go on its way."""
        address = topics.parse(packet.topic)
        if address.kind == "edge" and process.name in ACME and address.owner in BOREALIS:
            self._look(process, packet)
        super().publish(process, link, packet)

    def cross(self, walk: Walk, *, given: bool) -> tuple[NodeName, list[Held], NodeName]:
        """Let a device cross without faults; return from where, what was there, and to where."""
        assert isinstance(walk.process.node, DeviceNode)
        origin = walk.process.node.whereabouts.edge
        assert origin is not None
        others = [name for name in self.edges if operator_of(name) != operator_of(origin)]
        target = self.words.choice(others)
        self.say(walk, given=given)
        self.run_until(self.now_ms + 100, lambda: False)
        held = self.held(self.edges[origin], walk.process.name)
        self.deliver_input(walk.process, Move(next(self.tickets), target, planned=self.words.random() < 0.5))
        self.run_until(self.now_ms + 1_000, lambda: False)
        self.run_until(self.now_ms + 60_000, self.is_settled)
        assert self.is_settled(), self.describe()
        assert walk.process.node.whereabouts.edge == target, self.describe()
        return origin, held, target

    def held(self, process: Process, device: NodeName) -> list[Held]:
        """Return every row of a device that can be read at an edge, whether it may be seen or not."""
        found: list[Held] = []
        with process.database.read() as tx:
            derived = terms.of_device(tx, device)
            for stream in streams.of_device(tx, device):
                for each in segments.of_stream(tx, stream.stream):
                    if process.vault.has(each.stream, each.key_id):
                        body = segments.bodies(tx, [each.id])[each.id]
                        found += self._rows(process, each, body, derived=stream.stream in derived)
        return found

    def _rows(self, process: Process, each: StoredSegment, body: bytes, *, derived: bool) -> list[Held]:
        plain = process.vault.decrypt(each.stream, each.key_id, each.seq_first, body)
        batch, numbers = segment.rows(segment.parse(plain))
        rows = batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows
        captured_ms, visible = each.captured.wall_ms - START_MS, each.position is not None
        return [
            Held(each.tier.label, int(number), row, derived, captured_ms, visible)
            for number, row in zip(numbers, rows, strict=True)
        ]

    def _look(self, process: Process, packet: Packet) -> None:
        now = Instant(START_MS + self.now_ms, self.now_ms)
        message = decode(envelope.verify(packet.payload, packet.topic, self.trust, now, bytes_max=1 << 24).body)
        assert not isinstance(message, Prepare | Segments), f"{process.name} prepares a move to another operator"
        if isinstance(message, Delta):
            made: set[StreamId] = {stream_id(each.public_key) for each in message.derived}
            assert message.streams == [], f"{process.name} gives originals to another operator"
            assert {each.stream for each in message.segments} <= made
            assert not message.segments or message.device in self.said_yes, f"{message.device} never said that it may"
            self.counts["derived segments sent"] += len(message.segments)


def simulator_of(seed: int, folder: Path) -> ErasingSimulator:
    """Return the world of a seed; in one of five there are two operators."""
    return CrossingSimulator(seed, folder) if seed % 5 == 4 else ErasingSimulator(seed, folder)
