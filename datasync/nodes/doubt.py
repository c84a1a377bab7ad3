"""When a device asks again what is safe.

An edge says once that the cloud has something; that word may be lost with the edge, the device or the message. So a
device whose oldest segment stays unsafe for long attaches by the same token again, at growing intervals: the answer
says what is safe. While things move on, nothing is asked.
"""

from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.store import segments
from datasync.store.segments import State

FIRST_MS = 5_000
INTERVAL_MS_MAX = 60_000


class Doubt:
    """About the oldest segment that the edge has durably and that is not known to be safe."""

    def __init__(self) -> None:
        self._about: int | None = None
        self._interval_ms = FIRST_MS
        self._due_ms = 0

    def is_due(self, tx: Connection, now: Instant) -> bool:
        """Whether to ask now; then the next time is later."""
        oldest = segments.oldest(tx, State.DURABLE)
        if oldest != self._about:
            self._about, self._interval_ms, self._due_ms = oldest, FIRST_MS, now.steady_ms + FIRST_MS
        if oldest is None or now.steady_ms < self._due_ms:
            return False
        self._interval_ms = min(2 * self._interval_ms, INTERVAL_MS_MAX)
        self._due_ms = now.steady_ms + self._interval_ms
        return True

    @property
    def deadline_ms(self) -> int | None:
        """The steady time at which to ask, unless things move on."""
        return None if self._about is None else self._due_ms
