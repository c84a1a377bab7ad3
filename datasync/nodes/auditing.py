"""The logs' second place: an edge tells the cloud where its logs end, and the cloud countersigns it.

At most once in ``INTERVAL_MS`` and only when something was logged since, an edge sends the heads of its logs. The cloud
keeps the newest of each edge, signs it, and sends that back. A head that contradicts an earlier one is not signed: it
is in the cloud's own audit log and an alarm there. So an edge's administrator who rewrites its log is found in two
ways: the countersignature, which nobody there can make, names an entry that the log does not have any more; and once
the edge speaks again, the cloud has heard another story before.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import MessageError, SignerForeign
from datasync.domain.ids import NodeName
from datasync.domain.limits import CONTROL_BYTES_MAX
from datasync.nodes.links import BACKBONE
from datasync.nodes.node import Node, Turn
from datasync.protocol import cbor, cose, envelope, topics
from datasync.protocol.messages import Countersigned, Heads
from datasync.protocol.parts import HeadStatement, LogHead, decode_part
from datasync.security.identity import Role
from datasync.security.trust import Peer, Trust
from datasync.store import audit, heads
from datasync.store.audit import Event
from datasync.store.chain import Head
from datasync.store.heads import LOGS, Countersignature, Said, Verdict

INTERVAL_MS = 60_000


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who can say more of a node's logs than they themselves: its cloud, of whom something is kept, or was told.

    ``cloud`` None: whichever countersigned. ``told`` is what the cloud printed of what this node said to it.
    """

    node: NodeName
    trust: Trust
    cloud: NodeName | None = None
    told: tuple[Said, ...] = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """By log the number of its entries, and up to which and when the cloud countersigned it; and what is wrong."""

    entries: dict[str, int]
    countersigned: dict[str, int]
    countersigned_ms: int | None
    wrong: list[str]


class Witnessed:
    """An edge's part. It remembers when it last looked; a new one looks at once."""

    def __init__(self, node: Node, cloud: NodeName) -> None:
        self._node = node
        self._cloud = cloud
        self._due_ms = 0
        node.on(Countersigned, self._take, Role.CLOUD)

    def duties(self, turn: Turn) -> None:
        """Say where the logs end, if it is time and the cloud has not countersigned just that."""
        if turn.now.steady_ms >= self._due_ms and (ends := own_heads(turn.tx)):
            self._due_ms = turn.now.steady_ms + INTERVAL_MS
            if ends != self._countersigned(turn.tx):
                said = Heads(heads=ends, stamp=self._node.stamp(turn.now).pack())
                self._node.send(turn, BACKBONE, topics.cloud_in(self._node.name), said)
        turn.effects.wake(self._due_ms if self._due_ms > turn.now.steady_ms else None)

    def _countersigned(self, tx: Connection) -> list[LogHead]:
        kept = heads.countersignature(tx)
        return [] if kept is None else _said(kept).heads

    def _take(self, turn: Turn, peer: Peer, message: Countersigned) -> None:
        taken = Countersignature(message.statement, turn.now.wall_ms)
        said = opened(taken, self._node.kit.trust, self._cloud, self._node.name)
        if (wrong := difference(turn.tx, said.heads)) is not None:
            raise MessageError(f"{peer.name} countersigned what is not in the log: {wrong}")
        kept = heads.countersignature(turn.tx)
        if kept is None or _said(kept).stamp <= said.stamp:
            heads.put_countersignature(turn.tx, taken)


