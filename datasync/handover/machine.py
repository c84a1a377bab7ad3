"""One edge's account of one device, and what each event makes of it: pure functions over a frozen value.

Every function takes the account and an event's facts and returns the new account, or raises and changes nothing.
What follows from an account (what to send, until heard of) is :func:`duties`: it depends on the account alone, so
that an edge which crashes and restarts goes on exactly where its database says.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from datasync.domain import limits
from datasync.domain.errors import EpochLeap, EpochStale, HandoverError, NonceStale
from datasync.domain.ids import HandoverId, NodeName
from datasync.handover.states import EdgeEvent, EdgeState, edge_next
from datasync.protocol.parts import AttachToken

Order = tuple[int, int]
"""Incarnation and epoch, which compare as a pair."""

NEVER: Order = (0, 0)


@dataclass(frozen=True, slots=True)
class Account:
    """What one edge knows of one device.

    ``known`` is the highest order seen, whoever it named; ``served`` the order under which this edge itself was last
    attached, with its signed ``token``; ``operator`` the one that enrolled the device, empty until a token was taken.
    ``cold`` are the sources whose hot set has not arrived, ``pending`` those that still have something to send,
    ``unreleased`` those not yet told, or not confirming, that all arrived.
    """

    device: NodeName
    state: EdgeState = EdgeState.UNKNOWN
    known: Order = NEVER
    served: Order = NEVER
    operator: str = ""
    token: bytes = field(default=b"", repr=False)
    nonce: bytes = field(default=b"", repr=False)
    handover: HandoverId | None = None
    target: NodeName | None = None
    cold: tuple[NodeName, ...] = ()
    pending: tuple[NodeName, ...] = ()
    unreleased: tuple[NodeName, ...] = ()
    registered: bool = False
    since_ms: int = 0

    @property
    def mode(self) -> str:
        """``full`` when the state of every previous edge has arrived, else ``degraded``."""
        return "degraded" if self.pending else "full"


@dataclass(frozen=True, slots=True)
class Duties:
    """What an edge owes for a device until the other side answers."""

    fence: tuple[NodeName, ...] = ()
    activate: tuple[NodeName, ...] = ()
    register: bool = False

    def __bool__(self) -> bool:
        return bool(self.fence or self.activate or self.register)


def duties(account: Account) -> Duties:
    """Return what must be sent, again and again, while the account stays as it is.

    A source is told that all it gave has arrived even by an edge that meanwhile froze, or gave everything on and
    erased it: otherwise that source would hold its copy for ever.
    """
    complete = tuple(source for source in account.unreleased if source not in account.pending)
    match account.state:
        case EdgeState.CATCHING_UP:
            return Duties(fence=account.pending)
        case EdgeState.ACTIVE:
            return Duties(fence=account.pending, activate=complete, register=not account.registered)
        case EdgeState.FROZEN | EdgeState.HELD | EdgeState.ERASED:
            return Duties(fence=account.pending, activate=complete)
        case _:
            return Duties()


def prepare(account: Account, handover: HandoverId, order: Order, nonce: bytes, now_ms: int) -> Account:
    """A source announces that the device may come. Raises EpochStale, EventUnexpected."""
    if order < account.known:
        raise EpochStale(f"{account.device}: the source is at {order}, this edge has seen {account.known}")
    state = edge_next(account.state, EdgeEvent.PREPARE)
    kept = account.nonce if account.handover == handover and account.nonce else nonce
    return replace(account, state=state, handover=handover, nonce=kept, since_ms=now_ms)


def attach(
    account: Account, token: AttachToken, raw: bytes, me: NodeName, nonces: Iterable[bytes], now_ms: int
) -> Account:
    """The device attaches here. Returns the account unchanged for a token already accepted.

    Raises EpochStale, EpochLeap, NonceStale, HandoverError.
    """
    if token.edge != me or token.device != account.device:
        raise HandoverError(f"the token of {token.device} names {token.edge}, not {me}")
    if token.order == account.served and account.state in (EdgeState.CATCHING_UP, EdgeState.ACTIVE):
        return account
    check_newer(account, token)
    if token.nonce not in (*nonces, account.nonce or None):
        raise NonceStale(f"{token.device}: take the nonce of the latest beacon of {me}")
    sources = tuple(dict.fromkeys(visit.edge for visit in token.previous if visit.edge != me))
    if len(_union(sources, account.unreleased)) > limits.SOURCES_MAX:
        raise HandoverError(f"{me} waits for {len(account.unreleased)} edges of {token.device} already")
    return replace(
        account,
        state=edge_next(account.state, EdgeEvent.ATTACH),
        known=token.order,
        served=token.order,
        token=raw,
        nonce=b"",
        target=None,
        cold=sources,
        # an edge that comes back while it still waits for an older source goes on waiting for that one too
        pending=_union(sources, account.pending),
        unreleased=_union(sources, account.unreleased),
        registered=False,
        since_ms=now_ms,
    )


def check_newer(account: Account, token: AttachToken) -> None:
    """Raise EpochStale or EpochLeap unless the token's order is a believable next one."""
    if token.order <= account.known:
        raise EpochStale(f"{token.device} at {token.order}: {account.known} was seen already")
    same = token.incarnation == account.known[0]
    if token.epoch > limits.EPOCH_LEAP_MAX + (account.known[1] if same else 0):
        raise EpochLeap(f"{token.device} at {token.order}: over {limits.EPOCH_LEAP_MAX} beyond {account.known}")


