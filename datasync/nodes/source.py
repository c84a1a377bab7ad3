"""An edge as the source of handovers: what it gives away, before a device leaves and after it has left.

Before: on the device's hint the target is told what would come, and gets it as ciphertext. After: the device's token
freezes the account, and the edge of the token gets the rest, the hot set first. The source gives only on a token
or to a target that it chose itself, and only within its own operator: what the policy does not list between two
operators is dropped.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from datasync.domain.clock import HybridTime
from datasync.domain.errors import EpochStale, HandoverError, NotAttached, NotFound
from datasync.domain.ids import HandoverId, NodeName, StreamId, operator_of
from datasync.domain.ranges import RangeSet
from datasync.handover import accounts, machine, tokens, transfer
from datasync.handover.machine import Account
from datasync.handover.states import EdgeState
from datasync.handover.transfer import Transfer
from datasync.nodes import records
from datasync.nodes.node import Node, Turn
from datasync.nodes.roster import PREPARED_MS, Roster
from datasync.protocol import cbor, topics
from datasync.protocol.messages import (
    Active,
    Advise,
    Delta,
    Fence,
    Hint,
    Message,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Release,
    Segments,
    SegmentsAck,
    Superseded,
)
from datasync.protocol.parts import AttachToken, ConsentStatement, SealedSegment, decode_part
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import consents, peers, segments, streams
from datasync.store.segments import StoredSegment

BACKBONE = "backbone"
DEVICES = "devices"


@dataclass(slots=True)
class _Preparation:
    """A planned handover at its source, until the device's token freezes the account."""

    handover: HandoverId
    target: NodeName
    until_ms: int
    due_ms: int
    nonce: bytes = b""
    transfer: Transfer | None = None


