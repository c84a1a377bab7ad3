"""Whether conditions can hold at all: tried on witnesses, by the very evaluation that filters rows.

Conditions on one column tell two values apart only when a value that they name lies between them. So it is enough to
try the *witnesses*: every value named, its neighbours among the values of the type, the ends, NaN and null; where a
value is asked for (``eq``, ``in``), only that one. float32, NaN and null thus mean here what they mean in a view.

Only certainty counts. What a transform can give is used where it is plain: the labels of buckets, the digits of
pseudonyms and cells, the multiples of a unit of time. What lies at a distance from now is tried apart from fixed
times, for which of them is later depends on when it is asked.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from datasync.domain.clock import Instant
from datasync.policy import arrays
from datasync.policy.document import AnyTransform, Bucket, Constant, Drop, Geohash, Hmac, Mask, Truncate
from datasync.policy.predicate import ColumnTest, Predicate, Test
from datasync.policy.quantities import MOMENT_US_MAX, MOMENT_US_MIN, instant_us
from datasync.policy.transforms import MASKED, labels
from datasync.policy.types import TIMESTAMP

_NOW = Instant(wall_ms=946_684_800_000, steady_ms=0)
_NO_ROWS = pa.record_batch({})
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
_CELL = re.compile(r"[0-9b-hjkmnp-z]*")


@dataclass(frozen=True, slots=True)
class Seen:
    """How a reader sees a column: its type, and the last transform of its chain (None: it is raw)."""

    type: pa.DataType
    made_by: AnyTransform | None


Columns = Mapping[str, Seen]


def conflict(tests: Sequence[Test], columns: Columns) -> tuple[int, ...]:
    """Return the places of the tests that no row can satisfy together; empty when some row can satisfy all."""
    subjects: dict[tuple[type, str], list[int]] = {}
    for place, test in enumerate(tests):
        subjects.setdefault(_subject(test), []).append(place)
    for places in subjects.values():
        for group in _comparable([tests[place] for place in places]):
            if not _trial(group, group, columns).truth(group, unknown=False).any():
                return tuple(places)
    return ()


def implies(tests: Sequence[Test], others: Sequence[Test], columns: Columns) -> bool:
    """Whether it is certain that a row that satisfies ``tests`` satisfies ``others``, to which null is a match."""
    return all(_implies_one(tests, other, columns) for other in others)


def _implies_one(tests: Sequence[Test], other: Test, columns: Columns) -> bool:
    group = [test for test in tests if _subject(test) == _subject(other)]
    if len(_comparable([*group, other])) > 1:
        return False
    trial = _trial(group, [*group, other], columns)
    return not (trial.truth(group, unknown=False) & ~trial.truth([other], unknown=True)).any()


def _subject(test: Test) -> tuple[type, str]:
    return type(test), test.column if isinstance(test, ColumnTest) else test.key


def _comparable(tests: Sequence[Test]) -> list[list[Test]]:
    """Return the tests in groups that name values whose order is certain: distances from now, and fixed values."""
    plain = [test for test in tests if test.op == "exists"]
    distances = [test for test in tests if _is_distance(test)]
    fixed = [test for test in tests if test.op != "exists" and not _is_distance(test)]
    return [[*group, *plain] for group in (distances, fixed) if group] or [plain]


def _is_distance(test: Test) -> bool:
    return isinstance(test, ColumnTest) and test.op != "exists" and isinstance(test.value, int)


@dataclass(frozen=True, slots=True)
class _Trial:
    """Values of a column, or of the constant ``key``, on which conditions are tried."""

    batch: pa.RecordBatch
    key: str
    constants: Sequence[Any]

    def truth(self, tests: Sequence[Test], *, unknown: bool) -> arrays.Mask:
        """Return for each value whether all tests hold."""
        where = Predicate(tuple(tests))
        if self.key:
            held = [where.holds(_NO_ROWS, {self.key: each}, _NOW, unknown=unknown) for each in self.constants]
            return np.array(held, dtype=bool)
        return np.broadcast_to(where.holds(self.batch, {}, _NOW, unknown=unknown), self.batch.num_rows)


def _trial(required: Sequence[Test], naming: Sequence[Test], columns: Columns) -> _Trial:
    """Return the witnesses for tests of one subject: ``required`` must hold, ``naming`` are all that are tried."""
    asked = next((test for test in required if test.op in ("eq", "in")), None)
    named = _named(asked) if asked is not None else [value for test in naming for value in _named(test)]
    test = naming[0]
    if not isinstance(test, ColumnTest):
        return _Trial(_NO_ROWS, test.key, [None, *(named if asked is not None else _constants(named))])
    seen = columns[test.column]
    made_by = None if any(_is_distance(test) for test in naming) else seen.made_by
    if (values := _all_given(made_by)) is None:
        values = _neighbours(named, seen.type) if asked is None else [v for v in named if _can_give(made_by, v)]
    return _Trial(pa.record_batch({test.column: _array([None, *values], seen.type)}), "", ())


def _named(test: Test) -> list[Any]:
    """Return the values that a test names; moments in microseconds since 1970."""
    if test.op == "exists":
        return []
    if _is_distance(test):
        return [instant_us(_NOW) + test.value * 1_000]
    if isinstance(test.value, pa.Array):
        return _plain(test.value)
    if isinstance(test.value, pa.Scalar):
        return _plain(pa.array([test.value.as_py()], test.value.type))
    return list(test.value) if isinstance(test.value, tuple) else [test.value]


def _plain(values: pa.Array) -> list[Any]:
    plain: list[Any] = (values.view(pa.int64()) if values.type == TIMESTAMP else values).to_pylist()
    return plain


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == TIMESTAMP:
        return pa.array(values, pa.int64()).view(TIMESTAMP)
    return pa.array(values, pa.bool_() if _is_opaque(kind) else kind)


def _is_opaque(kind: pa.DataType) -> bool:
    """Whether values of the type compare to nothing: they are there or not, and any stand for them."""
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind))


def _all_given(made_by: AnyTransform | None) -> list[Any] | None:
    """Return all values beside null that a transform gives; None when they are too many to list."""
    match made_by:
        case Bucket():
            return list(labels(made_by.edges))
        case Constant():
            return [made_by.value]
        case Drop():
            return []
    return None


def _can_give(made_by: AnyTransform | None, value: Any) -> bool:
    """Whether a transform may give a value; true where that is not plain."""
    match made_by:
        case Hmac():
            return _PSEUDONYM.fullmatch(value) is not None
        case Geohash():
            return len(value) == made_by.precision and _CELL.fullmatch(value) is not None
        case Truncate():
            return bool(value % (made_by.unit * 1_000) == 0)
        case Mask():
            return bool(MASKED in value) and len(value) in (len(MASKED), made_by.keep + len(MASKED))
    return True


def _neighbours(named: Sequence[Any], kind: pa.DataType) -> list[Any]:
    """Return the values and, for each, the nearest on both sides that the type has; text needs none below."""
    if kind == pa.bool_() or _is_opaque(kind):
        return [True, False]
    if kind == pa.string():
        return ["", *(text for value in named for text in (value, value + "\0"))]
    if pa.types.is_floating(kind):
        number = kind.to_pandas_dtype()
        with np.errstate(over="ignore"):
            near = [float(np.nextafter(number(value), number(end))) for value in named for end in (-math.inf, math.inf)]
        return [0.0, math.nan, -math.inf, math.inf, *named, *near]
    lowest, highest = _bounds(kind)
    return [0, *(near for value in named for near in (value - 1, value, value + 1) if lowest <= near <= highest)]


def _bounds(kind: pa.DataType) -> tuple[int, int]:
    if kind == TIMESTAMP:
        return MOMENT_US_MIN, MOMENT_US_MAX
    end = 1 << (kind.bit_width - 1)
    return -end, end - 1


def _constants(named: Sequence[Any]) -> list[Any]:
    """Return what a constant of a device can be, as far as the values tell it apart: it may be of any scalar type."""
    texts = [value for value in named if isinstance(value, str)]
    numbers = [value for value in named if isinstance(value, int | float) and not isinstance(value, bool)]
    near = (math.nextafter(value, end) for value in numbers for end in (-math.inf, math.inf))
    whole = (
        each for value in numbers if math.isfinite(value) for each in (math.floor(value) + 1, math.ceil(value) - 1)
    )
    return [True, False, math.nan, 0, *_neighbours(texts, pa.string()), *numbers, *near, *whole]
