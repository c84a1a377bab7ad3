"""Closed conditions on rows: ``[column, op, value]``, all of which must hold.

A condition is bound once: its column must exist, its value must be one of the column's type, and what cannot be
translated is refused, never dropped. Bound conditions are evaluated on whole columns.

Meaning: values compare as the column's type does, so 0.1 on float32 is the float32 nearest to it; text compares by
code point; NaN compares as in IEEE 754 (not equal to, below or above anything, in no list, but it exists); zero
equals minus zero. NULL compares to nothing: the caller says what an unknown counts as, ``False`` where rows are
given (allow) and ``True`` where they are held back (deny, raise). ``exists`` is never unknown.
"""

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasync.domain.clock import Instant
from datasync.policy.arrays import Mask
from datasync.policy.problems import nearest
from datasync.policy.quantities import distance_ms, instant_us, moment_us
from datasync.policy.types import TIMESTAMP, type_name

Scalar = str | int | float | bool
Clause = tuple[str, str, Any]
"""Column, op and value as the document has them."""

_WORKER = "$worker."
_PATTERN = re.compile(r"^\^|^\(\?|\.[*+]|\\[dDwWsS][*+?{]|\[[^]]+][*+?{]")
"""What only a regular expression or a glob would contain; as a value it would match nothing that was meant."""
_VALUES_MAX = 1_000
_COMPARE = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
_PLAIN: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_MEMBER = ("in", "not_in")
_UNORDERED = (pa.bool_(),)
_COMPARABLE = (pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), TIMESTAMP)


