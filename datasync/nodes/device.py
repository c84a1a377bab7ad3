"""The device: captures rows, gives them to the edge that serves it, and says by itself which edge that is.

It sends only what may leave it, keeps everything it captured, and sends again from its database what the present
edge lacks and what is not yet safe. Moving, it makes the next epoch durable, then signs it; its links follow its
whereabouts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from datasync.domain import limits
from datasync.domain.errors import (
    HandoverError,
    NotAttached,
    NotFound,
    PolicyMissing,
    RecordError,
)
from datasync.domain.ids import HandoverId, NodeName, operator_of
from datasync.domain.tiers import Place
from datasync.handover import whereabouts
from datasync.handover.states import DeviceState
from datasync.handover.whereabouts import Whereabouts, Wish
from datasync.nodes import journeys, subject
from datasync.nodes.consenting import Voice
from datasync.nodes.doubt import Doubt
from datasync.nodes.node import (
    Activate,
    ConsentInput,
    Erase,
    Input,
    Install,
    Kit,
    LinkChange,
    Move,
    Node,
    Record,
    Revoke,
    Turn,
)
from datasync.nodes.recording import Gathered, Gathering
from datasync.nodes.replays import LatestBeacons
from datasync.nodes.retention import Retention
from datasync.nodes.revoking import Revoking
from datasync.nodes.rollout import Rollout
from datasync.nodes.subject import Wishes
from datasync.nodes.uploading import Uploading
from datasync.protocol import cbor, envelope, topics
from datasync.protocol.messages import (
    Ack,
    Attach,
    Attached,
    Beacon,
    ConsentAck,
    ConsentChange,
    Hint,
    PolicyBundle,
    Ready,
    Refused,
    Rejected,
)
from datasync.protocol.parts import AttachToken, ConsentStatement, StreamNote, decode_part
from datasync.protocol.topics import Address
from datasync.security.identity import Role
from datasync.security.trust import Peer
from datasync.store import consents, streams
from datasync.store.segments import State
from datasync.sync import progress
from datasync.sync.capture import Captor, Meta

PREPARATION_MS = 10_000
"""How long a planned move waits for the present edge before the device goes without its help."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What makes a device node: the edges it may attach to, the first of them, when rows are flushed, its constants."""

    edges: frozenset[NodeName]
    home: NodeName
    flush_rows: int
    flush_ms: int
    meta: Meta
    sign_ms: int = limits.SIGN_MS


Beacons = dict[NodeName, tuple[Peer, bytes]]
"""By edge, what its latest beacon proved: who it is, and the nonce that an attach answers."""


