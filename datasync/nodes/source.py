"""An edge as the source of handovers: what it gives away, before a device leaves and after it has left.

Before: on the device's hint the target is told what would come, and gets it as ciphertext. After: the device's token
freezes the account, and the edge of the token gets the rest, the hot set first. The source gives only on a token
or to a target that it chose itself, and only what the verdicts of its policy let go to that one's operator. To another
operator nothing goes ahead of the device: whether its subject lets it cross is asked when it has left.
"""

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from datasync.domain.clock import HybridTime
from datasync.domain.errors import EpochStale, HandoverError, NotAttached, NotFound
from datasync.domain.ids import HandoverId, NodeName, StreamId, operator_of
from datasync.domain.ranges import RangeSet
from datasync.handover import accounts, machine, tokens
from datasync.handover.machine import Account
from datasync.handover.passage import NO_PARCEL, Parcel, Passage
from datasync.handover.states import EdgeState
from datasync.handover.transfer import Transfer
from datasync.nodes import records, replays
from datasync.nodes.consenting import stated, take_consents
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import Node, Turn
from datasync.nodes.roster import PREPARED_MS, Roster
from datasync.nodes.verifying import Verifying
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
from datasync.protocol.parts import AttachToken
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import peers, segments, streams
from datasync.store.segments import StoredSegment


@dataclass(frozen=True, slots=True)
class _Gift:
    """What goes to one target, and how far it is."""

    passage: Passage
    transfer: Transfer


@dataclass(slots=True)
class _Preparation:
    """A planned handover at its source, until the device's token freezes the account."""

    handover: HandoverId
    target: NodeName
    until_ms: int
    due_ms: int
    nonce: bytes = b""
    gift: _Gift | None = None


