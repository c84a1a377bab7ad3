"""A sender's window: what was sent and not yet acknowledged, bounded in bytes.

The window is soft state. It only decides *when* something is sent (again); *what* is still owed stands in the
database, so that losing the window in a crash costs a few duplicates, which receivers ignore, and nothing else.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from datasync.domain import limits
from datasync.domain.clock import Instant


@dataclass(slots=True)
class _Flight:
    size_bytes: int
    due_ms: int
    interval_ms: int


class Window:
    """In-flight items by an integer key, each with its size and the steady time at which it is overdue."""

    def __init__(self, bytes_max: int = limits.WINDOW_BYTES, retry_ms: int = limits.RETRY_MS) -> None:
        self._bytes_max = bytes_max
        self._retry_ms = retry_ms
        self._flights: dict[int, _Flight] = {}
        self._bytes = 0

    @property
    def room_bytes(self) -> int:
        """How many bytes may still be sent; an empty window admits one item of any size."""
        return self._bytes_max - self._bytes if self._flights else max(self._bytes_max, limits.MESSAGE_BYTES_MAX)

    def add(self, key: int, size_bytes: int, now: Instant) -> None:
        """Note that an item was sent now for the first time."""
        self._flights[key] = _Flight(size_bytes, now.steady_ms + self._retry_ms, self._retry_ms)
        self._bytes += size_bytes

    def drop(self, keys: Iterable[int]) -> None:
        """Forget items: they were acknowledged, or are owed no more."""
        for key in keys:
            flight = self._flights.pop(key, None)
            if flight is not None:
                self._bytes -= flight.size_bytes

    def overdue(self, now: Instant) -> list[int]:
        """Return the items to send again now, oldest first, and wait twice as long for each of them."""
        due = [key for key, flight in self._flights.items() if flight.due_ms <= now.steady_ms]
        for key in due:
            flight = self._flights[key]
            flight.interval_ms = min(2 * flight.interval_ms, limits.RETRY_MS_MAX)
            flight.due_ms = now.steady_ms + flight.interval_ms
        return due

    @property
    def deadline_ms(self) -> int | None:
        """The steady time at which the next item is overdue."""
        return min((flight.due_ms for flight in self._flights.values()), default=None)

    def clear(self) -> None:
        """Forget everything: the receiver changed."""
        self._flights.clear()
        self._bytes = 0

    def __contains__(self, key: int) -> bool:
        return key in self._flights

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._flights))

    def __len__(self) -> int:
        return len(self._flights)
