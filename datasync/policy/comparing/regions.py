"""Sets of rows that can be compared: whether every row that one set of conditions admits is admitted by others.

What bound conditions admit is a *box*: for each thing that they look at (an *axis*: a column in one form, or a
constant) the values that it may have. The values of an axis are of disjoint *sorts* (null, NaN, text, numbers, truth),
and those of one sort are a union of intervals. Boxes intersect and subtract exactly, so containment is decided by
subtracting until nothing is left.

Axes are taken as independent. Where they are not (a column and what was made from it) the answer may be "not proven"
for what holds, and is never "proven" for what does not.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from datasync.domain.limits import DIFF_PIECES_MAX
from datasync.policy.predicate import ColumnTest, MetaTest, Predicate
from datasync.policy.types import TIMESTAMP

NULL, NAN, TEXT, NUMBER, WHOLE, TRUTH, OTHER = "null", "nan", "text", "number", "whole", "truth", "other"
_META = (NULL, NAN, TEXT, NUMBER, TRUTH)
_MEMBER = ("in", "not_in")
_NEGATIVE = ("ne", "not_in")

Cut = tuple[Any, bool]
"""A place between values: just before one (False) or just after it (True); among whole numbers always before one."""


@dataclass(frozen=True, slots=True)
class Line:
    """A union of intervals, as the cuts at which membership flips; ``inside`` is how it begins, below every value."""

    inside: bool
    cuts: tuple[Cut, ...] = ()

    def combine(self, other: "Line", keeps: Callable[[bool, bool], bool]) -> "Line":
        """Return the values whose membership in the two ``keeps`` accepts."""
        state = first = keeps(self.inside, other.inside)
        cuts = []
        for cut in sorted({*self.cuts, *other.cuts}):
            after = keeps(self._at(cut), other._at(cut))
            if after != state:
                cuts.append(cut)
                state = after
        return Line(first, tuple(cuts))

    def _at(self, cut: Cut) -> bool:
        """Whether what follows ``cut`` directly is in it."""
        return self.inside != bool(bisect_right(self.cuts, cut) % 2)

    @property
    def is_empty(self) -> bool:
        """Whether no value is in it."""
        return not self.inside and not self.cuts


ALL, NONE = Line(True), Line(False)
_TRUTHS = Line(False, ((0, False), (2, False)))

Region = Mapping[str, Line]
"""Values by sort; a sort that is not there has none."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What a condition looks at. ``form`` tells apart forms of a column; ``base`` what its numbers count from."""

    name: str
    form: Any
    base: str
    sorts: tuple[str, ...]

    @property
    def whole(self) -> Region:
        """Every value that the axis can have."""
        return {sort: _TRUTHS if sort == TRUTH else ALL for sort in self.sorts}


Box = Mapping[Axis, Region]
"""The rows whose values are in the region of each axis; an axis that is not there admits all."""

EVERYTHING: Box = {}


def box(predicate: Predicate, types: Mapping[str, pa.DataType], forms: Mapping[str, Any], *, unknown: bool,
        clock: str = "now") -> Box | None:  # fmt: skip
    """Return the rows that satisfy a predicate, ``unknown`` being what a comparison with NULL counts as; None: none.

    ``types`` and ``forms`` are those of the columns that the predicate looks at; ``clock`` names its ``now``.
    """
    result: Box | None = EVERYTHING
    for test in predicate.tests:
        if isinstance(test, MetaTest):
            values = list(test.value) if test.op in _MEMBER else [test.value]
            found = {Axis(test.key, "constant", "", _META): (test.op, values)}
        else:
            found = _on_column(test, types[test.column], forms[test.column], clock, unknown)
        for axis, (op, values) in found.items():
            result = None if result is None else meet(result, {axis: _region(axis, op, values, unknown)})
    return result


def meet(left: Box, right: Box) -> Box | None:
    """Return the rows that are in both; None when there are none."""
    result = {**left}
    for axis, region in right.items():
        result[axis] = _combined(result.get(axis, axis.whole), region, lambda one, two: one and two)
        if not result[axis]:
            return None
    return result


