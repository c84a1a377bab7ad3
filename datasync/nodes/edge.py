"""The edge: serves the devices attached to it, and meets the cloud and the other edges on the backbone.

Its parts are the source and the target of handovers, the way to the cloud and the gateway for plain devices; here is
what is left: uploads, consents, beacons, the policy, and the order in which duties are done.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from datasync.domain.errors import (
    DatasyncError,
    EpochStale,
    ErasureForeign,
    MessageError,
    NotAttached,
    SignerForeign,
    SignerUntrusted,
)
from datasync.domain.ids import NodeName, operator_of, stream_id
from datasync.domain.tiers import Place
from datasync.handover.machine import NEVER
from datasync.handover.states import EdgeState
from datasync.nodes import subject
from datasync.nodes.auditing import Witnessed
from datasync.nodes.challenge import Challenge
from datasync.nodes.consenting import take_consents
from datasync.nodes.erasing import EdgeErasing
from datasync.nodes.forwarding import Forwarding
from datasync.nodes.gateway import Gateway
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import (
    Activate,
    Erase,
    Input,
    Install,
    Kit,
    LinkChange,
    Node,
    Outgoing,
    Revoke,
    StartHandover,
    Turn,
)
from datasync.nodes.purging import Purging
from datasync.nodes.replays import LatestBeacons
from datasync.nodes.retention import Retention
from datasync.nodes.revoking import Revoking
from datasync.nodes.rollout import Rollout
from datasync.nodes.roster import Patience, Roster
from datasync.nodes.source import Source
from datasync.nodes.target import Target
from datasync.nodes.telling import Telling
from datasync.nodes.verifying import Verifying
from datasync.protocol import topics
from datasync.protocol.messages import (
    Ack,
    AnyMessage,
    Attach,
    Beacon,
    ConsentAck,
    ConsentChange,
    Hint,
    PolicyBundle,
    Prepare,
    Refused,
    Rejected,
    Upload,
)
from datasync.protocol.topics import Address
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import peers, policies, revisions, streams
from datasync.sync.receiver import receive


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What makes an edge node: its cloud, how patient it is, and how many devices may be attached at one time."""

    cloud: NodeName
    patience: Patience
    devices_max: int = 10_000