class DeviceNode(Node):
    """One device."""

    place: ClassVar[Place] = Place.DEVICE

    def __init__(self, kit: Kit, settings: DeviceSettings, beacons: Beacons | None = None) -> None:
        """``beacons`` are those heard before in this process: brokers repeat a beacon only to who connects anew."""
        super().__init__(kit)
        self._settings = settings
        self._gathering = Gathering(settings.flush_rows, settings.flush_ms)
        self._doubt = Doubt()
        self._retention = Retention(self)
        self._voice = Voice(self)
        self._wishes = Wishes(self, self._begin_anew)
        home = operator_of(settings.home)
        self._rollout = Rollout(self, home, finish=self._finish_policy, pass_on=self._follow_policy)
        self._here = Whereabouts(self.name)
        self._up: set[str] = set()
        self._told_revision: int | None = None
        self._beacons: Beacons = {} if beacons is None else beacons
        self._latest_beacons = LatestBeacons()
        self._revoking = Revoking(self, None, self._forget_revoked)
        self._attach_due_ms = self._hint_due_ms = self._consent_due_ms = 0
        identity = kit.identity
        remember = lru_cache(limits.STREAMS_PER_DEVICE_MAX)  # to derive a key costs more than to sign with it
        keys = remember(identity.stream_key), remember(identity.pseudonym_key)
        self._captor = Captor(self.name, self.place, kit.vault, *keys, settings.meta)
        self._uploading = Uploading(self, keys[0], settings.sign_ms)
        self._signing = self._uploading.signing
        self.on(Beacon, self._on_beacon, Role.EDGE)
        self.on(Ready, self._on_ready, Role.EDGE)
        self.on(Refused, self._on_refused, Role.EDGE)
        self.on(Attached, self._on_attached, Role.EDGE)
        self.on(Ack, self._on_ack, Role.EDGE)
        self.on(ConsentAck, self._on_consent_ack, Role.EDGE)
        self.on(Rejected, self._on_rejected, Role.EDGE)
        self.on(PolicyBundle, self._rollout.take, Role.POLICY)

    @property
    def subscriptions(self) -> Mapping[str, tuple[str, ...]]:
        """The same on every edge's broker."""
        return {"": (topics.device_down(self.name), topics.BEACONS, topics.POLICY, topics.REVOKED)}

    @property
    def whereabouts(self) -> Whereabouts:
        """Where the device is."""
        return self._here

    def begin(self, turn: Turn) -> None:
        """Take up the attachment; a device that never had one goes to its home edge."""
        self._revoking.begin(turn)
        self._signing.begin(turn)
        self._here = whereabouts.load(turn.tx, self.kit.vault, self.name)
        if self._here.state is DeviceState.DETACHED:
            self._move(turn, self._settings.home)

    def command(self, turn: Turn, command: Input) -> None:
        """Record rows, move, change a consent; or note that a link came or went."""
        match command:
            case Record(ticket, collection, batch):
                if self.policy is None:
                    raise PolicyMissing("there is no policy yet that says what may be recorded")
                if batch.schema != self.policy.collection(collection).input_schema:
                    raise RecordError(
                        f"the rows are not in the schema that {collection} has now", fix="record them again"
                    )
                self._gathering.add(collection, batch, ticket, turn.now)
            case Move(ticket, target, planned):
                self._wish(turn, target, planned)
                turn.effects.answers[ticket] = None
            case ConsentInput(ticket, purpose, given):
                self._voice.say(turn, purpose, given)
                self._consent_due_ms = turn.now.steady_ms
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
                (self._up.add if up else self._up.discard)(link)
                self._attach_due_ms = turn.now.steady_ms
            case _:
                raise HandoverError(f"a device takes no {type(command).__name__}")

    def raw(self, turn: Turn, address: Address) -> None:
        """Take an authority's revocation list."""
        if address.kind != "revoked":
            super().raw(turn, address)
        self._revoking.take(turn)

    def undone(self, turn: Turn) -> None:
        """Be where the database says."""
        here = whereabouts.load(turn.tx, self.kit.vault, self.name)
        if here != self._here:
            self._here = here
            self._uploading.restart()
        self._voice.forget()

    def duties(self, turn: Turn) -> None:
        """Make durable what is ready, let go what is too old, then attach, or send."""
        self._wishes.duties(turn)
        self._capture(turn, self._gathering.take(turn.now))
        turn.effects.wake(self._gathering.deadline_ms)
        self._signing.duties(turn)
        self._retention.duties(turn)
        if self._here.edge is not None:
            turn.effects.links = frozenset([self._here.edge])
        if self._here.edge not in self._up:
            return
        match self._here.state:
            case DeviceState.ATTACHING:
                self._attach(turn)
            case DeviceState.ATTACHED:
                # the same token again: the answer says whether everything has arrived, and what is safe
                untold = self._told_revision != self.revision
                if untold or self._here.mode == "degraded" or self._doubt.is_due(turn.tx, turn.now):
                    self._attach(turn)
                turn.effects.wake(self._doubt.deadline_ms)
                self._wishes.tell(turn, self._here.edge)
                self._send_consents(turn)  # before rows that they may hide
                if (edge := self._edge()) is not None:
                    self._uploading.duties(turn, edge, self._here)
                self._seek_preparation(turn)

    # --- capture and upload

    def _capture(self, turn: Turn, ready: Iterable[Gathered]) -> None:
        for gathered in ready:
            assert self.policy is not None
            for batch in gathered.batches:
                stamp = self.stamp(turn.now)
                self._captor.capture(turn.tx, self.policy, gathered.collection, batch, stamp, turn.now)
                turn.count("captured", gathered.collection, batch.num_rows)
                self._signing.captured(gathered.collection, batch.num_rows)
            self._voice.repeat(turn, gathered.collection)
            turn.effects.answers.update(dict.fromkeys(gathered.tickets))

    def _on_ack(self, turn: Turn, peer: Peer, ack: Ack) -> None:
        self._from_present(peer, ack.incarnation, ack.epoch)
        self._uploading.acknowledge(turn, ack)

    # --- attaching and moving

    def _wish(self, turn: Turn, target: NodeName, planned: bool) -> None:
        if target == self._here.edge:
            raise HandoverError(f"{self.name} is at {target} already")
        if target not in self._settings.edges:
            raise HandoverError(f"the configuration of {self.name} lists no edge {target}")
        if planned and self._here.state is DeviceState.ATTACHED:
            self._keep(turn, replace(self._here, wish=Wish(target, turn.now.wall_ms + PREPARATION_MS)))
            self._hint_due_ms = turn.now.steady_ms
        else:
            self._move(turn, target)

    def _seek_preparation(self, turn: Turn) -> None:
        wish = self._here.wish
        if wish is None or self._here.edge is None:
            return
        if turn.now.wall_ms >= wish.until_ms:
            self._move(turn, wish.target)
            turn.effects.wake(turn.now.steady_ms)
            return
        if turn.now.steady_ms >= self._hint_due_ms:
            self._hint_due_ms = turn.now.steady_ms + self.kit.retry_ms
            hint = Hint(epoch=self._here.epoch, candidates=[wish.target])
            self.send(turn, self._here.edge, topics.device_up(self.name), hint)
        turn.effects.wake(min(self._hint_due_ms, turn.now.steady_ms + wish.until_ms - turn.now.wall_ms))

    def _move(self, turn: Turn, target: NodeName, nonce: bytes = b"", handover: HandoverId | None = None) -> None:
        moved = whereabouts.move(
            self._here, target, self.kit.entropy(32), turn.now.wall_ms, nonce=nonce, handover=handover
        )
        origin = self._here.edge if self._here.state is DeviceState.ATTACHED else None
        journeys.begin(turn.tx, moved, origin, turn.now.wall_ms)
        self._keep(turn, moved)
        self._uploading.restart()
        self._attach_due_ms = turn.now.steady_ms

    def _keep(self, turn: Turn, here: Whereabouts) -> None:
        whereabouts.save(turn.tx, self.kit.vault, here, turn.now.wall_ms)
        self._here = here

    def _attach(self, turn: Turn) -> None:
        edge = self._edge()
        if edge is None or turn.now.steady_ms < self._attach_due_ms:
            turn.effects.wake(self._attach_due_ms if edge else None)
            return
        nonce = self._here.nonce or self._beacons[edge.name][1]
        token = self._here.token(nonce)
        session_context = f"datasync/session/{self.name}/{token.incarnation}/{token.epoch}"
        attach = Attach(
            incarnation=token.incarnation,
            epoch=token.epoch,
            token=envelope.sign(self.kit.identity, AttachToken.CONTEXT, cbor.dumps(token.model_dump())),
            session=self.seal(edge, session_context, cbor.dumps(self._here.keys.model_dump())),
            streams=self._stream_notes(turn),
            consents=self._voice.statements(turn),
            checkpoints=self._signing.carried(turn),
            revision=self.revision,
        )
        self.send(turn, edge.name, topics.device_up(self.name), attach)
        self._attach_due_ms = turn.now.steady_ms + self.kit.retry_ms
        turn.effects.wake(self._attach_due_ms)

    def _stream_notes(self, turn: Turn) -> list[StreamNote]:
        return [
            StreamNote(public_key=each.public_key, collection=each.collection, tier=int(each.tier))
            for each in streams.of_device(turn.tx, self.name)
            if each.tier <= Place.EDGE.highest_tier
        ]

    def _on_beacon(self, turn: Turn, peer: Peer, beacon: Beacon) -> None:
        self._latest_beacons.check(peer, beacon)
        self._beacons[peer.name] = (peer, beacon.nonce)
        self._attach_due_ms = turn.now.steady_ms

    def _on_ready(self, turn: Turn, peer: Peer, ready: Ready) -> None:
        wish = self._here.wish
        self._from_present(peer, ready.incarnation, ready.epoch)
        if self._here.state is not DeviceState.ATTACHED:
            raise NotAttached(f"{self.name} is not attached to {peer.name} yet")
        if ready.target not in self._settings.edges or ready.target == self._here.edge:
            raise HandoverError(f"{self.name} cannot go to {ready.target}")
        if wish is not None and ready.target != wish.target:
            raise HandoverError(f"{self.name} wishes to go to {wish.target}, not {ready.target}")
        target = self.kit.trust.verify(ready.certificate, turn.now)
        if target.name != ready.target or target.role is not Role.EDGE:
            raise HandoverError(f"the certificate of {ready.target} is that of {target.role} {target.name}")
        self._move(turn, ready.target, ready.nonce, HandoverId(ready.handover))
        self._beacons[target.name] = (target, ready.nonce)

    def _on_refused(self, turn: Turn, peer: Peer, refused: Refused) -> None:
        wish = self._here.wish
        if wish is not None and peer.name == self._here.edge:
            turn.count("handover", "refused")
            self._move(turn, wish.target)

    def _on_attached(self, turn: Turn, peer: Peer, attached: Attached) -> None:
        self._from_present(peer, attached.incarnation, attached.epoch)
        self._told_revision = attached.revision
        arrived = self._here.state is DeviceState.ATTACHING
        if not arrived and attached.mode == self._here.mode:
            progress.acknowledge(turn.tx, {}, attached.safe, {})
            return
        self._keep(turn, whereabouts.confirm(self._here, attached.mode, turn.now.wall_ms))
        journeys.end(turn.tx, attached, turn.now.wall_ms)
        self._uploading.resume(turn, attached, arrived=arrived)
        if arrived:
            self._voice.tell_again(turn)
            self._wishes.tell_again(turn)
            self._consent_due_ms = turn.now.steady_ms

    def _on_rejected(self, turn: Turn, peer: Peer, rejected: Rejected) -> None:
        self._from_present(peer, rejected.incarnation, rejected.epoch)
        turn.count("rejected", rejected.code)
        match rejected.of, rejected.code:
            case "attach", "NONCE_STALE":
                self._keep(turn, replace(self._here, nonce=b"", handover=None))
            case ("attach", "EPOCH_STALE") | ("upload" | "hint", "EPOCH_STALE" | "NOT_ATTACHED"):
                self._move(turn, peer.name)

    def _from_present(self, peer: Peer, incarnation: int, epoch: int) -> None:
        here = self._here
        if (peer.name, incarnation, epoch) != (here.edge, here.incarnation, here.epoch):
            raise NotAttached(f"{self.name} is not at {peer.name} under epoch {epoch}")

    def _forget_revoked(self, _turn: Turn, _names: frozenset[NodeName]) -> None:
        """An edge whose certificate was revoked is as good as never heard of, until it beacons with another."""
        for name, (peer, _) in list(self._beacons.items()):
            if self._revoking.is_revoked(peer.certificate):
                del self._beacons[name]

    def _edge(self) -> Peer | None:
        known = self._beacons.get(self._here.edge) if self._here.edge else None
        return None if known is None else known[0]

    # --- consent and policy

    def _send_consents(self, turn: Turn) -> None:
        waiting = consents.waiting(turn.tx, limit=256)
        if not waiting or self._here.edge is None:
            return
        if turn.now.steady_ms >= self._consent_due_ms:
            self._consent_due_ms = turn.now.steady_ms + self.kit.retry_ms
            change = ConsentChange(
                incarnation=self._here.incarnation,
                epoch=self._here.epoch,
                statements=[decode_part(ConsentStatement, each.statement) for each in waiting],
            )
            self.send(turn, self._here.edge, topics.device_up(self.name), change)
        turn.effects.wake(self._consent_due_ms)

    def _on_consent_ack(self, turn: Turn, peer: Peer, ack: ConsentAck) -> None:
        self._from_present(peer, ack.incarnation, ack.epoch)
        keys = {(each.stream, each.purpose, each.stamp) for each in ack.consents}
        waiting = consents.waiting(turn.tx, limit=1024)
        done = [each for each in waiting if (each.stream, each.purpose, each.stamp.pack()) in keys]
        consents.mark(turn.tx, done, State.SAFE)

    # --- erasure

    def _erase(self, turn: Turn, asked: Erase) -> None:
        if asked.device not in (None, self.name):
            raise NotFound(f"{self.name} has no streams of {asked.device}")
        subject.check(turn, self, self.name, asked.collection)  # before rows are taken that are not durable yet
        self._capture(turn, self._gathering.take(turn.now, everything=True))
        self._wishes.wish(turn, asked, self._here.ring.by_edge)
        session_key, whole = self.kit.entropy(32), asked.collection is None
        self._keep(turn, whereabouts.renew(self._here, session_key, turn.now.wall_ms, forget=whole))
        self._attach_due_ms = turn.now.steady_ms

    def _begin_anew(self, turn: Turn) -> None:
        self._voice.begin_anew(turn)
        self._uploading.restart()

    def _finish_policy(self, turn: Turn) -> None:
        """What was recorded under the policy before is captured under it."""
        self._capture(turn, self._gathering.take(turn.now, everything=True))

    def _follow_policy(self, turn: Turn, bundle: bytes) -> None:
        self._voice.forget()
        self._attach_due_ms = turn.now.steady_ms  # by which the edge is told
