"""An edge's roster: its accounts of devices, and when each of them wants attention.

An account that owes something is due at once and then at growing intervals; one that changes by itself (a copy that
is held only so long, a source that stays silent) has an expiry. Both are arranged again whenever the account is
saved, and from the database after a restart or when what was saved was taken back.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from datasync.domain import limits
from datasync.domain.clock import Instant
from datasync.domain.errors import EdgeFull, SignerRevoked
from datasync.domain.ids import NodeName
from datasync.handover import accounts, machine, tokens
from datasync.handover.machine import Account, Duties
from datasync.handover.states import EdgeState
from datasync.nodes.node import Node, Turn
from datasync.security.trust import Peer
from datasync.store import checkpoints, compaction, consents, segments, streams, terms

PREPARED_MS = 60_000
"""How long ciphertext in advance is kept for a device that may come."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an edge holds a copy, waits for a silent source, and keeps what came in advance, in milliseconds."""

    hold_ms: int = 30_000
    source_timeout_ms: int = 5_000
    prepared_ms: int = PREPARED_MS


@dataclass(slots=True)
class _Retry:
    duties: Duties
    due_ms: int
    interval_ms: int


class Roster:
    """The accounts of one edge."""

    def __init__(self, node: Node, patience: Patience, devices_max: int) -> None:
        self._node = node
        self._devices_max = devices_max
        self.patience = patience
        self._retries: dict[NodeName, _Retry] = {}
        self._expiries: dict[NodeName, int] = {}
        self._served: set[NodeName] = set()
        self._left: set[NodeName] = set()

    @property
    def load_share(self) -> float:
        """The share of this edge's capacity that attached and attaching devices take; 1 is full."""
        return len(self._served) / self._devices_max

    def begin(self, turn: Turn) -> None:
        """Arrange what the database says."""
        for account in accounts.load_all(turn.tx, [state for state in EdgeState if state is not EdgeState.ERASED]):
            self._arrange(account, turn.now)
        for account in accounts.load_owing(turn.tx):
            self._arrange(account, turn.now)
        self._left.update(accounts.with_remains(turn.tx))

    def load(self, turn: Turn, device: NodeName) -> Account:
        """Return the account of a device."""
        return accounts.load(turn.tx, device)

    def of(self, turn: Turn, signer: Peer) -> Account:
        """Return the account of the device that signed. Raises SignerForeign for another operator's of that name."""
        account = self.load(turn, signer.name)
        tokens.check_operator(signer, account.operator)
        return account

    def save(self, turn: Turn, account: Account) -> None:
        """Store the account and arrange what it wants."""
        accounts.save(turn.tx, account, self._node.name, turn.now.wall_ms)
        turn.touched.add(account.device)
        self._arrange(account, turn.now)

    def undone(self, turn: Turn) -> list[Account]:
        """Arrange as it is again what was saved and taken back, and return it."""
        again = [self.load(turn, device) for device in sorted(turn.touched)]
        for account in again:
            self._arrange(account, turn.now)
        return again

    def check_room(self, account: Account) -> None:
        """Raise EdgeFull when this edge serves as many devices as it may, and this is not one of them."""
        if account.device not in self._served and self.load_share >= 1:
            raise EdgeFull(f"{self._node.name} serves as many devices as it may")

    def due(self, turn: Turn) -> list[tuple[Account, Duties]]:
        """Return the accounts that owe something now; the next time is later."""
        ready = [name for name, retry in self._retries.items() if retry.due_ms <= turn.now.steady_ms]
        for name in ready:
            retry = self._retries[name]
            retry.due_ms = turn.now.steady_ms + retry.interval_ms
            retry.interval_ms = min(2 * retry.interval_ms, limits.RETRY_MS_MAX)
        return [(self.load(turn, name), self._retries[name].duties) for name in ready]

    def expired(self, turn: Turn) -> list[Account]:
        """Return the accounts that change by themselves now, also by the wall clock, which may have been set back."""
        ready = [name for name, steady_ms in self._expiries.items() if steady_ms <= turn.now.steady_ms]
        found = [self.load(turn, name) for name in ready]
        for account in found:
            self._arrange(account, turn.now)
        later_ms = turn.now.steady_ms + 1
        return [account for account in found if self._expiries.get(account.device, later_ms) < later_ms]

    @property
    def deadline_ms(self) -> int | None:
        """The steady time at which some account wants attention."""
        times = [*(retry.due_ms for retry in self._retries.values()), *self._expiries.values()]
        return min(times, default=None)

    def end_revoked(self, turn: Turn, devices: Iterable[NodeName]) -> None:
        """Serve these devices no longer if the certificate under which they attached was revoked."""
        for device in devices:
            account = self.load(turn, device)
            ended = machine.revoke(account, turn.now.wall_ms)
            if ended is account:
                continue
            try:
                tokens.opened(account.token, self._node.kit.trust, turn.now)
            except SignerRevoked:
                self.save(turn, ended)
                turn.count("handover", "revoked")

    def erase(self, turn: Turn, device: NodeName) -> None:
        """Destroy what this edge has of a device: the keys first, durably, then the rows.

        A public stream of which the cloud lacks something stays until the cloud has it, as nobody else may have it.
        """
        known = {stream.stream for stream in streams.of_device(turn.tx, device)}
        left = segments.waiting_streams(turn.tx, known)
        gone = known - left
        self._node.kit.vault.destroy(gone)
        for store in (segments, checkpoints, consents, terms, streams):
            store.delete(turn.tx, gone)
        accounts.save_keys(turn.tx, self._node.kit.vault, device, None)
        compaction.owe(turn.tx, compaction.KEYS, turn.now.wall_ms)
        turn.effects.compact = True
        (self._left.add if left else self._left.discard)(device)

    def erase_what_was_left(self, turn: Turn) -> None:
        """Erase what stayed of erased accounts for the cloud's sake, when the cloud has it."""
        for device in list(self._left):
            if self.load(turn, device).state is EdgeState.ERASED:
                self.erase(turn, device)
            else:
                self._left.discard(device)

    def _arrange(self, account: Account, now: Instant) -> None:
        served = account.state in (EdgeState.CATCHING_UP, EdgeState.ACTIVE)
        (self._served.add if served else self._served.discard)(account.device)
        owed = machine.duties(account)
        retry = self._retries.get(account.device)
        if not owed:
            self._retries.pop(account.device, None)
        elif retry is None or retry.duties != owed:
            self._retries[account.device] = _Retry(owed, now.steady_ms, self._node.kit.retry_ms)
        expiry_ms = machine.expiry_ms(
            account,
            hold_ms=self.patience.hold_ms,
            prepared_ms=self.patience.prepared_ms,
            source_timeout_ms=self.patience.source_timeout_ms,
        )
        if expiry_ms is None:
            self._expiries.pop(account.device, None)
        else:
            self._expiries[account.device] = now.steady_ms + max(0, expiry_ms - now.wall_ms)