class Source:
    """What one edge gives to others."""

    def __init__(self, node: Node, roster: Roster) -> None:
        self._node = node
        self._roster = roster
        self._preparations: dict[NodeName, _Preparation] = {}
        self._gifts: dict[NodeName, Transfer] = {}
        node.on(Hint, self._on_hint, Role.DEVICE)
        node.on(Advise, self._on_advise, Role.CLOUD)
        node.on(Prepared, self._on_prepared, Role.EDGE)
        node.on(Refused, self._on_refused, Role.EDGE)
        node.on(SegmentsAck, self._on_segments_ack, Role.EDGE)
        node.on(Fence, self._on_fence, Role.EDGE)
        node.on(Active, self._on_active, Role.EDGE)

    def prepare(self, turn: Turn, device: NodeName, target: NodeName) -> None:
        """Begin to prepare a target for a device that is active here. Raises NotAttached, NotFound, HandoverError."""
        account = self._roster.load(turn, device)
        if account.state is not EdgeState.ACTIVE or not account.token:
            raise NotAttached(f"{device} is not attached to {self._node.name} by a token of its own")
        if target == self._node.name or (peer := peers.get(turn.tx, target)) is None or peer.role != Role.EDGE:
            raise NotFound(f"{self._node.name} knows no other edge {target!r}")
        if operator_of(target) != operator_of(self._node.name):
            raise HandoverError(f"the policy moves nothing from {self._node.name} to {target}")
        begun = self._preparations.get(device)
        if begun is not None and begun.target == target:
            return
        handover = HandoverId(self._node.kit.entropy(16).hex())
        until_ms = turn.now.steady_ms + PREPARED_MS
        self._preparations[device] = _Preparation(handover, target, until_ms, turn.now.steady_ms)
        records.prepare(turn.tx, handover, "source", device, target, account.known, turn.now.wall_ms)

    def forget(self, device: NodeName) -> None:
        """The device attached here again: nothing is given away."""
        self._preparations.pop(device, None)
        self._gifts.pop(device, None)

    def feed(self, turn: Turn, account: Account) -> None:
        """More of what a frozen account owes has arrived, or all of it: pass it on."""
        gift = self._gifts.get(account.device)
        if gift is not None:
            gift.add(transfer.movable(turn.tx, account.device))
            self._give(turn, account, gift)

    def begin(self, turn: Turn) -> None:
        """What was being prepared when the node stopped is not any more; whoever wants it asks again."""
        records.abandon(turn.tx)

    def undone(self, account: Account) -> None:
        """An account is as it was: what it does not owe after all is not given."""
        gift = self._gifts.get(account.device)
        if gift is not None and (account.state is not EdgeState.FROZEN or account.target != gift.target):
            del self._gifts[account.device]

    def duties(self, turn: Turn) -> None:
        """Send again what targets have not acknowledged."""
        for device, preparation in list(self._preparations.items()):
            if turn.now.steady_ms >= preparation.until_ms:
                del self._preparations[device]
                records.set_phase(turn.tx, preparation.handover, "expired")
            else:
                self._pursue(turn, device, preparation)
        for device, gift in self._gifts.items():
            if gift.deadline_ms is not None and gift.deadline_ms <= turn.now.steady_ms:
                self._send_delta(turn, self._roster.load(turn, device), gift)
            turn.effects.wake(gift.deadline_ms)

    # --- before the device leaves

    def _on_hint(self, turn: Turn, peer: Peer, hint: Hint) -> None:
        account = self._roster.of(turn, peer)
        if account.state is not EdgeState.ACTIVE or account.served[1] != hint.epoch:
            raise NotAttached(f"{peer.name} is not attached to {self._node.name} under epoch {hint.epoch}")
        try:
            self.prepare(turn, peer.name, hint.candidates[0])
        except (NotFound, HandoverError) as error:
            refused = Refused(handover=None, device=peer.name, reason=error.detail[:1024])
            self._node.send(turn, DEVICES, topics.device_down(peer.name), refused)

    def _on_advise(self, turn: Turn, peer: Peer, advise: Advise) -> None:
        order = (advise.incarnation, advise.epoch)
        if self._roster.load(turn, advise.device).served != order:
            raise NotAttached(f"{advise.device} is not attached to {self._node.name} under {order}")
        self.prepare(turn, advise.device, advise.target)

    def _pursue(self, turn: Turn, device: NodeName, preparation: _Preparation) -> None:
        if preparation.transfer is not None:
            self._send_segments(turn, device, preparation, preparation.transfer)
        if turn.now.steady_ms >= preparation.due_ms:
            preparation.due_ms = turn.now.steady_ms + self._node.kit.retry_ms
            if preparation.transfer is None:
                self._send_prepare(turn, device, preparation)
            elif preparation.transfer.complete:
                self._send_ready(turn, device, preparation)
        turn.effects.wake(preparation.due_ms)

    def _send_prepare(self, turn: Turn, device: NodeName, preparation: _Preparation) -> None:
        account = self._roster.load(turn, device)
        manifest = transfer.coverage(turn.tx, device)
        prepare = Prepare(
            handover=preparation.handover,
            device=device,
            incarnation=account.served[0],
            epoch=account.served[1],
            streams=transfer.notes(turn.tx, device),
            manifest=manifest,
            root=_root(manifest),
        )
        self._tell(turn, preparation.target, prepare)

    def _on_prepared(self, turn: Turn, peer: Peer, prepared: Prepared) -> None:
        preparation = self._expected(peer, prepared.handover, prepared.device)
        preparation.nonce = prepared.nonce
        if preparation.transfer is None:
            held = transfer.movable(turn.tx, prepared.device)
            preparation.transfer = Transfer(peer.name, held, self._is_hot(turn))
        preparation.transfer.acknowledge(prepared.has)
        self._step(turn, prepared.device, preparation)

    def _on_refused(self, turn: Turn, peer: Peer, refused: Refused) -> None:
        preparation = self._expected(peer, refused.handover, refused.device)
        del self._preparations[refused.device]
        records.set_phase(turn.tx, preparation.handover, "refused")
        self._node.send(turn, DEVICES, topics.device_down(refused.device), refused)

    def _on_segments_ack(self, turn: Turn, peer: Peer, ack: SegmentsAck) -> None:
        gift = self._gifts.get(ack.device)
        preparation = self._preparations.get(ack.device)
        account = self._roster.load(turn, ack.device)
        if gift is not None and gift.target == peer.name and (ack.incarnation, ack.epoch) == account.known:
            gift.acknowledge(ack.has)
            self._give(turn, account, gift)
        elif not ack.epoch and preparation is not None and preparation.target == peer.name and preparation.transfer:
            preparation.transfer.acknowledge(ack.has)
            self._step(turn, ack.device, preparation)

    def _step(self, turn: Turn, device: NodeName, preparation: _Preparation) -> None:
        preparation.due_ms = turn.now.steady_ms
        self._pursue(turn, device, preparation)

    def _send_segments(self, turn: Turn, device: NodeName, preparation: _Preparation, owed: Transfer) -> None:
        for message in owed.due(turn.now):
            sealed = self._sealed(turn, device, owed, message)
            segments_message = Segments(handover=preparation.handover, device=device, segments=sealed)
            self._tell(turn, preparation.target, segments_message)
        turn.effects.wake(owed.deadline_ms)

    def _send_ready(self, turn: Turn, device: NodeName, preparation: _Preparation) -> None:
        target = peers.get(turn.tx, preparation.target)
        if target is None:
            return
        served = self._roster.load(turn, device).served
        ready = Ready(
            handover=preparation.handover,
            target=preparation.target,
            nonce=preparation.nonce,
            root=_root(transfer.coverage(turn.tx, device)),
            certificate=target.certificate,
            incarnation=served[0],
            epoch=served[1],
        )
        records.set_phase(turn.tx, preparation.handover, "ready")
        self._node.send(turn, DEVICES, topics.device_down(device), ready)

    def _expected(self, peer: Peer, handover: str | None, device: NodeName) -> _Preparation:
        preparation = self._preparations.get(device)
        if preparation is None or (preparation.handover, preparation.target) != (handover, peer.name):
            raise HandoverError(f"{self._node.name} prepares no handover {handover} of {device} to {peer.name}")
        return preparation

    # --- after the device has left

    def _on_fence(self, turn: Turn, peer: Peer, fence: Fence) -> None:
        token, signer = self._token(turn, peer, fence.token)
        account = self._roster.of(turn, signer)
        try:
            frozen = self._freeze(turn, account, token, signer)
        except EpochStale:
            told = Superseded(device=token.device, incarnation=token.incarnation, epoch=token.epoch)
            self._tell(turn, peer.name, told)
            return
        gift = self._gifts.get(token.device)
        if gift is None or gift.target != peer.name:
            gift = self._gifts[token.device] = Transfer(peer.name, self._givable(turn, frozen), self._is_hot(turn))
        gift.hot_told = False
        gift.acknowledge(fence.has)
        self._give(turn, frozen, gift)

    def _token(self, turn: Turn, peer: Peer, raw: bytes) -> tuple[AttachToken, Peer]:
        token, signer = tokens.opened(raw, self._node.kit.trust, turn.now)
        if token.edge != peer.name:
            raise HandoverError(f"{peer.name} shows a token that names {token.edge}")
        return token, signer

    def _freeze(self, turn: Turn, account: Account, token: AttachToken, signer: Peer) -> Account:
        if account.state is EdgeState.ACTIVE and not account.token:
            raise EpochStale(f"{token.device} is a plain device here, which gave no keys to move its rows under")
        frozen = machine.fence(account, token, self._node.name, turn.now.wall_ms)
        if frozen is account:
            return account
        frozen = replace(frozen, operator=signer.operator, handover=records.handover_id(turn.tx, token))
        self._roster.save(turn, frozen)
        segments.conceal(turn.tx, [stream.stream for stream in streams.of_device(turn.tx, account.device)])
        records.freeze(turn.tx, frozen, token, turn.now.wall_ms)
        self._preparations.pop(account.device, None)
        self._gifts.pop(account.device, None)
        if frozen.state is EdgeState.ERASED:
            self._roster.erase(turn, account.device)
        turn.count("handover", "frozen")
        return frozen

    def _givable(self, turn: Turn, account: Account) -> list[StoredSegment]:
        """Return what the target may get; once it said that it has everything, that is nothing more."""
        within = account.target is not None and operator_of(account.target) == operator_of(self._node.name)
        owing = account.state is EdgeState.FROZEN
        return transfer.movable(turn.tx, account.device) if within and owing else []

    def _give(self, turn: Turn, account: Account, gift: Transfer) -> None:
        self._send_delta(turn, account, gift)
        if gift.complete and not account.pending:
            self._tell(turn, gift.target, self._delta(turn, account, [], hot=True, complete=True))
        elif gift.hot and not account.cold and not gift.hot_told:
            gift.hot_told = True
            self._tell(turn, gift.target, self._delta(turn, account, [], hot=True, complete=False))

    def _send_delta(self, turn: Turn, account: Account, gift: Transfer) -> None:
        for message in gift.due(turn.now):
            sealed = self._sealed(turn, account.device, gift, message)
            self._tell(turn, gift.target, self._delta(turn, account, sealed, hot=False, complete=False))
        turn.effects.wake(gift.deadline_ms)

    def _delta(self, turn: Turn, account: Account, sealed: list[SealedSegment], *, hot: bool, complete: bool) -> Delta:
        known = streams.of_device(turn.tx, account.device)
        said = consents.of_streams(turn.tx, [stream.stream for stream in known]) if hot or complete else []
        return Delta(
            device=account.device,
            incarnation=account.known[0],
            epoch=account.known[1],
            streams=transfer.notes(turn.tx, account.device),
            segments=sealed,
            consents=[decode_part(ConsentStatement, each.statement) for each in said],
            hot=hot,
            complete=complete,
        )

    def _on_active(self, turn: Turn, peer: Peer, active: Active) -> None:
        token, signer = self._token(turn, peer, active.token)
        account = self._roster.of(turn, signer)
        try:
            if token.order > account.known:
                account = self._freeze(turn, account, token, signer)
            self._hold(turn, machine.target_active(account, token.order, turn.now.wall_ms), account)
        except EpochStale:
            turn.count("handover", "overtaken")
        release = Release(device=token.device, incarnation=token.incarnation, epoch=token.epoch)
        self._tell(turn, peer.name, release)

    def _hold(self, turn: Turn, held: Account, before: Account) -> None:
        if held.state is before.state:
            return
        self._gifts.pop(held.device, None)
        self._roster.save(turn, held)
        records.hold(turn.tx, held, turn.now.wall_ms)

    # --- both

    def _sealed(
        self, turn: Turn, device: NodeName, owed: Transfer, message: list[StoredSegment]
    ) -> list[SealedSegment]:
        kit = self._node.kit
        keys = accounts.load_keys(turn.tx, kit.vault, device)
        if keys is None:
            raise HandoverError(f"{device} gave {self._node.name} no session key to move its state under")
        sealed, unreadable = transfer.reseal(turn.tx, kit.vault, keys.session, message, kit.entropy)
        owed.give_up(unreadable)
        turn.count("handover", "unreadable", len(unreadable))
        return sealed

    def _is_hot(self, turn: Turn) -> "_Hot":
        collections = {} if self._node.policy is None else self._node.policy.collections
        return _Hot({name: each.mobility.hot_ms for name, each in collections.items()}, turn.now.wall_ms)

    def _tell(self, turn: Turn, edge: NodeName, message: Message) -> None:
        self._node.send(turn, BACKBONE, topics.edge_in(edge, self._node.name), message)


@dataclass(frozen=True, slots=True)
class _Hot:
    """Which segments are of the hot set: by collection, captured within so many milliseconds; None means all."""

    hot_ms: Mapping[str, int | None]
    now_ms: int

    def __call__(self, each: StoredSegment) -> bool:
        hot_ms = self.hot_ms.get(each.collection)
        return hot_ms is None or each.captured >= HybridTime(self.now_ms - hot_ms, 0)


def _root(manifest: Mapping[StreamId, RangeSet]) -> str:
    plain = {stream: ranges.to_list() for stream, ranges in manifest.items()}
    return hashlib.sha256(cbor.dumps(plain)).hexdigest()