def fence(account: Account, token: AttachToken, me: NodeName, now_ms: int) -> Account:
    """The device attached elsewhere. Returns the account unchanged for the token that froze it already.

    Raises EpochStale for an older token (the asker was overtaken), EpochLeap, HandoverError.
    """
    if token.edge == me or token.device != account.device:
        raise HandoverError(f"the token of {token.device} names {token.edge}, which is no reason to freeze {me}")
    if token.order == account.known and token.edge == account.target:
        return account
    named = me in {visit.edge for visit in token.previous}
    if not (named or account.target == token.edge or _was_missed(account, token)):
        # the asker waits for a visit since which this edge has been told to give all it has to another
        raise EpochStale(f"{token.device} at {token.order}: what {me} has goes to {account.target}")
    check_newer(account, token)
    return replace(
        account,
        state=edge_next(account.state, EdgeEvent.FENCE),
        known=token.order,
        target=token.edge,
        # what this edge still waits for from the asker is at the asker already
        cold=tuple(source for source in account.cold if source != token.edge),
        pending=tuple(source for source in account.pending if source != token.edge),
        since_ms=now_ms,
    )


def _was_missed(account: Account, token: AttachToken) -> bool:
    """Whether an edge never heard that the device left, and the token names only visits since."""
    since = [(visit.incarnation, visit.epoch) for visit in token.previous]
    return account.target is None and bool(since) and min(since) > account.known


def received(account: Account, source: NodeName, *, hot: bool, complete: bool) -> Account:
    """A source says that its hot set, or all it has, has arrived here."""
    cold = tuple(name for name in account.cold if name != source or not (hot or complete))
    pending = tuple(name for name in account.pending if name != source or not complete)
    return replace(account, cold=cold, pending=pending)


def catch_up(account: Account, now_ms: int, source_timeout_ms: int) -> Account:
    """Become active once every hot set is here, or the sources stayed silent for ``source_timeout_ms``."""
    if account.state is not EdgeState.CATCHING_UP:
        return account
    if account.cold and now_ms < account.since_ms + source_timeout_ms:
        return account
    return replace(account, state=edge_next(account.state, EdgeEvent.CAUGHT_UP), since_ms=now_ms)


def target_active(account: Account, order: Order, now_ms: int) -> Account:
    """The edge of the token that froze this one has everything. Raises EpochStale for an older token."""
    if order < account.known:
        raise EpochStale(f"{account.device} at {order}: {account.known} was seen already")
    state = edge_next(account.state, EdgeEvent.TARGET_ACTIVE)
    return account if state is account.state else replace(account, state=state, since_ms=now_ms)


def revoke(account: Account, now_ms: int) -> Account:
    """The device's certificate counts no longer. Returns the account unchanged when it is not served here by a token.

    What its device gave stays and is seen. A newer token, which takes another certificate, thaws or moves it.
    """
    if not account.token or account.state not in (EdgeState.CATCHING_UP, EdgeState.ACTIVE):
        return account
    return replace(account, state=edge_next(account.state, EdgeEvent.REVOKE), since_ms=now_ms)


def released(account: Account, source: NodeName, order: Order) -> Account:
    """A source confirms that it knows the device is complete here."""
    if order != account.served:
        raise EpochStale(f"{account.device}: a release for {order}, this edge was attached at {account.served}")
    return replace(account, unreleased=tuple(name for name in account.unreleased if name != source))


def expire(account: Account, now_ms: int, *, hold_ms: int, prepared_ms: int) -> Account:
    """Let a held copy or a copy in advance go when its time is over; otherwise return the account unchanged."""
    keep_ms = {EdgeState.HELD: hold_ms, EdgeState.PREPARED: prepared_ms}.get(account.state)
    if keep_ms is None or now_ms < account.since_ms + keep_ms:
        return account
    return replace(account, state=edge_next(account.state, EdgeEvent.EXPIRE), nonce=b"", handover=None, since_ms=now_ms)


def expiry_ms(account: Account, *, hold_ms: int, prepared_ms: int, source_timeout_ms: int) -> int | None:
    """Return the wall time at which this account changes by itself, or None."""
    match account.state:
        case EdgeState.HELD:
            return account.since_ms + hold_ms
        case EdgeState.PREPARED:
            return account.since_ms + prepared_ms
        case EdgeState.CATCHING_UP:
            return account.since_ms + source_timeout_ms
        case _:
            return None


def _union(first: tuple[NodeName, ...], second: tuple[NodeName, ...]) -> tuple[NodeName, ...]:
    return tuple(dict.fromkeys((*first, *second)))