def is_covered(whole: Box, covers: Iterable[Box]) -> bool:
    """Whether every row of ``whole`` is proven to be in one of ``covers``."""
    pieces: Sequence[Box] = (whole,)
    for cover in covers:
        pieces = [rest for piece in pieces for rest in _minus(piece, cover)]
        if len(pieces) > DIFF_PIECES_MAX:
            return False
    return not pieces


def _minus(left: Box, right: Box) -> list[Box]:
    """Return disjoint boxes that together are the rows of ``left`` without those of ``right``."""
    pieces: list[Box] = []
    inner: dict[Axis, Region] = {**left}
    for axis, region in right.items():
        here = inner.get(axis, axis.whole)
        outer = _combined(here, region, lambda one, two: one and not two)
        if outer:
            pieces.append({**inner, axis: outer})
        inner[axis] = _combined(here, region, lambda one, two: one and two)
        if not inner[axis]:
            return [left]
    return pieces


def _combined(left: Region, right: Region, keeps: Callable[[bool, bool], bool]) -> Region:
    lines = {sort: line.combine(right.get(sort, NONE), keeps) for sort, line in left.items()}
    return {sort: line for sort, line in lines.items() if not line.is_empty}


def _on_column(
    test: ColumnTest, kind: pa.DataType, form: Any, clock: str, unknown: bool
) -> dict[Axis, tuple[str, list[Any]]]:
    """Return the condition by axis. A time is on two: since 1970, and since now; both know whether it exists."""
    sort = _sort(kind)
    sorts = (NULL, NAN, sort) if pa.types.is_floating(kind) else (NULL, sort)
    fixed, moving = Axis(test.column, form, "", sorts), Axis(test.column, form, clock, sorts)
    both = (fixed, moving) if kind == TIMESTAMP else (fixed,)
    if test.op == "exists":
        return {axis: (test.op, [test.value]) for axis in both}
    if isinstance(test.value, int):
        here, values = moving, [test.value * 1_000]
    else:
        given = test.value if test.op in _MEMBER else pa.array([test.value], kind)
        here, values = fixed, (given.cast(pa.int64()) if kind == TIMESTAMP else given).to_pylist()
    exists: dict[Axis, tuple[str, list[Any]]] = {} if unknown else {axis: ("exists", [True]) for axis in both}
    return exists | {here: (test.op, values)}


def _region(axis: Axis, op: str, values: list[Any], unknown: bool) -> Region:
    if op == "exists":
        return {sort: line for sort, line in axis.whole.items() if (sort != NULL) == bool(values[0])}
    by_sort: dict[str, list[Any]] = {}
    for value in values:
        by_sort.setdefault(_sort_of(value, axis), []).append(value)
    region: dict[str, Line] = {}
    for sort, line in axis.whole.items():
        if sort in by_sort:
            holds = _line(op, by_sort[sort], is_whole=sort in (WHOLE, TRUTH))
            region[sort] = line.combine(holds, lambda one, two: one and two)
        elif (op in _NEGATIVE) if sort == NAN and NUMBER in by_sort else unknown:
            region[sort] = line
    return {sort: line for sort, line in region.items() if not line.is_empty}


def _line(op: str, values: Sequence[Any], *, is_whole: bool) -> Line:
    """Return the values of one sort that satisfy a comparison."""
    before = [(value, False) for value in values]
    after = [(value + 1, False) if is_whole else (value, True) for value in values]
    match op:
        case "eq" | "in":
            return Line(False, tuple(sorted({*before} ^ {*after})))
        case "ne" | "not_in":
            return Line(True, tuple(sorted({*before} ^ {*after})))
        case "lt":
            return Line(True, (before[0],))
        case "le":
            return Line(True, (after[0],))
        case "gt":
            return Line(False, (after[0],))
        case "ge":
            return Line(False, (before[0],))
    raise AssertionError(f"a condition was bound with the op {op}")


def _sort(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return TRUTH
    if pa.types.is_floating(kind):
        return NUMBER
    if pa.types.is_integer(kind) or kind == TIMESTAMP:
        return WHOLE
    return TEXT if pa.types.is_string(kind) else OTHER


def _sort_of(value: Any, axis: Axis) -> str:
    if isinstance(value, bool):
        return TRUTH
    if isinstance(value, str):
        return TEXT
    return WHOLE if WHOLE in axis.sorts else NUMBER
