"""A node: a function of its database.

``handle(tx, inputs, now)`` reads and writes in one transaction and returns what to do after its commit. Everything
that must survive is in the database; what an object remembers besides is soft and only saves work: a node that is
built anew goes on where the database says. No clock, socket, thread or randomness is in here, so that the simulator
runs the very classes that run as processes.

An input that is refused changes nothing: each is taken in a savepoint and with effects of its own, so that neither
rows nor messages of one are left, however far its handler got. What went wrong has a stable code, which is counted,
noted once for each sender and interval, and told to the sender where that helps it.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import DatasyncError, MessageError, SignerForeign, StoreError
from datasync.domain.ids import NodeName
from datasync.domain.tiers import Place
from datasync.policy.compiled import Policy
from datasync.policy.loading import load as load_policy
from datasync.protocol import envelope, topics
from datasync.protocol.envelope import Opener, Sealer
from datasync.protocol.messages import AnyMessage, Forward, Message, Upload, decode
from datasync.protocol.topics import Address
from datasync.security.identity import Identity, Role
from datasync.security.trust import Peer, Trust
from datasync.security.vault import Vault
from datasync.store import audit, policies, registers
from datasync.store.audit import Event

NOTE_INTERVAL_MS = 10_000
NOTED_MAX = 4_096
REFUSAL_CHARACTERS_MAX = 4_096
AUDITED_CHARACTERS_MAX = 300
SEALED_MARK = b"\xd0"
"""The first byte of a COSE_Encrypt0 (CBOR tag 16); a plain message is a CBOR map and never begins so."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that a link delivered."""

    link: str
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A link came up, with its subscriptions in force, or went down."""

    link: str
    up: bool


@dataclass(frozen=True, slots=True)
class Record:
    """Rows for a collection, of its input schema; ``ticket`` is answered when they are durable."""

    ticket: int
    collection: str
    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Move:
    """Go to another edge: with the present edge's preparation, or at once."""

    ticket: int
    target: NodeName
    planned: bool


@dataclass(frozen=True, slots=True)
class ConsentInput:
    """The device's subject allows, or no longer allows, a purpose."""

    ticket: int
    purpose: str
    given: bool


@dataclass(frozen=True, slots=True)
class Erase:
    """A subject wants to be forgotten: ``device`` (None: this node) names whose, of one collection or (None) of all.

    ``everything``: also what is private to the user. The answer, when the keys here are destroyed, is the streams.
    """

    ticket: int
    device: NodeName | None
    collection: str | None
    everything: bool


@dataclass(frozen=True, slots=True)
class Activate:
    """Make a policy the active one, by this node's own authority; the answer is the policy."""

    ticket: int
    source: bytes


@dataclass(frozen=True, slots=True)
class Install:
    """Take a policy that was signed elsewhere, and pass it on; the answer is the policy."""

    ticket: int
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Revoke:
    """Take a revocation list that an authority signed, and pass it on; the answer is the list."""

    ticket: int
    revocations: bytes


@dataclass(frozen=True, slots=True)
class StartHandover:
    """An administrator wants a device moved to another edge."""

    ticket: int
    device: NodeName
    target: NodeName


@dataclass(frozen=True, slots=True)
class Change:
    """An administrator's change, made in the node's own transaction; the answer is what it returns."""

    ticket: int
    make: Callable[[Connection], Any]


