"""An edge as the target of handovers: what it takes over, and when it begins to serve.

Ciphertext may come before the device does; it is nothing yet. The device's attach names this edge and gives the
session keys: the edge fences the previous edges, becomes active when their hot sets are here (or they stay silent),
pulls the rest behind, and tells source and registrar until they confirm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from datasync.domain import limits
from datasync.domain.errors import HandoverError, NotAttached, SignerForeign
from datasync.domain.ids import HandoverId, NodeName, StreamId, operator_of
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.handover import accounts, conditions, machine, tokens, transfer
from datasync.handover.machine import Account, Duties
from datasync.handover.states import EdgeState
from datasync.nodes import records
from datasync.nodes.challenge import Challenge
from datasync.nodes.consenting import stated, take_consents
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import Node, Turn
from datasync.nodes.roster import Roster
from datasync.nodes.source import Source
from datasync.protocol import checkpoint, topics
from datasync.protocol.messages import (
    Active,
    Attach,
    Attached,
    Delta,
    Fence,
    Message,
    Prepare,
    Prepared,
    Registered,
    Release,
    Segments,
    SegmentsAck,
    Superseded,
)
from datasync.protocol.parts import AttachToken, SealedSegment, SessionKeys, decode_part
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import checkpoints, handovers, revisions, segments, streams, terms
from datasync.store.segments import State
from datasync.store.streams import Stream
from datasync.sync.sender import Sender

EXPIRY_LOOK_MS = 60_000
"""How often at least to look for what has expired: the wall clock may have been set meanwhile."""


class Target:
    """What one edge takes over."""

    def __init__(self, node: Node, roster: Roster, source: Source, challenge: Challenge, forwarding: Sender) -> None:
        """``forwarding`` sends public segments on to the cloud, which those that arrive here may need."""
        self._node = node
        self._roster = roster
        self._source = source
        self._challenge = challenge
        self._forwarding = forwarding
        self._expiry_due_ms = 0
        node.on(Prepare, self._on_prepare, Role.EDGE)
        node.on(Segments, self._on_segments, Role.EDGE)
        node.on(Delta, self._on_delta, Role.EDGE)
        node.on(Superseded, self._on_superseded, Role.EDGE)
        node.on(Release, self._on_release, Role.EDGE)
        node.on(Registered, self._on_registered, Role.CLOUD)

    def duties(self, turn: Turn, cloud: NodeName) -> None:
        """Let time pass, and send again what the accounts owe."""
        for account in self._roster.expired(turn):
            self._expire(turn, account)
        for account, owed in self._roster.due(turn):
            self._pursue(turn, account, owed, cloud)
        self._roster.erase_what_was_left(turn)
        self._expire_derived(turn)

    def give_way(self, turn: Turn, originals: Mapping[StreamId, RangeSet]) -> None:
        """Original rows are here: what another operator's edge made of them goes."""
        if replaced := conditions.give_way(turn.tx, originals):
            turn.count("derived segments", "replaced", replaced)

    def _expire_derived(self, turn: Turn) -> None:
        """Erase what the terms of other operators let this edge keep no longer."""
        if turn.now.steady_ms >= self._expiry_due_ms:
            if gone := conditions.expire(turn.tx, self._node.kit.vault, turn.now):
                turn.count("derived segments", "expired", gone)
            next_ms = terms.next_expiry_ms(turn.tx)
            wait_ms = EXPIRY_LOOK_MS if next_ms is None else max(0, next_ms - turn.now.wall_ms)
            self._expiry_due_ms = turn.now.steady_ms + min(wait_ms, EXPIRY_LOOK_MS)
        turn.effects.wake(self._expiry_due_ms)

    # --- before the device comes

    def _on_prepare(self, turn: Turn, peer: Peer, prepare: Prepare) -> None:
        if peer.operator != operator_of(self._node.name):
            raise HandoverError(f"{peer.name} is another operator's: what it may give comes when the device has come")
        account = self._roster.load(turn, prepare.device)
        self._roster.check_room(account)
        nonce, order = self._node.kit.entropy(16), (prepare.incarnation, prepare.epoch)
        handover = HandoverId(prepare.handover)
        record = handovers.get(turn.tx, handover)
        if record is not None and (record.device, record.peer) != (prepare.device, peer.name):
            raise HandoverError(f"the handover {handover} is another one here")
        after = machine.prepare(account, handover, order, nonce, turn.now.wall_ms)
        transfer.know(turn.tx, prepare.device, prepare.streams, turn.now)
        self._roster.save(turn, after)
        if record is None:
            records.prepare(turn.tx, handover, "target", prepare.device, peer.name, order, turn.now.wall_ms)
        has = transfer.coverage(turn.tx, prepare.device)
        prepared = Prepared(handover=handover, device=prepare.device, nonce=after.nonce, has=has)
        self._tell(turn, peer.name, prepared)

    def _on_segments(self, turn: Turn, peer: Peer, message: Segments) -> None:
        account = self._roster.load(turn, message.device)
        record = handovers.get(turn.tx, message.handover)
        prepared = account.state in (EdgeState.PREPARED, EdgeState.FROZEN, EdgeState.HELD) and account.nonce
        if not prepared or account.handover != message.handover or record is None or record.peer != peer.name:
            raise HandoverError(f"{self._node.name} expects no segments of {message.device} from {peer.name}")
        known = transfer.know(turn.tx, message.device, [], turn.now)
        count, rows = transfer.arrive(turn.tx, known, message.segments, message.checkpoints)
        records.add_up(turn.tx, account.handover, count, rows, sum(len(each.body) for each in message.segments))
        has = transfer.coverage(turn.tx, message.device)
        self._tell(turn, peer.name, SegmentsAck(device=message.device, incarnation=0, epoch=0, has=has))

    # --- the device attaches

    def attach(self, turn: Turn, peer: Peer, attach: Attach) -> None:
        """Take over a device that says that it is here. Raises SignerForeign, HandoverError and its kinds."""
        token, signer = tokens.opened(attach.token, self._node.kit.trust, turn.now)
        if signer != peer or token.order != (attach.incarnation, attach.epoch):
            raise SignerForeign(f"{peer.name} shows a token of {token.device}")
        account = self._roster.of(turn, peer)
        nonces = self._challenge.nonces
        after = machine.attach(account, token, attach.token, self._node.name, nonces, turn.now.wall_ms)
        revisions.put(turn.tx, peer.name, attach.revision)
        if after is account:
            if account.state is EdgeState.ACTIVE:
                self._confirm(turn, account)
            return
        self._roster.check_room(account)
        keys = self._session_keys(turn, peer, token, attach, after)
        known = transfer.know(turn.tx, peer.name, attach.streams, turn.now)
        take_consents(turn.tx, self._node.place, attach.consents, known)  # before anything of its is shown
        checkpoints.arrive(turn.tx, map(checkpoint.parse, attach.checkpoints), known)
        transfer.adopt(self._node.kit.vault, keys, known, turn.now)
        turn.count("handover", "rows dropped", transfer.drop_unreadable(turn.tx, self._node.kit.vault, peer.name))
        after = replace(after, operator=peer.operator, handover=records.handover_id(turn.tx, token))
        self._roster.save(turn, after)
        accounts.save_keys(turn.tx, self._node.kit.vault, peer.name, keys)
        records.attach(turn.tx, after, token, turn.now.wall_ms)
        turn.count("handover", "attached")
        self._advance(turn, after)
        self._source.forget(peer.name)

    def _session_keys(self, turn: Turn, peer: Peer, token: AttachToken, attach: Attach, after: Account) -> SessionKeys:
        context = f"datasync/session/{token.device}/{token.incarnation}/{token.epoch}"
        given = decode_part(SessionKeys, self._node.opener.open(attach.session, context, peer))
        kept = accounts.load_keys(turn.tx, self._node.kit.vault, peer.name)
        older = {} if kept is None else kept.previous
        wanted = {
            edge: list(dict.fromkeys([*older.get(edge, []), *given.previous.get(edge, [])]))[-limits.PREVIOUS_MAX :]
            for edge in after.pending
        }
        return SessionKeys(session=given.session, previous={edge: keys for edge, keys in wanted.items() if keys})

    # --- what the previous edges have

    def _on_delta(self, turn: Turn, peer: Peer, delta: Delta) -> None:
        account = self._awaited(turn, peer, delta)
        refused = conditions.take(turn.tx, delta.device, delta.derived, turn.now)
        known = transfer.know(turn.tx, delta.device, delta.streams, turn.now)
        keys = accounts.load_keys(turn.tx, self._node.kit.vault, delta.device)
        if keys is not None:
            transfer.adopt(self._node.kit.vault, keys, known, turn.now)
        offered = [each for each in delta.segments if each.stream not in refused]
        readable = [each for each in offered if self._node.kit.vault.has(each.stream, each.key_id)]
        turn.count("handover", "unreadable", len(offered) - len(readable))
        count, rows = self._arrive(turn, known, delta.device, readable, delta.checkpoints)
        take_consents(turn.tx, self._node.place, delta.consents, known)
        records.add_up(turn.tx, account.handover, count, rows, sum(len(each.body) for each in readable))
        records.take(turn.tx, account.handover, delta.derived)
        has = transfer.coverage(turn.tx, delta.device)
        ack = SegmentsAck(device=delta.device, incarnation=delta.incarnation, epoch=delta.epoch, has=has)
        if delta.segments:
            self._tell(turn, peer.name, ack)
        self._progress(turn, account, machine.received(account, peer.name, hot=delta.hot, complete=delta.complete))
        if count and account.state is EdgeState.FROZEN:
            self._source.feed(turn, self._roster.load(turn, delta.device))

    def _arrive(
        self,
        turn: Turn,
        known: Mapping[StreamId, Stream],
        device: NodeName,
        sealed: Sequence[SealedSegment],
        signatures: Sequence[bytes],
    ) -> tuple[int, int]:
        """Store what is new of what a source gave; where originals came, what stands for them gives way."""
        held_on = terms.of_device(turn.tx, device)
        rivals = conditions.rivals(held_on)
        arrived = transfer.arrive(turn.tx, known, sealed, signatures, rivals=rivals)
        if held_on:
            self._expiry_due_ms = turn.now.steady_ms
            numbers: dict[StreamId, RangeSet] = {}
            for each in sealed:
                numbers[each.stream] = numbers.get(each.stream, RangeSet()).add(each.seq_first, each.seq_last)
            self.give_way(turn, numbers)
        return arrived

    def _on_superseded(self, turn: Turn, peer: Peer, message: Superseded) -> None:
        account = self._awaited(turn, peer, message)
        self._progress(turn, account, machine.received(account, peer.name, hot=True, complete=True))

    def _awaited(self, turn: Turn, peer: Peer, message: Delta | Superseded) -> Account:
        account = self._roster.load(turn, message.device)
        relevant = account.state in (EdgeState.CATCHING_UP, EdgeState.ACTIVE, EdgeState.FROZEN)
        same = account.served == (message.incarnation, message.epoch)
        if not (relevant and same and peer.name in account.unreleased):
            raise NotAttached(f"{self._node.name} waits for nothing of {message.device} from {peer.name}")
        return account

    def _progress(self, turn: Turn, before: Account, after: Account) -> None:
        if after == before:
            return
        self._roster.save(turn, after)
        accounts.forget_keys(turn.tx, self._node.kit.vault, after)
        match after.state:
            case EdgeState.CATCHING_UP:
                self._advance(turn, after)
            case EdgeState.ACTIVE if before.pending and not after.pending:
                self._confirm(turn, after)
                records.serve(turn.tx, after, turn.now.wall_ms)
            case EdgeState.FROZEN:
                self._source.feed(turn, after)

    def _advance(self, turn: Turn, account: Account) -> None:
        """Begin to serve the device if what that needs is here."""
        active = machine.catch_up(account, turn.now.wall_ms, self._roster.patience.source_timeout_ms)
        if active is account:
            return
        self._roster.save(turn, active)
        known = streams.of_device(turn.tx, account.device)
        for stream in known:
            if stream.tier is Tier.PUBLIC:
                owed = stream.have - stream.safe
                segments.mark(turn.tx, stream.stream, owed, State.WAITING, from_states=[State.LOCAL])
        segments.reveal(turn.tx, [stream.stream for stream in known])
        self._forwarding.look_again()
        self._confirm(turn, active)
        records.serve(turn.tx, active, turn.now.wall_ms)
        turn.count("handover", "active")

    def _confirm(self, turn: Turn, account: Account) -> None:
        known = streams.of_device(turn.tx, account.device)
        has: Mapping[StreamId, RangeSet] = {stream.stream: stream.have for stream in known}
        attached = Attached(
            incarnation=account.served[0],
            epoch=account.served[1],
            mode="degraded" if account.pending else "full",
            missing=list(account.pending),
            has=dict(has),
            safe={stream.stream: stream.safe for stream in known},
            signed={stream.stream: stream.signed for stream in known},
            revision=revisions.get(turn.tx, account.device),
        )
        self._node.send(turn, DEVICES, topics.device_down(account.device), attached)

    # --- until they confirm

    def _pursue(self, turn: Turn, account: Account, owed: Duties, cloud: NodeName) -> None:
        if owed.fence:
            has = transfer.coverage(turn.tx, account.device)
            signed = checkpoints.newest_beyond(turn.tx, has, limit=limits.CHECKPOINTS_CARRIED_MAX)
            fence = Fence(token=account.token, has=has, consents=stated(turn.tx, has), checkpoints=signed)
            for edge in owed.fence:
                self._tell(turn, edge, fence)
        active = Active(token=account.token, full=not account.pending)
        for edge in owed.activate:
            self._tell(turn, edge, active)
        if owed.register:
            self._node.send(turn, BACKBONE, topics.cloud_in(self._node.name), active)

    def _on_release(self, turn: Turn, peer: Peer, release: Release) -> None:
        account = self._roster.load(turn, release.device)
        after = machine.released(account, peer.name, (release.incarnation, release.epoch))
        if after != account:
            self._roster.save(turn, after)

    def _on_registered(self, turn: Turn, peer: Peer, registered: Registered) -> None:
        account = self._roster.load(turn, registered.device)
        order = (registered.incarnation, registered.epoch)
        if account.token and account.served == order and not account.registered:
            self._roster.save(turn, replace(account, registered=True))

    def _expire(self, turn: Turn, account: Account) -> None:
        if account.state is EdgeState.CATCHING_UP:
            self._advance(turn, account)
            return
        patience = self._roster.patience
        gone = machine.expire(account, turn.now.wall_ms, hold_ms=patience.hold_ms, prepared_ms=patience.prepared_ms)
        self._roster.save(turn, gone)
        if gone is not account:
            self._source.forget(account.device)
            self._roster.erase(turn, account.device)
            turn.count("handover", "erased")
            records.erase(turn.tx, account, turn.now.wall_ms)

    def _tell(self, turn: Turn, edge: NodeName, message: Message) -> None:
        self._node.send(turn, BACKBONE, topics.edge_in(edge, self._node.name), message)