class EdgeNode(Node):
    """One edge."""

    place: ClassVar[Place] = Place.EDGE

    def __init__(self, kit: Kit, settings: EdgeSettings) -> None:
        super().__init__(kit)
        self._settings = settings
        self._roster = Roster(self, settings.patience, settings.devices_max)
        self._challenge = Challenge(kit.entropy)
        self._telling = Telling(self)
        self._forwarding = Forwarding(self, self._telling)
        self._verifying = Verifying(self, self._telling, self._forwarding.sender.look_again)
        self._source = Source(self, self._roster, self._verifying)
        self._target = Target(self, self._roster, self._source, self._challenge, self._forwarding.sender)
        self._gateway = Gateway(self, self._roster)
        self._retention = Retention(self)
        self._purging = Purging(self)
        self._erasing = EdgeErasing(self, settings.cloud)
        self._rollout = Rollout(self, operator_of(settings.cloud), finish=lambda _: None, pass_on=self._pass_on_policy)
        self._beacons = LatestBeacons()
        self._witnessed = Witnessed(self, settings.cloud)
        self._revoking = Revoking(self, DEVICES, self._forget_revoked)
        self._cloud: Peer | None = None
        self.on(Attach, self._on_attach, Role.DEVICE)
        self.on(Upload, self._on_upload, Role.DEVICE)
        self.on(ConsentChange, self._on_consents, Role.DEVICE)
        self.on(Beacon, self._on_beacon, Role.EDGE, Role.CLOUD)
        self.on(PolicyBundle, self._rollout.take, Role.POLICY)

    @property
    def subscriptions(self) -> Mapping[str, tuple[str, ...]]:
        """Its own broker's devices, and its box on the backbone."""
        return {
            DEVICES: topics.UPLINKS,
            BACKBONE: (topics.edge_inbox(self.name), topics.BEACONS, topics.POLICY, topics.REVOKED),
        }

    def begin(self, turn: Turn) -> None:
        """Take up accounts and challenge; the cloud is known from before, or from its beacon."""
        self._challenge.begin(turn.tx, turn.now)
        self._roster.begin(turn)
        self._source.begin(turn)
        self._revoking.begin(turn)
        self._erasing.begin(turn)
        self._verifying.begin(turn)
        known = peers.get(turn.tx, self._settings.cloud)
        if known is not None:
            with suppress(SignerUntrusted):  # expired meanwhile: its next beacon has the new certificate
                self._cloud = self.kit.trust.verify(known.certificate, turn.now)

    def command(self, turn: Turn, command: Input) -> None:
        """Move a device, activate a policy; or greet on a link that came up."""
        match command:
            case StartHandover(ticket, device, target):
                self._source.prepare(turn, device, target)
                turn.effects.answers[ticket] = None
            case Erase():
                self._erase(turn, command)
            case Activate(ticket, source):
                turn.effects.answers[ticket] = self._rollout.activate(turn, source)
            case Install(ticket, bundle):
                turn.effects.answers[ticket] = self._rollout.install(turn, bundle)
            case Revoke(ticket, revocations):
                turn.effects.answers[ticket] = self._revoking.install(turn, revocations)
            case LinkChange(link, up):
                if up:
                    self._greet(turn, link)
            case _:
                raise MessageError(f"an edge takes no {type(command).__name__}")

    def raw(self, turn: Turn, address: Address) -> None:
        """Take what a plain device published on this edge's own broker, or an authority's revocation list."""
        if address.kind == "revoked":
            self._revoking.take(turn)
            return
        if turn.arrival.link != DEVICES:
            raise MessageError("plain devices publish on their edge's own broker")
        self._gateway.take(turn, address)

    def check_signer(self, peer: Peer, message: AnyMessage) -> None:
        """Of another cloud than its own an edge hears that it is there, and takes nothing."""
        if peer.role is Role.CLOUD and peer.name != self._settings.cloud and not isinstance(message, Beacon):
            raise SignerForeign(f"{self.name} is told {message.t} by {self._settings.cloud}, not by {peer.name}")

    def tell_refusal(self, turn: Turn, peer: Peer, message: AnyMessage, error: DatasyncError) -> None:
        """A device then knows what to do, and a source that it need not wait."""
        match message:
            case Attach() | Upload() | Hint() | ConsentChange():
                told = Rejected(
                    of=message.t,
                    code=error.code,
                    detail=error.detail[:1024],
                    incarnation=getattr(message, "incarnation", 0),
                    epoch=message.epoch,
                )
                self.send(turn, turn.arrival.link, topics.device_down(peer.name), told)
            case Prepare(handover=handover, device=device):
                reason = f"{error.detail} [{error.code}]"[-1024:]
                refused = Refused(handover=handover, device=device, reason=reason)
                self.send(turn, BACKBONE, topics.edge_in(peer.name, self.name), refused)
            case _:
                pass

    def undone(self, turn: Turn) -> None:
        """Take up the accounts that were stored, as they are again."""
        for account in self._roster.undone(turn):
            self._source.undone(account)

    def duties(self, turn: Turn) -> None:
        """Renew the beacon, send again what is owed, forward to the cloud, let go what is too old."""
        if self._challenge.renew(turn.tx, turn.now):
            for link in (DEVICES, BACKBONE):
                self._send_beacon(turn, link)
        self._target.duties(turn, self._settings.cloud)
        self._source.duties(turn)
        self._verifying.duties(turn)
        if self._cloud is not None:
            self._forwarding.duties(turn, self._cloud)
        self._telling.duties(turn)
        self._retention.duties(turn)
        self._purging.duties(turn)
        self._erasing.duties(turn)
        self._witnessed.duties(turn)
        turn.effects.wake(self._challenge.deadline_ms)
        turn.effects.wake(self._roster.deadline_ms)

    def _greet(self, turn: Turn, link: str) -> None:
        self._send_beacon(turn, link)
        stored = policies.active(turn.tx)
        if link == DEVICES and stored is not None:
            self._give_policy(turn, stored.bundle)
        if link == DEVICES:
            self._revoking.pass_on(turn)

    def _send_beacon(self, turn: Turn, link: str) -> None:
        beacon = Beacon(
            name=self.name,
            nonce=self._challenge.present,
            load=self._roster.load_share,
            revision=self.revision,
            stamp=self.stamp(turn.now).pack(),
        )
        self.send(turn, link, topics.beacon(self.name), beacon, retain=True)

    def _on_attach(self, turn: Turn, peer: Peer, attach: Attach) -> None:
        self._target.attach(turn, peer, attach)
        self._erasing.refuse(turn, peer, [stream_id(each.public_key) for each in attach.streams])

    def _on_upload(self, turn: Turn, peer: Peer, upload: Upload) -> None:
        account = self._roster.of(turn, peer)
        order = (upload.incarnation, upload.epoch)
        if order < account.known:
            raise EpochStale(f"{peer.name} sends under {order}; {account.known} was seen")
        if account.state is not EdgeState.ACTIVE or order != account.served:
            raise NotAttached(f"{peer.name} is not attached to {self.name} under {order}")
        receipt = receive(turn.tx, self.kit.vault, self.place, peer.name, upload.segments, upload.checkpoints, turn.now)
        self._target.give_way(turn, receipt.durable)
        turn.count("stored", "rows", receipt.rows)
        turn.count("stored", "segments", receipt.segments)
        turn.count("stored", "duplicates", receipt.duplicates)
        safe = {each.stream: each.safe & receipt.durable[each.stream] for each in receipt.streams}
        self._telling.add(
            turn,
            peer.name,
            safe={stream: numbers for stream, numbers in safe.items() if numbers},
            signed=receipt.signed,
        )
        word = self._telling.take(peer.name)
        ack = Ack(
            incarnation=upload.incarnation,
            epoch=upload.epoch,
            durable=receipt.durable,
            safe=word.safe,
            signed=word.signed,
        )
        self.send(turn, turn.arrival.link, topics.device_down(peer.name), ack)
        self._erasing.refuse(turn, peer, receipt.erased)

    def _on_consents(self, turn: Turn, peer: Peer, change: ConsentChange) -> None:
        account = self._roster.of(turn, peer)
        if account.state is not EdgeState.ACTIVE or account.served != (change.incarnation, change.epoch):
            raise NotAttached(f"{peer.name} is not attached to {self.name}")
        known = {stream.stream: stream for stream in streams.of_device(turn.tx, peer.name)}
        taken = take_consents(turn.tx, self.place, change.statements, known)
        ack = ConsentAck(incarnation=change.incarnation, epoch=change.epoch, consents=taken)
        self.send(turn, turn.arrival.link, topics.device_down(peer.name), ack)

    def _erase(self, turn: Turn, asked: Erase) -> None:
        device = asked.device or self.name
        account = self._roster.load(turn, device)
        if account.known != NEVER or account.state is not EdgeState.ACTIVE:
            raise ErasureForeign(f"{self.name} has no keys of {device}'s streams", fix="ask the subject's own device")
        subject.check(turn, self, device, asked.collection)
        key, wanted = self._gateway.stream_key(device), subject.Wanted(asked.collection, asked.everything)
        erased = [each.stream for each in subject.state(turn, self, self._erasing, device, key, wanted)]
        self._erasing.everywhere(turn, erased)
        self._erasing.answer(asked.ticket, erased)

    def _on_beacon(self, turn: Turn, peer: Peer, beacon: Beacon) -> None:
        if turn.arrival.link != BACKBONE or peer.name == self.name:
            return
        self._beacons.check(peer, beacon)
        note_peer(turn, peer, beacon)
        self._erasing.heard(turn, peer)
        if peer.name == self._settings.cloud and peer.role is Role.CLOUD:
            self._cloud = peer

    def _forget_revoked(self, turn: Turn, names: frozenset[NodeName]) -> None:
        """Nothing more is taken of whom these certificates named, and nothing more given: what is stored stays."""
        if self._cloud is not None and self._revoking.is_revoked(self._cloud.certificate):
            self._cloud = None
        known = (peers.get(turn.tx, name) for name in names)
        self._source.forget_targets(
            {NodeName(peer.name) for peer in known if peer and self._revoking.is_revoked(peer.certificate)}
        )
        self._roster.end_revoked(turn, names)

    def _pass_on_policy(self, turn: Turn, bundle: bytes) -> None:
        self._give_policy(turn, bundle)
        for link in (DEVICES, BACKBONE):
            self._send_beacon(turn, link)

    def _give_policy(self, turn: Turn, bundle: bytes) -> None:
        if bundle:  # a policy of this edge's own is not for others
            turn.effects.send.append(Outgoing(DEVICES, topics.POLICY, bundle, retain=True))


def note_peer(turn: Turn, peer: Peer, beacon: Beacon) -> None:
    """Remember a node that beaconed, and which policy it follows."""
    revisions.put(turn.tx, peer.name, beacon.revision)
    known = peers.KnownPeer(
        name=peer.name,
        role=peer.role,
        certificate=peer.certificate,
        nonce=beacon.nonce.hex(),
        load=beacon.load,
        seen_ms=turn.now.wall_ms,
    )
    peers.put(turn.tx, known)
