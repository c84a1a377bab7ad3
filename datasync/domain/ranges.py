"""Range sets: which sequence numbers are somewhere.

Acks, resume points and manifests all speak of sets of sequence numbers. A set is kept as sorted, disjoint,
inclusive ranges that do not touch, so equal sets are equal values and a stream without gaps is one pair.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class RangeSet:
    """An immutable set of non-negative integers. Build it with :meth:`of`; the constructor trusts its input."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> Self:
        """Return the union of inclusive ``(first, last)`` pairs in any order.

        Raises ValueError for a pair that is reversed or negative.
        """
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if first < 0 or last < first:
                raise ValueError(f"({first}, {last}) is no range: want 0 <= first <= last")
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    def __or__(self, other: "RangeSet") -> Self:
        return type(self).of((*self.ranges, *other.ranges))

    def __sub__(self, other: "RangeSet") -> Self:
        left: list[tuple[int, int]] = []
        taken = iter(other.ranges)
        cut = next(taken, None)
        for first, last in self.ranges:
            while cut is not None and cut[0] <= last:
                if cut[1] >= first:
                    if cut[0] > first:
                        left.append((first, cut[0] - 1))
                    first = cut[1] + 1
                    if first > last:
                        break
                cut = next(taken, None)
            if first <= last:
                left.append((first, last))
        return type(self)(tuple(left))

    def __and__(self, other: "RangeSet") -> Self:
        return self - (self - other)

    def add(self, first: int, last: int) -> Self:
        """Return this set with ``first..last`` added; extending at the end, the usual case, is cheap."""
        if self.ranges and first == self.ranges[-1][1] + 1 and last >= first:
            return type(self)((*self.ranges[:-1], (self.ranges[-1][0], last)))
        return self | RangeSet.of([(first, last)])

    def covers(self, first: int, last: int) -> bool:
        """Whether every number in ``first..last`` is in the set."""
        return any(low <= first and last <= high for low, high in self.ranges)

    def touches(self, first: int, last: int) -> bool:
        """Whether any number in ``first..last`` is in the set."""
        return any(low <= last and first <= high for low, high in self.ranges)

    def __contains__(self, number: int) -> bool:
        return self.covers(number, number)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.ranges)

    @property
    def next(self) -> int:
        """The first number above the whole set; 0 for the empty set."""
        return self.ranges[-1][1] + 1 if self.ranges else 0

    def to_list(self) -> list[int]:
        """Return ``[first, last, first, last, ...]``, the form on the wire and in the store."""
        return [bound for pair in self.ranges for bound in pair]

    @classmethod
    def from_list(cls, bounds: list[int]) -> Self:
        """Return the set that :meth:`to_list` listed. Raises ValueError for an odd length or a bad pair."""
        if len(bounds) % 2:
            raise ValueError("a list of ranges has an even number of bounds")
        return cls.of(zip(bounds[::2], bounds[1::2], strict=True))
