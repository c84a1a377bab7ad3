"""An edge's challenge: the nonce in its beacon, which an attach without preparation must answer.

Without it, an attach token recorded once could be shown to an edge that has no history of the device. The nonce
changes with each beacon; the one before stays good for a while, since a device may just have read it.
"""

from collections.abc import Callable

from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.store import registers

INTERVAL_MS = 60_000

_NAME = "challenge"


class Challenge:
    """The present and the previous nonce, kept across restarts."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._nonces: list[bytes] = []
        self._due_ms = 0

    def begin(self, tx: Connection, now: Instant) -> None:
        """Take up the nonces of before; a new one is due at once."""
        self._nonces = [bytes.fromhex(text) for text in registers.get(tx, _NAME, [])]
        self._due_ms = now.steady_ms

    def renew(self, tx: Connection, now: Instant) -> bool:
        """Draw a new nonce if one is due; return whether one was."""
        if now.steady_ms < self._due_ms:
            return False
        self._nonces = [self._entropy(16), *self._nonces[:1]]
        registers.put(tx, _NAME, [nonce.hex() for nonce in self._nonces])
        self._due_ms = now.steady_ms + INTERVAL_MS
        return True

    @property
    def present(self) -> bytes:
        """The nonce to publish."""
        return self._nonces[0]

    @property
    def nonces(self) -> tuple[bytes, ...]:
        """The nonces that an attach may answer."""
        return tuple(self._nonces)

    @property
    def deadline_ms(self) -> int:
        """The steady time at which a new nonce is due."""
        return self._due_ms