Input = (
    Arrival | LinkChange | Record | Move | ConsentInput | Erase | Activate | Install | Revoke | StartHandover | Change
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish after the commit."""

    link: str
    topic: str
    payload: bytes
    retain: bool = False


@dataclass(slots=True)
class Effects:
    """What to do after the commit: publish, answer tickets, keep links, count, note, and come again at ``wake_ms``.

    ``alarms`` are notes that an operator must see; ``policies_refused`` counts by code. ``compact``: let no file keep
    what was deleted.
    """

    send: list[Outgoing] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)
    links: frozenset[str] | None = None
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    policies_refused: Counter[str] = field(default_factory=Counter)
    wake_ms: int | None = None
    compact: bool = False

    def wake(self, steady_ms: int | None) -> None:
        """Ask to be called again by this steady time; None asks for nothing."""
        if steady_ms is not None:
            self.wake_ms = steady_ms if self.wake_ms is None else min(self.wake_ms, steady_ms)

    def add(self, more: "Effects") -> None:
        """Let these be followed by more."""
        self.send += more.send
        self.answers |= more.answers
        self.links = self.links if more.links is None else more.links
        self.counts.update(more.counts)
        self.notes += more.notes
        self.alarms += more.alarms
        self.policies_refused.update(more.policies_refused)
        self.compact |= more.compact
        self.wake(more.wake_ms)


@dataclass(frozen=True, slots=True)
class Kit:
    """What every node is given: who it is, whom it trusts, where its keys are, and where randomness comes from."""

    identity: Identity
    trust: Trust
    vault: Vault
    entropy: Callable[[int], bytes]
    window_bytes: int = limits.WINDOW_BYTES
    retry_ms: int = limits.RETRY_MS
    revocations: tuple[bytes, ...] = ()
    """Lists that were put where the authorities' certificates are."""


@dataclass(slots=True)
class Turn:
    """One call of a node: its transaction, its moment, its effects, the message being handled, whom that touched."""

    tx: Connection
    now: Instant
    effects: Effects = field(default_factory=Effects)
    arrival: Arrival = Arrival("", "", b"")
    touched: set[NodeName] = field(default_factory=set)

    def count(self, kind: str, what: str, number: int = 1) -> None:
        """Add to a counter of the metrics."""
        self.effects.counts[kind, what] += number


Handler = Callable[[Turn, Peer, Any], None]


class Node(ABC):
    """What device, edge and cloud have in common."""

    place: ClassVar[Place]

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.name = kit.identity.name
        self.policy: Policy | None = None
        self._sealer = Sealer(kit.identity, kit.entropy)
        self.opener = Opener(kit.identity)
        self._clock = HybridTime(0, 0)
        self._stamped = False
        self._noted: dict[tuple[str, str], int] = {}
        self._handlers: dict[type[Message], tuple[frozenset[Role], Handler]] = {}

    def start(self, tx: Connection, now: Instant) -> Effects:
        """Take up what the database says; called once, before anything is handled."""
        turn = Turn(tx, now)
        self._clock = HybridTime.unpack(registers.get(tx, "clock", 0))
        if (stored := policies.active(tx)) is not None:
            self.policy = load_policy(stored.source, name=f"revision {stored.revision}")
        self.begin(turn)
        return self._finish(turn)

    def handle(self, tx: Connection, inputs: Sequence[Input], now: Instant) -> Effects:
        """Take in what arrived, then do what is due."""
        turn = Turn(tx, now)
        for each in inputs:
            try:
                self._take(turn, each)
            except StoreError:
                raise  # the database is away, not the input wrong: all of it is undone and comes again
            except DatasyncError as error:
                self._refuse(turn, each, error)
        return self._finish(turn)

    @property
    def revision(self) -> int | None:
        """The revision of the policy that this node follows."""
        return None if self.policy is None else self.policy.revision

    @property
    @abstractmethod
    def subscriptions(self) -> Mapping[str, tuple[str, ...]]:
        """The topic filters for each link; on a device, for every link alike under the empty name."""

    @abstractmethod
    def begin(self, turn: Turn) -> None:
        """Take up soft state from the database and greet."""

    @abstractmethod
    def command(self, turn: Turn, command: Input) -> None:
        """Take an input that is no message. Raises DatasyncError."""

    @abstractmethod
    def duties(self, turn: Turn) -> None:
        """Send what is due and ask to be woken for what is not yet."""

    def undone(self, turn: Turn) -> None:  # noqa: B027 - most have nothing to do
        """Set right what is remembered beside the database: what an input did there was taken back."""

    def check_signer(self, peer: Peer, message: AnyMessage) -> None:  # noqa: B027 - most have nothing to do
        """Raise SignerForeign for a peer whose role may say this, but not to this node."""

    def tell_refusal(self, turn: Turn, peer: Peer, message: AnyMessage, error: DatasyncError) -> None:  # noqa: B027 - most have nothing to do
        """Tell the sender of a message that was refused, where that helps it."""

    def raw(self, turn: Turn, address: Address) -> None:
        """Take a payload that no node signed: a plain device's, or an authority's. Raises DatasyncError."""
        raise MessageError(f"a {self.place} takes no {address.kind} messages, as {turn.arrival.topic} is")

    def stamp(self, now: Instant) -> HybridTime:
        """Return the next reading of the node's hybrid clock."""
        self._clock = self._clock.tick(now)
        self._stamped = True
        return self._clock

    def on(self, message: type[Message], handler: Handler, *roles: Role) -> None:
        """Let ``handler`` take messages of this kind from nodes of these roles."""
        self._handlers[message] = (frozenset(roles), handler)

    def send(self, turn: Turn, link: str, topic: str, message: Message, *, retain: bool = False) -> None:
        """Sign a message and publish it after the commit."""
        payload = envelope.sign(self.kit.identity, topic, message.encode())
        turn.effects.send.append(Outgoing(link, topic, payload, retain))

    def send_sealed(self, turn: Turn, link: str, topic: str, peer: Peer, message: Message) -> None:
        """Seal a message to ``peer``, sign it and publish it after the commit."""
        sealed = self.seal(peer, topic, message.encode())
        turn.effects.send.append(Outgoing(link, topic, envelope.sign(self.kit.identity, topic, sealed)))

    def seal(self, peer: Peer, context: str, plaintext: bytes) -> bytes:
        """Seal bytes to ``peer`` for a context."""
        return self._sealer.seal(peer, context, plaintext)

    def note(self, turn: Turn, sender: str, error: DatasyncError) -> None:
        """Count an error, and note it for the log once for each sender, code and interval."""
        if self._is_new(turn, sender, error):
            turn.effects.notes.append(f"{sender}: {error}")

    def _is_new(self, turn: Turn, sender: str, error: DatasyncError) -> bool:
        turn.count("refused", error.code)
        key, steady_ms = (sender, error.code), turn.now.steady_ms
        if steady_ms - self._noted.get(key, steady_ms - NOTE_INTERVAL_MS) < NOTE_INTERVAL_MS:
            return False
        if len(self._noted) >= NOTED_MAX:
            self._noted.clear()
        self._noted[key] = steady_ms
        return True

    def _take(self, turn: Turn, each: Input) -> None:
        match each:
            case Arrival():
                turn.arrival = each
                self._receive(turn)
            case Change():
                with self._whole(turn):
                    turn.effects.answers[each.ticket] = each.make(turn.tx)
            case _:
                with self._whole(turn):
                    self.command(turn, each)
                    self._audit(turn, each)

    def _audit(self, turn: Turn, each: Input) -> None:
        """Log what was wanted here by hand; what else is wanted is logged where it is done."""
        now_ms = turn.now.wall_ms
        match each:
            case StartHandover(_, device, target):
                audit.append(turn.tx, Event.HANDOVER_STARTED, audit.ADMINISTRATOR, device, {"target": target}, now_ms)
            case ConsentInput(_, purpose, given):
                audit.append(turn.tx, Event.CONSENT_SAID, self.name, purpose, {"given": given}, now_ms)
            case _:
                pass

    @contextmanager
    def _whole(self, turn: Turn) -> Iterator[None]:
        """Everything that an input changes and says, or, when it is refused, nothing of it."""
        before, policy = turn.effects, self.policy
        turn.effects = Effects()
        turn.touched.clear()
        try:
            with turn.tx.begin_nested():
                yield
        except DatasyncError:
            turn.effects, self.policy = before, policy
            self.undone(turn)
            raise
        before.add(turn.effects)
        turn.effects = before

    def _receive(self, turn: Turn) -> None:
        address = topics.parse(turn.arrival.topic)
        if address.kind in ("json", "revoked"):
            with self._whole(turn):
                self.raw(turn, address)
            return
        peer, message = self._open(turn, address)
        if (peer.name, peer.role) == (self.name, self.kit.identity.role):
            return  # a broker gives a subscriber what it published itself
        turn.count("received", message.t)
        roles, handler = self._handlers.get(type(message), (frozenset(), None))
        if handler is None or peer.role not in roles:
            raise SignerForeign(f"a {self.place} takes no {message.t} from {peer.role} {peer.name}")
        self.check_signer(peer, message)
        try:
            with self._whole(turn):
                handler(turn, peer, message)
        except DatasyncError as error:
            self.tell_refusal(turn, peer, message, error)
            raise

    def _open(self, turn: Turn, address: Address) -> tuple[Peer, AnyMessage]:
        arrival = turn.arrival
        bulky = address.kind in ("seg", "edge", "cloud")
        bytes_max = limits.MESSAGE_BYTES_MAX if bulky else 2 * limits.CONTROL_BYTES_MAX
        opened = envelope.verify(arrival.payload, arrival.topic, self.kit.trust, turn.now, bytes_max=bytes_max)
        if not topics.may_publish(opened.peer.name, address):
            raise SignerForeign(f"{opened.peer.name} may not speak on {arrival.topic}")
        sealed = opened.body[:1] == SEALED_MARK
        body = self.opener.open(opened.body, arrival.topic, opened.peer) if sealed else opened.body
        message = decode(body)
        if isinstance(message, Upload | Forward) and not sealed:
            raise MessageError(f"a {message.t} must be sealed to its receiver")
        return opened.peer, message

    def _finish(self, turn: Turn) -> Effects:
        self.duties(turn)
        if self._stamped:
            registers.put(turn.tx, "clock", self._clock.pack())
            self._stamped = False
        return turn.effects

    def _refuse(self, turn: Turn, each: Input, error: DatasyncError) -> None:
        match each:
            case Arrival(topic=topics.POLICY):
                self._refuse_policy(turn, topics.POLICY, error)
            case Arrival():
                self.note(turn, each.topic, error)
            case LinkChange():
                raise error
            case Activate() | Install():
                self._refuse_policy(turn, "a policy given here", error)
                turn.effects.answers[each.ticket] = error
            case _:
                turn.count("refused", error.code)
                turn.effects.answers[each.ticket] = error

    def _refuse_policy(self, turn: Turn, sender: str, error: DatasyncError) -> None:
        """The active policy stays in force, and whoever watches this node must come to know why."""
        if self._is_new(turn, sender, error):
            turn.effects.alarms.append(f"{sender}: refused as {error.code}, the active policy stays in force: {error}")
            detail = {"code": error.code, "error": str(error)[:AUDITED_CHARACTERS_MAX]}
            audit.append(turn.tx, Event.POLICY_REFUSED, sender, "policy", detail, turn.now.wall_ms)
        turn.effects.policies_refused[error.code] += 1
        policies.refuse(turn.tx, policies.Refusal(error.code, str(error)[:REFUSAL_CHARACTERS_MAX], turn.now.wall_ms))