class Source:
    """What one edge gives to others."""

    def __init__(self, node: Node, roster: Roster, verifying: Verifying) -> None:
        self._node = node
        self._roster = roster
        self._verifying = verifying
        self._preparations: dict[NodeName, _Preparation] = {}
        self._gifts: dict[NodeName, _Gift] = {}
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
            raise HandoverError(f"{target} is another operator's: what may go there goes when the device has left")
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

    def forget_targets(self, targets: Container[NodeName]) -> None:
        """Give nothing more to these edges."""
        for device, preparation in list(self._preparations.items()):
            if preparation.target in targets:
                del self._preparations[device]
        for device, gift in list(self._gifts.items()):
            if gift.transfer.target in targets:
                del self._gifts[device]

    def feed(self, turn: Turn, account: Account) -> None:
        """More of what a frozen account owes has arrived, or all of it: pass it on."""
        gift = self._gifts.get(account.device)
        if gift is not None:
            self._give(turn, account, self._renewed(turn, account, gift))

    def begin(self, turn: Turn) -> None:
        """What was being prepared when the node stopped is not any more; whoever wants it asks again."""
        records.abandon(turn.tx)

    def undone(self, account: Account) -> None:
        """An account is as it was: what it does not owe after all is not given."""
        gift = self._gifts.get(account.device)
        if gift is not None and (account.state is not EdgeState.FROZEN or account.target != gift.transfer.target):
            del self._gifts[account.device]

    def duties(self, turn: Turn) -> None:
        """Send again what targets have not acknowledged."""
        for device, preparation in list(self._preparations.items()):
            if turn.now.steady_ms >= preparation.until_ms:
                del self._preparations[device]
                records.set_phase(turn.tx, preparation.handover, "expired")
            else:
                self._pursue(turn, device, preparation)
        for device, gift in list(self._gifts.items()):
            deadline_ms = gift.transfer.deadline_ms
            if deadline_ms is not None and deadline_ms <= turn.now.steady_ms:
                self._give(turn, self._roster.load(turn, device), gift)
            turn.effects.wake(deadline_ms)

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
        replays.check_advice(turn.tx, advise, turn.now)
        order = (advise.incarnation, advise.epoch)
        if self._roster.load(turn, advise.device).served != order:
            raise NotAttached(f"{advise.device} is not attached to {self._node.name} under {order}")
        self.prepare(turn, advise.device, advise.target)

    def _pursue(self, turn: Turn, device: NodeName, preparation: _Preparation) -> None:
        if preparation.gift is not None:
            self._send_segments(turn, device, preparation, preparation.gift)
        if turn.now.steady_ms >= preparation.due_ms:
            preparation.due_ms = turn.now.steady_ms + self._node.kit.retry_ms
            if preparation.gift is None:
                self._send_prepare(turn, device, preparation)
            elif preparation.gift.transfer.complete:
                self._send_ready(turn, device, preparation)
        turn.effects.wake(preparation.due_ms)

    def _send_prepare(self, turn: Turn, device: NodeName, preparation: _Preparation) -> None:
        account = self._roster.load(turn, device)
        passage = self._passage(turn, device, preparation.target)
        manifest = passage.manifest
        prepare = Prepare(
            handover=preparation.handover,
            device=device,
            incarnation=account.served[0],
            epoch=account.served[1],
            streams=passage.originals,
            manifest=manifest,
            root=_root(manifest),
        )
        self._tell(turn, preparation.target, prepare)

    def _on_prepared(self, turn: Turn, peer: Peer, prepared: Prepared) -> None:
        preparation = self._expected(peer, prepared.handover, prepared.device)
        preparation.nonce = prepared.nonce
        if preparation.gift is None:
            passage = self._passage(turn, prepared.device, peer.name)
            preparation.gift = _Gift(passage, Transfer(peer.name, passage.ahead, self._is_hot(turn)))
        preparation.gift.transfer.acknowledge(prepared.has)
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
        if gift is not None and gift.transfer.target == peer.name and (ack.incarnation, ack.epoch) == account.known:
            gift.transfer.acknowledge(ack.has)
            self._give(turn, account, gift)
        elif not ack.epoch and preparation is not None and preparation.target == peer.name and preparation.gift:
            preparation.gift.transfer.acknowledge(ack.has)
            self._step(turn, ack.device, preparation)

    def _step(self, turn: Turn, device: NodeName, preparation: _Preparation) -> None:
        preparation.due_ms = turn.now.steady_ms
        self._pursue(turn, device, preparation)

    def _send_segments(self, turn: Turn, device: NodeName, preparation: _Preparation, gift: _Gift) -> None:
        for message in gift.transfer.due(turn.now):
            parcel = self._sealed(turn, device, gift, message)
            segments_message = Segments(
                handover=preparation.handover,
                device=device,
                segments=parcel.segments,
                checkpoints=parcel.checkpoints,
            )
            self._tell(turn, preparation.target, segments_message)
        turn.effects.wake(gift.transfer.deadline_ms)

    def _send_ready(self, turn: Turn, device: NodeName, preparation: _Preparation) -> None:
        target = peers.get(turn.tx, preparation.target)
        if target is None:
            return
        served = self._roster.load(turn, device).served
        ready = Ready(
            handover=preparation.handover,
            target=preparation.target,
            nonce=preparation.nonce,
            root=_root(self._passage(turn, device, preparation.target).manifest),
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
        known = {stream.stream: stream for stream in streams.of_device(turn.tx, token.device)}
        take_consents(turn.tx, self._node.place, fence.consents, known)
        self._verifying.at_once(turn, fence.checkpoints, known)
        gift = self._gifts.get(token.device)
        if gift is None or gift.transfer.target != peer.name:
            gift = self._begun(turn, frozen, peer.name)
        gift.transfer.hot_told = False
        gift.transfer.acknowledge(fence.has)
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

    def _passage(self, turn: Turn, device: NodeName, target: NodeName) -> Passage:
        node = self._node
        return Passage(turn.tx, node.kit.identity, node.policy, device, operator_of(target), turn.now.wall_ms)

    def _begun(self, turn: Turn, account: Account, target: NodeName) -> _Gift:
        """Begin to give what the target may get; once it said that it has everything, that is nothing more."""
        passage = self._passage(turn, account.device, target)
        owed = passage.segments if account.state is EdgeState.FROZEN else []
        gift = self._gifts[account.device] = _Gift(passage, Transfer(target, owed, self._is_hot(turn)))
        for each in records.rule(turn.tx, account.handover, passage):
            if each.given_segments:
                turn.count("given segments", each.action, each.given_segments)
                turn.count("given rows", each.action, each.given_rows)
            if each.kept_segments:
                turn.count("kept segments", each.why, each.kept_segments)
                turn.count("kept rows", each.why, each.kept_rows)
        return gift

    def _renewed(self, turn: Turn, account: Account, gift: _Gift) -> _Gift:
        """Take what arrived here since; or under another policy, begin anew with what that one lets go."""
        if gift.passage.policy is not self._node.policy:
            return self._begun(turn, account, gift.transfer.target)
        passage = self._passage(turn, account.device, gift.transfer.target)
        gift.transfer.add(passage.segments)
        renewed = self._gifts[account.device] = _Gift(passage, gift.transfer)
        return renewed

    def _give(self, turn: Turn, account: Account, gift: _Gift) -> None:
        if gift.passage.policy is not self._node.policy:
            gift = self._renewed(turn, account, gift)
        self._send_delta(turn, account, gift)
        owed, target = gift.transfer, gift.transfer.target
        if owed.complete and not account.pending:
            self._tell(turn, target, self._delta(turn, account, gift, NO_PARCEL, hot=True, complete=True))
        elif owed.hot and not account.cold and not owed.hot_told:
            owed.hot_told = True
            self._tell(turn, target, self._delta(turn, account, gift, NO_PARCEL, hot=True, complete=False))

    def _send_delta(self, turn: Turn, account: Account, gift: _Gift) -> None:
        for message in gift.transfer.due(turn.now):
            parcel = self._sealed(turn, account.device, gift, message)
            self._tell(turn, gift.transfer.target, self._delta(turn, account, gift, parcel, hot=False, complete=False))
        turn.effects.wake(gift.transfer.deadline_ms)

    def _delta(self, turn: Turn, account: Account, gift: _Gift, parcel: Parcel, *, hot: bool, complete: bool) -> Delta:
        return Delta(
            device=account.device,
            incarnation=account.known[0],
            epoch=account.known[1],
            streams=gift.passage.originals,
            derived=gift.passage.derived,
            segments=parcel.segments,
            checkpoints=parcel.checkpoints,
            consents=stated(turn.tx, gift.passage.speakers) if hot or complete else [],
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

    def _sealed(self, turn: Turn, device: NodeName, gift: _Gift, message: list[StoredSegment]) -> Parcel:
        kit = self._node.kit
        keys = accounts.load_keys(turn.tx, kit.vault, device)
        if keys is None:
            raise HandoverError(f"{device} gave {self._node.name} no session key to move its state under")
        parcel, unreadable = gift.passage.seal(turn.tx, kit.vault, keys.session, message, kit.entropy)
        gift.transfer.give_up(unreadable)
        turn.count("handover", "unreadable", len(unreadable))
        return parcel

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
