"""Erasing: what a place does when a subject's streams are to be forgotten, and how it tells the other places.

A statement is signed with the key of its stream, so a place obeys it without knowing who asks, and whoever passes it on
need not be believed. It obeys in two transactions. In the first the statement becomes a tombstone, and everything that
is stored of the stream goes: rows, consents, what another operator's edge made of it and the terms of that, and of the
models that learned from it those that are not to stay (:mod:`datasync.nodes.erasing_models`). In the next the data keys
are destroyed, durably, and only then the receipt is signed and given. A crash in between is made up for when the node
starts; of a stream that has a tombstone nothing is ever taken again.

An edge that a device asks tells its cloud and every edge whose beacon it ever heard, as any of them may have been sent
something in advance, or may get something late; it goes on, ever less often, until it has all receipts. Its cloud
hears the same beacons and knows no more, so it only obeys; an edge of another operator, which may have another cloud,
tells that one. Whoever sends what was erased is told the statement, and
obeys it too: so a node that was away, or was restored from an old copy, learns of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature

from datasync.domain import limits
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import MessageError, SignatureInvalid, SignerForeign, StreamErased
from datasync.domain.ids import NodeName, StreamId, operator_of, stream_id
from datasync.domain.tiers import Place
from datasync.handover import accounts
from datasync.handover.states import EdgeState
from datasync.nodes import erasing_models
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import Node, Turn
from datasync.protocol import cbor, envelope, topics
from datasync.protocol.messages import Erase, Erased
from datasync.protocol.parts import EraseReceipt, EraseStatement, decode_part
from datasync.security import points
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import ageing, audit, checkpoints, compaction, consents, erasures, peers, segments, streams, terms
from datasync.store.audit import Event
from datasync.store.erasures import Erasure, Receipt

SHRED_STREAMS = 256
"""Streams whose keys one transaction destroys."""

ASKERS_MAX = 4_096

Item = TypeVar("Item")


class Asker(NamedTuple):
    """Who asked, and will be told when there are more receipts."""

    role: Role
    name: NodeName


@dataclass(slots=True)
class Pursuit:
    """The telling of one place (None: of any) until its receipts are here."""

    place: NodeName | None
    due_ms: int | None = 0
    interval_ms: int = limits.RETRY_MS

    def soon(self, now: Instant) -> None:
        """Begin to tell now, and often again."""
        self.due_ms, self.interval_ms = now.steady_ms, limits.RETRY_MS

    def pursue(self, node: Node, turn: Turn, link: str, topic: str) -> None:
        """Tell all that is awaited, if it is time; the next time is later, and never when nothing is awaited."""
        if self.due_ms is not None and turn.now.steady_ms >= self.due_ms:
            self.due_ms, after = None, None
            while page := erasures.awaited_of(turn.tx, self.place, after=after, limit=limits.ERASE_STATEMENTS_MAX):
                node.send(turn, link, topic, Erase(statements=_statements(page)))
                after = page[-1].stream
                self.due_ms = turn.now.steady_ms + self.interval_ms
            self.interval_ms = min(2 * self.interval_ms, limits.ERASE_RETRY_MS_MAX)
        turn.effects.wake(self.due_ms)


class Erasing:
    """How one node obeys, and answers. It remembers who asked; who is forgotten asks again."""

    def __init__(self, node: Node, *roles: Role) -> None:
        """Take statements and receipts from nodes of these roles."""
        self._node = node
        self._shred_due_ms: int | None = 0
        self._askers: dict[Asker, set[StreamId]] = {}
        self._news: dict[StreamId, set[str]] = {}
        self._speaks_for: frozenset[str] = frozenset([node.name])
        self._tickets: dict[int, tuple[StreamId, ...]] = {}
        node.on(Erase, self._on_erase, *roles)
        node.on(Erased, self._on_erased, *roles)

    def answer(self, ticket: int, erased: Iterable[StreamId]) -> None:
        """Answer who asked here, when the keys here are destroyed."""
        self._tickets[ticket] = tuple(erased)

    def duties(self, turn: Turn) -> None:
        """Destroy the keys of what was erased in transactions before this one, and tell who asked what is new."""
        if self._shred_due_ms is not None and turn.now.steady_ms >= self._shred_due_ms:
            self._shred(turn)
        if self._shred_due_ms is None:
            turn.effects.answers.update(self._tickets)
            self._tickets.clear()
        turn.effects.wake(self._shred_due_ms)
        for asker, asked in self._askers.items():
            if fresh := asked & self._news.keys():
                self._tell(turn, asker, fresh, news_only=True)
        self._news.clear()

    def erase(self, turn: Turn, statements: Sequence[EraseStatement], wanted_by: str) -> list[StreamId]:
        """Erase what these statements name, and return the streams. Raises SignatureInvalid; then none is erased."""
        for each in statements:
            _verify(each)
        named = {stream_id(each.public_key): each for each in statements}
        gone = erasures.among(turn.tx, named)
        for stream, each in named.items():
            if stream not in gone:
                self._entomb(turn, stream, each, wanted_by)
        return list(named)

    def refuse(self, turn: Turn, peer: Peer, shown: Iterable[StreamId]) -> None:
        """Let who still has streams that were erased know it, by the statements, which it can verify."""
        found = list(erasures.get(turn.tx, shown).values())
        for page in _pages(found, limits.ERASE_STATEMENTS_MAX):
            self._node.note(turn, turn.arrival.topic, StreamErased(f"{peer.name} has streams that were erased"))
            self._node.send(turn, *way_to(self._node, peer.role, peer.name), Erase(statements=_statements(page)))

    def obeyed(self, turn: Turn, peer: Peer, erased: list[StreamId]) -> None:
        """Do what else is to be done when a node said what to erase."""

    def erased_of(self, turn: Turn, device: NodeName) -> None:
        """Do what else is to be done when a stream of a device that is known here was erased."""

    def _on_erase(self, turn: Turn, peer: Peer, message: Erase) -> None:
        erased = self.erase(turn, message.statements, "a device" if peer.role is Role.DEVICE else peer.name)
        self.obeyed(turn, peer, erased)
        asker = Asker(peer.role, peer.name)
        if len(self._askers) >= ASKERS_MAX:
            self._askers.clear()
        self._askers.setdefault(asker, set()).update(erased)
        self._tell(turn, asker, set(erased), news_only=False)

    def _on_erased(self, turn: Turn, peer: Peer, message: Erased) -> None:
        for raw in message.receipts:
            self._take_receipt(turn, raw)

    def _take_receipt(self, turn: Turn, raw: bytes) -> None:
        try:
            receipt, _ = opened(self._node, turn, raw)
        except MessageError as error:
            self._node.note(turn, turn.arrival.topic, error)
            return
        if not erasures.among(turn.tx, [receipt.stream]):
            return  # of what this node was never asked to erase
        if erasures.put_receipt(turn.tx, Receipt(receipt.stream, receipt.place, raw)):
            self._news.setdefault(receipt.stream, set()).add(receipt.place)

    def _entomb(self, turn: Turn, stream: StreamId, said: EraseStatement, wanted_by: str) -> None:
        tx, derived = turn.tx, tuple(sorted(terms.standing_for(turn.tx, [stream])))
        gone = (stream, *derived)
        here, size = streams.get(tx, [stream]).get(stream), ageing.size(tx, gone)
        keys = sum(len(segments.key_ids(tx, each)) for each in gone)
        models = erasing_models.obey(turn, self._node.policy, gone, stream)
        for store in (segments, checkpoints, consents, terms, streams):
            store.delete(tx, gone)
        knows_whose = self._node.place is Place.DEVICE
        tombstone = Erasure(
            stream=stream,
            stamp=HybridTime.unpack(said.stamp),
            statement=cbor.dumps(said.model_dump()),
            erased=erasures.Erased(size.segments, size.rows, keys, derived, models),
            collection=here.collection if here and knows_whose else None,
        )
        erasures.add(tx, tombstone)
        compaction.owe(tx, compaction.ROWS, turn.now.wall_ms)
        detail = {"segments": size.segments, "rows": size.rows, "keys": keys, "models": asdict(models)}
        audit.append(tx, Event.ERASURE, wanted_by, stream, detail, turn.now.wall_ms)
        turn.count("erased", "streams")
        turn.count("erased", "rows", size.rows)
        if here is not None and here.device is not None:
            self.erased_of(turn, NodeName(here.device))
        self._shred_due_ms = turn.now.steady_ms + 1  # not in this transaction, which may yet be undone

    def _shred(self, turn: Turn) -> None:
        page = erasures.unshredded(turn.tx, SHRED_STREAMS)
        self._node.kit.vault.destroy(stream for each in page for stream in (each.stream, *each.erased.derived))
        erasing_models.shred(turn.tx, self._node.kit.vault)
        erasures.mark_shredded(turn.tx, [each.stream for each in page])
        for each in page:
            erasures.put_receipt(turn.tx, Receipt(each.stream, self._node.name, self._signed(turn, each)))
            self._news.setdefault(each.stream, set()).add(self._node.name)
        self._shred_due_ms = turn.now.steady_ms if len(page) == SHRED_STREAMS else None
        if page:
            compaction.owe(turn.tx, compaction.KEYS, turn.now.wall_ms)
            turn.effects.compact = True

    def _signed(self, turn: Turn, each: Erasure) -> bytes:
        receipt = EraseReceipt(
            stream=each.stream,
            stamp=each.stamp.pack(),
            place=self._node.name,
            segments=each.erased.segments,
            rows=each.erased.rows,
            keys=each.erased.keys,
            models_deleted=each.erased.models.deleted,
            models_retrain=each.erased.models.retrain,
            models_reported=each.erased.models.reported,
            erased_ms=turn.now.wall_ms,
        )
        return envelope.sign(self._node.kit.identity, EraseReceipt.CONTEXT, cbor.dumps(receipt.model_dump()))

    def _tell(self, turn: Turn, asker: Asker, about: set[StreamId], *, news_only: bool) -> None:
        """Tell a device all receipts that there are, and any other node those that this one is to bring."""
        for page in _pages(sorted(about), limits.ERASE_STATEMENTS_MAX):
            found = erasures.receipts(turn.tx, page)
            if asker.role is not Role.DEVICE:
                found = [each for each in found if each.place in self._speaks_for]
            pending = sorted({NodeName(each.place) for each in found if each.signed is None})
            if news_only:
                found = [each for each in found if each.place in self._news.get(each.stream, ())]
            self._send(turn, asker, page, [each.signed for each in found if each.signed], pending)

    def _send(
        self, turn: Turn, asker: Asker, about: list[StreamId], receipts: list[bytes], pending: list[NodeName]
    ) -> None:
        way = way_to(self._node, asker.role, asker.name)
        parts = list(_pages(receipts, limits.ERASE_RECEIPTS_MAX))
        if not parts and pending:
            parts = [[]]
        for part in parts:
            message = Erased(streams=about, receipts=part, pending=pending[: limits.EDGES_MAX])
            self._node.send(turn, *way, message)


class EdgeErasing(Erasing):
    """How an edge obeys, and has all others obey what devices ask it for."""

    def __init__(self, node: Node, cloud: NodeName) -> None:
        super().__init__(node, Role.DEVICE, Role.EDGE, Role.CLOUD)
        self._cloud = cloud
        self._speaks_for |= {cloud}
        self._pursuits: dict[NodeName, Pursuit] = {}

    def begin(self, turn: Turn) -> None:
        """Take up what the database says is awaited of nodes that this one can reach."""
        reached = erasures.awaited(turn.tx) & {self._cloud, *self._edges(turn)}
        self._pursuits = {NodeName(place): Pursuit(NodeName(place)) for place in sorted(reached)}

    def duties(self, turn: Turn) -> None:
        """Erase, and tell those whose receipts are awaited."""
        super().duties(turn)
        for place, pursuit in list(self._pursuits.items()):
            role = Role.CLOUD if place == self._cloud else Role.EDGE
            pursuit.pursue(self._node, turn, *way_to(self._node, role, place))
            if pursuit.due_ms is None:
                del self._pursuits[place]

    def heard(self, turn: Turn, peer: Peer) -> None:
        """A node is there again: do not let it wait."""
        if peer.name in self._pursuits:
            self._pursuits[peer.name].soon(turn.now)

    def everywhere(self, turn: Turn, erased: list[StreamId]) -> None:
        """Have the cloud and all other edges erase these streams, too."""
        self._have(turn, erased, {self._cloud, *self._edges(turn)} - {self._node.name})

    def _edges(self, turn: Turn) -> set[NodeName]:
        return {NodeName(each.name) for each in peers.all(turn.tx, Role.EDGE)}

    def _have(self, turn: Turn, erased: list[StreamId], places: Iterable[NodeName]) -> None:
        """Tell these places what to erase, unless they have been told."""
        expected = {(each.stream, each.place) for each in erasures.receipts(turn.tx, erased)}
        for place in sorted(places):
            if fresh := [stream for stream in erased if (stream, place) not in expected]:
                erasures.expect(turn.tx, fresh, [place])
                self._pursuits.setdefault(place, Pursuit(place)).soon(turn.now)

    def erased_of(self, turn: Turn, device: NodeName) -> None:
        """Let the session keys go that nothing is left under; those of a device that is served it renews itself."""
        account = accounts.load(turn.tx, device)
        idle = account.state in (EdgeState.PREPARED, EdgeState.HELD, EdgeState.ERASED)
        if idle and not streams.of_device(turn.tx, device):
            accounts.save_keys(turn.tx, self._node.kit.vault, device, None)

    def obeyed(self, turn: Turn, peer: Peer, erased: list[StreamId]) -> None:
        """A device asks nobody but its edge, and another operator's edge not this one's cloud."""
        if peer.role is Role.DEVICE:
            self.everywhere(turn, erased)
        elif peer.operator != operator_of(self._node.name):
            self._have(turn, erased, [self._cloud])

    def _on_erased(self, turn: Turn, peer: Peer, message: Erased) -> None:
        super()._on_erased(turn, peer, message)
        ours = erasures.among(turn.tx, message.streams)
        erasures.expect(turn.tx, sorted(ours), message.pending)  # which its sender tells


def way_to(node: Node, role: Role, name: NodeName) -> tuple[str, str]:
    """Return the link and the topic by which a node reaches another."""
    if node.place is Place.DEVICE:
        return name, topics.device_up(node.name)
    match role:
        case Role.DEVICE:
            return DEVICES, topics.device_down(name)
        case Role.CLOUD:
            return BACKBONE, topics.cloud_in(node.name)
        case _:
            return BACKBONE, topics.edge_in(name, node.name)


def opened(node: Node, turn: Turn, raw: bytes) -> tuple[EraseReceipt, Peer]:
    """Return a place's receipt and the place as its certificate proves it. Raises MessageError and its kinds."""
    bytes_max = limits.ERASE_RECEIPT_BYTES_MAX
    signed = envelope.verify(raw, EraseReceipt.CONTEXT, node.kit.trust, turn.now, bytes_max=bytes_max)
    receipt = decode_part(EraseReceipt, signed.body)
    if receipt.place != signed.peer.name or signed.peer.role is Role.POLICY:
        raise SignerForeign(f"{signed.peer.name} signed a receipt of {receipt.place}")
    return receipt, signed.peer


def _pages(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _statements(page: Iterable[Erasure]) -> list[EraseStatement]:
    return [decode_part(EraseStatement, each.statement) for each in page]


def _verify(said: EraseStatement) -> None:
    try:
        points.verify_key(said.public_key).verify(said.signature, said.signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise SignatureInvalid("a statement that erases a stream is not signed by it") from error