class BindError(ValueError):
    """A condition that cannot be translated: which of its three parts is wrong, and what would be right."""

    def __init__(self, part: int, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.part = part
        self.message = message
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Scope:
    """What conditions can name: columns with their types, constants, and the worker's attributes (None: no worker)."""

    columns: Mapping[str, pa.DataType]
    meta: Collection[str] = ()
    attributes: Mapping[str, Scalar] | None = None


@dataclass(frozen=True, slots=True)
class ColumnTest:
    """A bound condition on a column; ``value`` is None, an Arrow scalar or array, or a distance from now in ms."""

    column: str
    op: str
    value: Any

    def holds(self, batch: pa.RecordBatch, meta: Mapping[str, Any], now: Instant, unknown: bool) -> Mask | bool:
        """Return for each row whether the condition holds."""
        column = batch.column(self.column)
        if self.op == "exists":
            return _mask(column.is_valid() if self.value else column.is_null())
        if self.op in _MEMBER:
            return self._is_member(column, unknown)
        value = self.value
        if isinstance(value, int):
            value = pa.scalar(instant_us(now) + value * 1_000, TIMESTAMP)
        return _mask(pc.call_function(_COMPARE[self.op], [column, value]).fill_null(unknown))

    def _is_member(self, column: pa.Array, unknown: bool) -> Mask:
        if pa.types.is_floating(column.type):
            column = pc.add(column, pa.scalar(0, column.type))  # is_in tells zero from minus zero
        found = _mask(pc.is_in(column, value_set=self.value))
        found = found if self.op == "in" else ~found
        return found if column.null_count == 0 else np.where(_mask(column.is_null()), unknown, found)


@dataclass(frozen=True, slots=True)
class MetaTest:
    """A bound condition on a constant of the device, which all rows of a batch share."""

    key: str
    op: str
    value: Any

    def holds(self, batch: pa.RecordBatch, meta: Mapping[str, Any], now: Instant, unknown: bool) -> bool:
        """Return whether the condition holds; a constant of another type than the value compares to nothing."""
        constant = meta.get(self.key)
        if self.op == "exists":
            return (constant is not None) is self.value
        values = self.value if self.op in _MEMBER else (self.value,)
        if constant is None or not any(_same_kind(constant, value) for value in values):
            return unknown
        if self.op in _MEMBER:
            return any(_same_kind(constant, value) and constant == value for value in values) == (self.op == "in")
        return _PLAIN[self.op](constant, self.value)


Test = ColumnTest | MetaTest


@dataclass(frozen=True, slots=True)
class Predicate:
    """Bound conditions that must all hold; without any, it always holds."""

    tests: tuple[Test, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the predicate reads."""
        return tuple(test.column for test in self.tests if isinstance(test, ColumnTest))

    def holds(self, batch: pa.RecordBatch, meta: Mapping[str, Any], now: Instant, *, unknown: bool) -> Mask | bool:
        """Return for each row whether all conditions hold; one truth for all rows when no column decides.

        ``unknown`` is what a comparison with NULL counts as.
        """
        result: Mask | bool = True
        for test in self.tests:
            one = test.holds(batch, meta, now, unknown)
            if one is False:
                return False
            result = one if result is True else result if one is True else result & one
        return result

    def first_failed(
        self, batch: pa.RecordBatch, meta: Mapping[str, Any], now: Instant, *, unknown: bool
    ) -> int | None:
        """Return the index of the condition after which no row is left; None when some row meets all of them."""
        for index in range(len(self.tests)):
            if not np.any(Predicate(self.tests[: index + 1]).holds(batch, meta, now, unknown=unknown)):
                return index
        return None


def clause_text(clause: Clause) -> str:
    """Return a condition as people read it."""
    column, op, value = clause
    return f"{column} {op} {value}"


def bind(clause: Clause, scope: Scope) -> Test:
    """Return a condition with its names looked up. Raises BindError when it cannot be translated."""
    name, op, value = clause
    if op == "exists":
        if not isinstance(value, bool):
            raise BindError(2, f"exists takes no {value!r}", "write true or false")
    elif op in _MEMBER and not isinstance(value, list):
        raise BindError(2, f"{op} takes a list", "write [value, ...]")
    elif op not in _MEMBER and isinstance(value, list | dict):
        raise BindError(2, f"{op} takes one value", "write one value, or use in")
    elif op in _MEMBER and not 0 < len(value) <= _VALUES_MAX:
        raise BindError(2, f"{len(value)} values", f"write 1 to {_VALUES_MAX}")
    if name in scope.columns:
        return _bind_column(name, op, value, scope)
    if name in scope.meta:
        return _bind_meta(name, op, value, scope)
    raise BindError(0, f"there is no column {name} here", nearest(name, (*scope.columns, *scope.meta)))


def bind_all(clauses: Sequence[Clause], scope: Scope) -> Predicate:
    """Return the predicate of a whole ``where``. Raises BindError."""
    return Predicate(tuple(bind(clause, scope) for clause in clauses))


def _bind_column(name: str, op: str, value: Any, scope: Scope) -> Test:
    kind = scope.columns[name]
    if op == "exists":
        return ColumnTest(name, op, value)
    if kind not in _COMPARABLE:
        raise BindError(1, f"{name} is a {type_name(kind)}, which does not compare", "use exists")
    if kind in _UNORDERED and op not in ("eq", "ne", *_MEMBER):
        raise BindError(1, f"{name} is a {type_name(kind)}, which has no order", "use eq or ne")
    if op in _MEMBER:
        return ColumnTest(name, op, pa.array([_value(name, kind, each, scope) for each in value], kind))
    if kind == TIMESTAMP and (distance := _distance(value)) is not None:
        return ColumnTest(name, op, distance)
    return ColumnTest(name, op, pa.scalar(_value(name, kind, value, scope), kind))


def _bind_meta(name: str, op: str, value: Any, scope: Scope) -> Test:
    if op == "exists":
        return MetaTest(name, op, value)
    if op in _MEMBER:
        return MetaTest(name, op, tuple(_literal(each, scope) for each in value))
    literal = _literal(value, scope)
    if isinstance(literal, bool) and op not in _MEMBER and op not in ("eq", "ne"):
        raise BindError(1, "true and false have no order", "use eq or ne")
    if _distance(literal) is not None:
        raise BindError(2, f"{name} is a constant, not a time", "compare a timestamp with now")
    return MetaTest(name, op, literal)


def _value(name: str, kind: pa.DataType, value: Any, scope: Scope) -> Any:
    """Return a literal as Python has a value of the column's type."""
    literal = _literal(value, scope)
    wrong = BindError(2, f"{name} is a {type_name(kind)} and {literal!r} is none", f"write a {type_name(kind)}")
    if kind == TIMESTAMP:
        return _moment(name, literal, wrong)
    if kind == pa.string():
        accepted = isinstance(literal, str)
    elif kind == pa.bool_():
        accepted = isinstance(literal, bool)
    elif pa.types.is_integer(kind):
        bound = 1 << (kind.bit_width - 1)
        accepted = isinstance(literal, int) and not isinstance(literal, bool) and -bound <= literal < bound
    else:
        accepted = isinstance(literal, int | float) and not isinstance(literal, bool)
        with np.errstate(over="ignore"):
            literal = float(np.dtype(kind.to_pandas_dtype()).type(literal)) + 0.0 if accepted else literal
        accepted = isinstance(literal, float) and math.isfinite(literal)
    if not accepted:
        raise wrong
    return literal


def _moment(name: str, literal: Scalar, wrong: BindError) -> int:
    if not isinstance(literal, str):
        raise wrong
    if _distance(literal) is not None:
        raise BindError(2, f"{name} cannot be in a list with {literal}", "compare it with lt, le, gt or ge")
    try:
        return moment_us(literal)
    except ValueError as error:
        raise BindError(2, str(error)) from None


def _literal(value: Any, scope: Scope) -> Scalar:
    """Return a value with ``$worker.x`` looked up."""
    if not isinstance(value, str | int | float | bool):
        raise BindError(2, f"{value!r} is no value to compare with", "write text, a number, true or false")
    if isinstance(value, str) and _PATTERN.search(value):
        raise BindError(2, f"{value!r} is a pattern, and conditions compare whole values", "list the values with in")
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if not value.startswith(_WORKER):
        raise BindError(2, f"{value} names nothing", "write $worker.x for an attribute of the worker")
    if scope.attributes is None:
        raise BindError(2, f"{value} needs a worker and there is none here", "write a literal")
    name = value.removeprefix(_WORKER)
    if name not in scope.attributes:
        raise BindError(2, f"the worker has no {name}", nearest(name, scope.attributes))
    return scope.attributes[name]


def _distance(value: Any) -> int | None:
    try:
        return distance_ms(value) if isinstance(value, str) else None
    except ValueError as error:
        raise BindError(2, str(error)) from None


def _mask(column: pa.Array) -> Mask:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)


def _same_kind(left: object, right: object) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    return isinstance(left, str) == isinstance(right, str)
