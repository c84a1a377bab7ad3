"""Time as an argument.

Nothing below the shell reads a clock: an :class:`Instant` is passed in. Wall time orders and labels data;
steady time, which never jumps, drives every timer. A hybrid logical clock (Kulkarni et al., "Logical Physical
Clocks", 2014) stamps what nodes write, so that causes come before effects even when wall clocks disagree.
"""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment at one node: wall time in milliseconds since 1970, steady time in milliseconds since any start."""

    wall_ms: int
    steady_ms: int


@dataclass(frozen=True, slots=True, order=True)
class HybridTime:
    """A hybrid logical clock's reading; ordered by wall part, then by counter.

    The counter has 16 bits; a wall part runs ahead of a node's own wall clock only as far as
    ``DRIFT_MS_MAX``, so a node with a wrong clock cannot drag the others into the future.
    """

    wall_ms: int
    counter: int

    def tick(self, now: Instant) -> Self:
        """Return the reading for a local event at ``now``; always later than ``self``."""
        return self._later(max(self.wall_ms, now.wall_ms), self)

    def observe(self, other: "HybridTime", now: Instant) -> Self:
        """Return a reading later than ``self`` and ``other``. Raises ValueError when ``other`` is too far ahead."""
        if other.wall_ms > now.wall_ms + DRIFT_MS_MAX:
            raise ValueError(f"the time {other.wall_ms} ms is over {DRIFT_MS_MAX} ms ahead of this node's clock")
        return self._later(max(self.wall_ms, other.wall_ms, now.wall_ms), self if self > other else other)

    def _later(self, wall_ms: int, last: "HybridTime") -> Self:
        if wall_ms > last.wall_ms:
            return type(self)(wall_ms, 0)
        if last.counter == COUNTER_MAX:
            return type(self)(last.wall_ms + 1, 0)
        return type(self)(last.wall_ms, last.counter + 1)

    def pack(self) -> int:
        """Return the reading as one integer that sorts alike: 48 bits of wall time, 16 of counter."""
        return self.wall_ms << 16 | self.counter

    @classmethod
    def unpack(cls, packed: int) -> Self:
        """Return the reading that :meth:`pack` packed."""
        if not 0 <= packed < 1 << 63:
            raise ValueError(f"{packed} is no packed hybrid time")
        return cls(packed >> 16, packed & COUNTER_MAX)


COUNTER_MAX = 0xFFFF
DRIFT_MS_MAX = 60_000
