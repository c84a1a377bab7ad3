"""The cloud: holds what is public, keeps the register of attachments, and hands out the policy.

It signs policies where it holds the operator's policy key; where that is kept elsewhere it passes on what was signed
there. It is told of public streams without being told whose they are. As registrar it knows, by the devices' own
tokens, which edge serves whom, and takes no older token after a newer one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from datasync.domain.errors import EpochStale, MessageError, NotFound, PolicyKeyMissing, SignerForeign
from datasync.domain.ids import NodeName, operator_of, stream_id
from datasync.domain.tiers import Place
from datasync.handover import tokens
from datasync.nodes.auditing import Witness
from datasync.nodes.challenge import Challenge
from datasync.nodes.consenting import take_consents
from datasync.nodes.edge import note_peer
from datasync.nodes.erasing import Erasing
from datasync.nodes.links import BACKBONE
from datasync.nodes.node import Activate, Input, Install, Kit, LinkChange, Node, Outgoing, Revoke, StartHandover, Turn
from datasync.nodes.purging import Purging
from datasync.nodes.replays import LatestBeacons
from datasync.nodes.retention import Retention
from datasync.nodes.revoking import Revoking
from datasync.nodes.rollout import Rollout
from datasync.policy.compiled import Policy
from datasync.protocol import topics
from datasync.protocol.messages import Active, Advise, Beacon, Forward, Registered, Stored
from datasync.protocol.parts import AttachToken
from datasync.security.identity import Identity, Role
from datasync.security.trust import Peer
from datasync.store import attachments, policies, streams
from datasync.store.attachments import Attachment
from datasync.sync.receiver import receive_signed


class CloudNode(Node):
    """The cloud."""

    place: ClassVar[Place] = Place.CLOUD

    def __init__(self, kit: Kit, policy_key: Identity | None = None) -> None:
        """``policy_key`` signs policies here; None when it is kept elsewhere."""
        super().__init__(kit)
        self._policy_key = policy_key
        self._rollout = Rollout(self, operator_of(self.name), finish=lambda _: None, pass_on=self._publish_policy)
        self._challenge = Challenge(kit.entropy)
        self._retention = Retention(self)
        self._erasing = Erasing(self, Role.EDGE)
        self._purging = Purging(self)
        self._beacons = LatestBeacons()
        self._witness = Witness(self)
        self._revoking = Revoking(self, BACKBONE)
        self.on(Forward, self._on_forward, Role.EDGE)
        self.on(Active, self._on_active, Role.EDGE)
        self.on(Beacon, self._on_beacon, Role.EDGE)

    @property
    def subscriptions(self) -> Mapping[str, tuple[str, ...]]:
        """The cloud's own broker, which is the backbone."""
        return {BACKBONE: (topics.TO_CLOUD, topics.BEACONS)}

    def begin(self, turn: Turn) -> None:
        """Nothing but the challenge is remembered beside the database."""
        self._challenge.begin(turn.tx, turn.now)
        self._revoking.begin(turn)

    def command(self, turn: Turn, command: Input) -> None:
        """Activate a policy, advise a handover; or greet on a link that came up."""
        match command:
            case Activate(ticket, source):
                turn.effects.answers[ticket] = self._activate(turn, source)
            case Install(ticket, bundle):
                turn.effects.answers[ticket] = self._rollout.install(turn, bundle)
            case Revoke(ticket, revocations):
                turn.effects.answers[ticket] = self._revoking.install(turn, revocations)
            case StartHandover(ticket, device, target):
                self._advise(turn, device, target)
                turn.effects.answers[ticket] = None
            case LinkChange(_, up):
                if up:
                    self._greet(turn)
            case _:
                raise MessageError(f"a cloud takes no {type(command).__name__}")

    def duties(self, turn: Turn) -> None:
        """Renew the beacon, by which edges know the cloud's sealing key, and let go what is too old."""
        if self._challenge.renew(turn.tx, turn.now):
            self._send_beacon(turn)
        turn.effects.wake(self._challenge.deadline_ms)
        self._retention.duties(turn)
        self._purging.duties(turn)
        self._erasing.duties(turn)

    def _greet(self, turn: Turn) -> None:
        self._send_beacon(turn)
        stored = policies.active(turn.tx)
        if stored is not None:
            self._publish_policy(turn, stored.bundle)
        self._revoking.pass_on(turn)

    def _send_beacon(self, turn: Turn) -> None:
        beacon = Beacon(
            name=self.name,
            nonce=self._challenge.present,
            load=None,
            revision=self.revision,
            stamp=self.stamp(turn.now).pack(),
        )
        self.send(turn, BACKBONE, topics.beacon(self.name), beacon, retain=True)

    def _activate(self, turn: Turn, source: bytes) -> Policy:
        if self._policy_key is None:
            raise PolicyKeyMissing(
                f"{self.name} holds no policy key", fix="use datasync policy sign where it is kept, then policy push"
            )
        return self._rollout.activate(turn, source, self._policy_key)

    def _publish_policy(self, turn: Turn, bundle: bytes) -> None:
        turn.effects.send.append(Outgoing(BACKBONE, topics.POLICY, bundle, retain=True))

    def _advise(self, turn: Turn, device: NodeName, target: NodeName) -> None:
        row = attachments.get(turn.tx, device)
        if row is None or row.edge is None:
            raise NotFound(f"no edge has registered the device {device!r}")
        advise = Advise(
            device=device,
            incarnation=row.incarnation,
            epoch=row.epoch,
            target=target,
            stamp=self.stamp(turn.now).pack(),
        )
        self.send(turn, BACKBONE, topics.edge_in(NodeName(row.edge), self.name), advise)

    def _on_forward(self, turn: Turn, peer: Peer, forward: Forward) -> None:
        receipt = receive_signed(turn.tx, self.kit.vault, self.place, forward.segments, forward.checkpoints, turn.now)
        turn.count("stored", "rows", receipt.rows)
        turn.count("stored", "segments", receipt.segments)
        turn.count("stored", "duplicates", receipt.duplicates)
        known = streams.get(turn.tx, {stream_id(each.public_key) for each in forward.consents})
        taken = take_consents(turn.tx, self.place, forward.consents, known)
        stored = Stored(durable=receipt.durable, consents=taken)
        self.send(turn, BACKBONE, topics.edge_in(peer.name, self.name), stored)
        self._erasing.refuse(turn, peer, receipt.erased)

    def _on_active(self, turn: Turn, peer: Peer, active: Active) -> None:
        token, signer = tokens.opened(active.token, self.kit.trust, turn.now)
        if token.edge != peer.name:
            raise SignerForeign(f"{peer.name} shows a token of {token.device} that is not for it")
        known = attachments.get(turn.tx, token.device)
        tokens.check_operator(signer, known.detail["operator"] if known else "")
        if known is not None and token.order < (known.incarnation, known.epoch):
            stale = EpochStale(f"{token.device} at {token.order}: it is registered under a newer epoch")
            self.note(turn, turn.arrival.topic, stale)
        else:
            self._register(turn, known, token, signer, active)
        # one that was overtaken is told too: it need not ask any more
        registered = Registered(device=token.device, incarnation=token.incarnation, epoch=token.epoch)
        self.send(turn, BACKBONE, topics.edge_in(peer.name, self.name), registered)

    def _register(self, turn: Turn, known: Attachment | None, token: AttachToken, signer: Peer, active: Active) -> None:
        row = known or Attachment(
            device=token.device,
            state="active",
            incarnation=token.incarnation,
            epoch=token.epoch,
            since_ms=turn.now.wall_ms,
            updated_ms=turn.now.wall_ms,
        )
        moved = row.edge != token.edge
        is_full = active.full or (token.order == (row.incarnation, row.epoch) and row.mode == "full")  # said again
        attachments.put(
            turn.tx,
            replace(
                row,
                incarnation=token.incarnation,
                epoch=token.epoch,
                edge=token.edge,
                previous=row.edge if moved else row.previous,
                mode="full" if is_full else "degraded",
                token=active.token,
                detail={"operator": signer.operator},
                since_ms=turn.now.wall_ms if moved else row.since_ms,
                updated_ms=turn.now.wall_ms,
            ),
        )

    def _on_beacon(self, turn: Turn, peer: Peer, beacon: Beacon) -> None:
        self._beacons.check(peer, beacon)
        note_peer(turn, peer, beacon)