class Witness:
    """The cloud's part."""

    def __init__(self, node: Node) -> None:
        self._node = node
        node.on(Heads, self._take, Role.EDGE)

    def _take(self, turn: Turn, peer: Peer, message: Heads) -> None:
        said_ms = HybridTime.unpack(message.stamp).wall_ms
        ends = {log: Head() for log in LOGS if heads.get(turn.tx, peer.name, log) is not None}  # a log never vanishes
        ends |= {each.log: Head(each.number, each.hash) for each in message.heads if each.log in LOGS}
        verdicts = {log: heads.take(turn.tx, peer.name, log, head, said_ms) for log, head in ends.items()}
        wrong = [log for log, verdict in verdicts.items() if verdict is Verdict.CONTRADICTING]
        for log in wrong:
            self._contradicted(turn, peer, log, ends[log])
        if verdicts and not wrong and Verdict.OUTDATED not in verdicts.values():
            named = [LogHead(log=log, number=head.number, hash=head.hash) for log, head in ends.items()]
            statement = HeadStatement(node=peer.name, heads=named, stamp=message.stamp)
            signed = envelope.sign(self._node.kit.identity, HeadStatement.CONTEXT, cbor.dumps(statement.model_dump()))
            topic = topics.edge_in(peer.name, self._node.name)
            self._node.send(turn, BACKBONE, topic, Countersigned(statement=signed))

    def _contradicted(self, turn: Turn, peer: Peer, log: str, head: Head) -> None:
        if heads.contradict(turn.tx, peer.name, log, turn.now.wall_ms):
            known = heads.get(turn.tx, peer.name, log)
            detail = {"log": log, "number": head.number, "hash": head.hash, "known": known.number if known else None}
            audit.append(turn.tx, Event.LOG_CONTRADICTED, self._node.name, peer.name, detail, turn.now.wall_ms)
            turn.effects.alarms.append(
                f"{peer.name}: its log {log} ends with entry {head.number}, which contradicts what it said before"
            )


def find(tx: Connection, witnesses: Witnesses | None) -> Findings:
    """Look for edits and deletions in a node's logs: in their chains, and by what witnesses there are."""
    entries = {name: log.chain.head(tx).number for name, log in LOGS.items()}
    wrong = [f"the log {name}: {found}" for name, log in LOGS.items() if (found := log.verify(tx)) is not None]
    if witnesses is None:
        return Findings(entries, {}, None, wrong)
    countersigned: list[LogHead] = []
    kept = heads.countersignature(tx)
    if kept is not None:
        try:
            countersigned = opened(kept, witnesses.trust, witnesses.cloud, witnesses.node).heads
        except MessageError as error:
            wrong.append(f"the countersignature does not hold: {error}")
    told = [LogHead(log=each.log, number=each.number, hash=each.hash) for each in witnesses.told]
    for ends, whose in ((countersigned, "the cloud countersigned"), (told, "the cloud was told")):
        if (found := difference(tx, ends)) is not None:
            wrong.append(f"{found}, compared with what {whose}")
    taken_ms = kept.taken_ms if kept is not None and countersigned else None
    return Findings(entries, {each.log: each.number for each in countersigned}, taken_ms, wrong)


def own_heads(tx: Connection) -> list[LogHead]:
    """Return where this node's logs end, those that have entries."""
    ends = {name: log.chain.head(tx) for name, log in LOGS.items()}
    return [LogHead(log=name, number=head.number, hash=head.hash) for name, head in ends.items() if head.number]


def difference(tx: Connection, ends: list[LogHead]) -> str | None:
    """Return in what this node's logs do not have these entries, None when they have them all."""
    for each in ends:
        found = LOGS[each.log].chain.hash_at(tx, each.number) if each.log in LOGS else None
        if found != each.hash:
            return f"entry {each.number} of the log {each.log} is {'missing' if found is None else 'another one'}"
    return None


def opened(taken: Countersignature, trust: Trust, cloud: NodeName | None, node: NodeName) -> HeadStatement:
    """Return what a cloud countersigned for a node; ``cloud`` None: any.

    Raises MessageError and its kinds when it was not the cloud, or is not of this node.
    """
    now = Instant(taken.taken_ms, 0)
    signed = envelope.verify(taken.statement, HeadStatement.CONTEXT, trust, now, bytes_max=CONTROL_BYTES_MAX)
    if signed.peer.role is not Role.CLOUD or (cloud is not None and signed.peer.name != cloud):
        raise SignerForeign(f"{signed.peer.role} {signed.peer.name} countersigned, and not {cloud or 'a cloud'}")
    said = decode_part(HeadStatement, signed.body)
    if said.node != node:
        raise SignerForeign(f"the countersignature is of the logs of {said.node}, not of {node}")
    return said


def _said(kept: Countersignature) -> HeadStatement:
    """Return what a countersignature says that was checked when it was kept."""
    return decode_part(HeadStatement, cose.parse_signed(kept.statement, frozenset({cose.HEADER_X5CHAIN})).payload)
