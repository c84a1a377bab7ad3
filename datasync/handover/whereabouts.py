"""Where a device is: its own attachment, and what each event makes of it.

The device alone moves its epoch on. A move is made durable before anything is signed with it, so an epoch is never
used twice, whatever crashes. ``visits`` are the edges that may have state: the last one that confirmed, and every
one tried since. ``ring`` has the session key of the present attach and, by edge, all since the last attach confirmed
there: an edge that an attach never reached still seals under the key of the one before.
"""

from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.errors import HandoverError
from datasync.domain.ids import HandoverId, NodeName
from datasync.handover.states import DeviceEvent, DeviceState, device_next
from datasync.protocol import cbor
from datasync.protocol.parts import AttachToken, KeyRing, SessionKeys, Visit, decode_part
from datasync.security.vault import Vault
from datasync.security.wrapping import OWN_SESSION_LABEL
from datasync.store import attachments
from datasync.store.attachments import Attachment

NO_KEYS = KeyRing(session=bytes(32), by_edge={})


@dataclass(frozen=True, slots=True)
class Wish:
    """Where the device is to go next, with its edge's preparation until ``until_ms`` (wall time), then without."""

    target: NodeName
    until_ms: int


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A device's attachment as the device knows it."""

    device: NodeName
    state: DeviceState = DeviceState.DETACHED
    incarnation: int = 0
    epoch: int = 0
    edge: NodeName | None = None
    visits: tuple[Visit, ...] = ()
    nonce: bytes = b""
    handover: HandoverId | None = None
    mode: str | None = None
    wish: Wish | None = None
    ring: KeyRing = field(default=NO_KEYS, repr=False)
    since_ms: int = 0

    @property
    def keys(self) -> SessionKeys:
        """What the present attach gives to its target."""
        given = {visit.edge: self.ring.by_edge[visit.edge] for visit in self.visits if visit.edge != self.edge}
        return SessionKeys(session=self.ring.session, previous=given)

    def token(self, nonce: bytes) -> AttachToken:
        """Return the token of the present attach, to be signed; ``nonce`` is the target's challenge."""
        if self.edge is None:
            raise HandoverError(f"{self.device} has no edge to attach to")
        return AttachToken(
            device=self.device,
            incarnation=self.incarnation,
            epoch=self.epoch,
            edge=self.edge,
            nonce=nonce,
            previous=list(self.visits),
            handover=self.handover,
        )


def move(
    here: Whereabouts,
    target: NodeName,
    session_key: bytes,
    now_ms: int,
    *,
    nonce: bytes = b"",
    handover: HandoverId | None = None,
) -> Whereabouts:
    """Begin to attach to ``target`` under the next epoch; ``session_key`` (32 bytes) is new.

    Raises HandoverError after too many edges that never confirmed, EventUnexpected.
    """
    state = device_next(here.state, DeviceEvent.MOVE)
    visits: dict[NodeName, Visit] = {}
    if here.state is DeviceState.ATTACHING:
        visits = {visit.edge: visit for visit in here.visits}
    if here.edge is not None:
        visits[here.edge] = Visit(edge=here.edge, incarnation=here.incarnation, epoch=here.epoch)
    if len(visits) > limits.PREVIOUS_MAX:
        raise HandoverError(f"{len(visits)} edges in a row did not confirm; go back to one of them")
    keys = [*here.ring.by_edge.get(target, []), session_key][-limits.PREVIOUS_MAX :]
    return replace(
        here,
        state=state,
        epoch=here.epoch + 1,
        edge=target,
        visits=tuple(visits.values()),
        nonce=nonce,
        handover=handover,
        mode=None,
        wish=None,
        ring=KeyRing(session=session_key, by_edge={**here.ring.by_edge, target: keys}),
        since_ms=now_ms,
    )


def renew(here: Whereabouts, session_key: bytes, now_ms: int, *, forget: bool) -> Whereabouts:
    """Begin to attach to the same edge anew, under a new session key; ``forget`` lets all former ones go.

    Nobody can read any more what was sealed under a key that is let go. After too many edges that never confirmed
    nothing changes: the next move brings a new key.
    """
    if here.edge is None or len(here.visits) >= limits.PREVIOUS_MAX:
        return here
    moved = replace(move(here, here.edge, session_key, now_ms), wish=here.wish)
    if not forget:
        return moved
    by_edge: dict[NodeName, list[bytes]] = {edge: [] for edge in moved.ring.by_edge}
    return replace(moved, ring=KeyRing(session=session_key, by_edge={**by_edge, here.edge: [session_key]}))


def confirm(here: Whereabouts, mode: str, now_ms: int) -> Whereabouts:
    """The edge confirmed the present attach: its state is sealed under this session key from now on."""
    state = device_next(here.state, DeviceEvent.CONFIRM)
    keys = {**here.ring.by_edge, here.edge: [here.ring.session]} if here.edge is not None else here.ring.by_edge
    since_ms = now_ms if state is not here.state else here.since_ms
    ring = KeyRing(session=here.ring.session, by_edge=keys)
    return replace(here, state=state, mode=mode, ring=ring, since_ms=since_ms)


def load(tx: Connection, vault: Vault, device: NodeName) -> Whereabouts:
    """Return the device's own attachment; a new device is detached."""
    row = attachments.get(tx, device)
    if row is None:
        return Whereabouts(device)
    wish = row.detail["wish"]
    return Whereabouts(
        device=device,
        state=DeviceState(row.state),
        incarnation=row.incarnation,
        epoch=row.epoch,
        edge=NodeName(row.edge) if row.edge else None,
        visits=tuple(Visit.model_validate(visit) for visit in row.detail["visits"]),
        nonce=bytes.fromhex(row.nonce or ""),
        handover=HandoverId(row.handover) if row.handover else None,
        mode=row.mode,
        wish=Wish(NodeName(wish[0]), wish[1]) if wish else None,
        ring=decode_part(KeyRing, vault.unwrap(row.session_key, OWN_SESSION_LABEL)) if row.session_key else NO_KEYS,
        since_ms=row.since_ms,
    )


def save(tx: Connection, vault: Vault, here: Whereabouts, now_ms: int) -> None:
    """Store the device's own attachment."""
    wish = None if here.wish is None else [here.wish.target, here.wish.until_ms]
    attachments.put(
        tx,
        Attachment(
            device=here.device,
            state=here.state,
            incarnation=here.incarnation,
            epoch=here.epoch,
            edge=here.edge,
            handover=here.handover,
            nonce=here.nonce.hex() or None,
            mode=here.mode,
            session_key=vault.wrap(cbor.dumps(here.ring.model_dump()), OWN_SESSION_LABEL),
            detail={"visits": [visit.model_dump() for visit in here.visits], "wish": wish},
            since_ms=here.since_ms,
            updated_ms=now_ms,
        ),
    )
