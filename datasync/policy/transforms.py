"""The ways down the lattice: what each transform takes, gives, and does to a whole column.

A transform is fitted once, when the policy is compiled: its input's type is known then, and what came before it in
the chain. The result is a :class:`Step` with a kernel. Kernels take and give Arrow arrays, keep nulls, give null for
what has no answer (NaN has no bucket), and leave nothing of the input in what they give: no sign of a rounded zero,
no value underneath a null.
"""

import hmac
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasync.domain.clock import Instant
from datasync.domain.tiers import Tier
from datasync.policy import geohash
from datasync.policy.arrays import clean, numbers
from datasync.policy.document import (
    Bucket,
    Constant,
    Drop,
    Geohash,
    Hmac,
    Mask,
    Merge,
    Round,
    RowTransform,
    Truncate,
)
from datasync.policy.quantities import MOMENT_US_MIN
from datasync.policy.types import POINT, TIMESTAMP, type_name

SubjectKey = Callable[[str, int], bytes]
"""``(transform, rotation period)`` to the 32-byte HMAC key that the subject's device holds."""

PSEUDONYM_HEX_DIGITS = 32
IDENTIFIERS = (pa.string(), pa.binary(), pa.int32(), pa.int64())
_FLOATS = (pa.float32(), pa.float64())
NUMBERS = (pa.int32(), pa.int64(), *_FLOATS)
_CONSTANTS = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
MASKED = "***"


@dataclass(frozen=True, slots=True)
class Context:
    """What kernels need beside their column."""

    subject_key: SubjectKey
    now: Instant


Kernel = Callable[[pa.Array, Context], pa.Array]


@dataclass(frozen=True, slots=True)
class Step:
    """One transform in its place in a chain."""

    name: str
    spec: RowTransform
    to: Tier
    type: pa.DataType
    kernel: Kernel


def fit(name: str, spec: RowTransform, source: pa.DataType, previous: Step | None) -> Step:
    """Return the step that applies ``spec`` to a column of type ``source``.

    Raises ValueError when the transform does not take it, or is finer than what came before, so that it would lower
    the tier and change nothing.
    """
    before = previous.spec if previous else None
    kernel: Kernel
    match spec:
        case Hmac():
            result, kernel = pa.string(), partial(_hmac, name, spec.rotate)
            _take(name, source, IDENTIFIERS)
        case Geohash(precision=precision) if isinstance(before, Geohash):
            result, kernel = pa.string(), partial(_shorten, precision)
            _coarser(name, precision <= before.precision, f"precision at most {before.precision}")
        case Geohash(precision=precision):
            result, kernel = pa.string(), partial(_geohash, precision)
            _take(name, source, (POINT,))
        case Truncate(unit=unit_ms):
            result, kernel = source, partial(_truncate, unit_ms * 1_000)
            _take(name, source, (TIMESTAMP,))
            if isinstance(before, Truncate):
                _coarser(name, unit_ms >= before.unit, f"a unit of at least {before.unit} ms")
        case Round(decimals=decimals):
            result, kernel = source, partial(_round, decimals)
            _take(name, source, _FLOATS)
            if isinstance(before, Round):
                _coarser(name, decimals <= before.decimals, f"decimals at most {before.decimals}")
        case Bucket(edges=edges):
            result, kernel = pa.string(), partial(_bucket, np.array(edges), pa.array(labels(edges)))
            _take(name, source, NUMBERS)
        case Mask(keep=keep, side=side):
            result, kernel = pa.string(), partial(_mask, keep, side)
            _take(name, source, (pa.string(),))
            if isinstance(before, Mask) and before.side == side:
                _coarser(name, keep <= before.keep, f"keep at most {before.keep}")
        case Drop():
            result, kernel = source, _drop
        case Constant(value=value):
            result = _CONSTANTS[type(value)]
            kernel = partial(_constant, pa.scalar(value, result))
    return Step(name, spec, Tier.parse(spec.to), result, kernel)


def commutes(spec: RowTransform, merge: Merge) -> bool:
    """Whether transforming every change of a document's field and then merging gives what the reverse order would."""
    match merge:
        case "lww":
            return True
        case "max" | "min":
            return isinstance(spec, Truncate | Round | Drop)
        case "counter" | "union":
            return isinstance(spec, Drop)


def _take(name: str, source: pa.DataType, wanted: tuple[pa.DataType, ...]) -> None:
    if source not in wanted:
        names = ", ".join(type_name(kind) for kind in wanted)
        raise ValueError(f"{name} does not take {type_name(source)}: it takes {names}")


def _coarser(name: str, holds: bool, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} is finer than the transform before it, so it would hide nothing: give it {wanted}")


def labels(edges: tuple[float, ...]) -> list[str]:
    """Return the labels of the buckets between increasing edges: ``<0``, ``0-10``, ``>=10``.

    A bucket includes its lower edge.
    """
    texts = [str(int(edge)) if edge.is_integer() else repr(edge) for edge in edges]
    return [f"<{texts[0]}", *(f"{low}-{high}" for low, high in itertools.pairwise(texts)), f">={texts[-1]}"]


def _hmac(name: str, rotate_ms: int | None, column: pa.Array, context: Context) -> pa.Array:
    """First 16 bytes of HMAC-SHA256 (RFC 2104) in hex, of UTF-8, of bytes, or of an integer's decimal digits."""
    encoded = column.dictionary_encode()
    values = identifier_bytes(encoded.dictionary)
    if not values:
        return pa.nulls(len(column), pa.string())
    key = context.subject_key(name, context.now.wall_ms // rotate_ms if rotate_ms else 0)
    pseudonyms = [hmac.digest(key, value, "sha256").hex()[:PSEUDONYM_HEX_DIGITS] for value in values]
    return pa.array(pseudonyms, pa.string()).take(encoded.indices)


def identifier_bytes(column: pa.Array) -> list[bytes]:
    """Return a column of identifiers without nulls as bytes: of an integer, its decimal digits."""
    if pa.types.is_integer(column.type):
        return [str(value).encode() for value in column.to_pylist()]
    values: list[bytes] = column.cast(pa.binary()).to_pylist()
    return values


def _geohash(precision: int, column: pa.Array, _: Context) -> pa.Array:
    # A point without one of its coordinates is NaN there, so it has no cell; flatten carries the struct's nulls down.
    lat, lon = (part.to_numpy(zero_copy_only=False) for part in column.flatten())
    return geohash.encode(lat, lon, precision)


def _shorten(precision: int, column: pa.Array, _: Context) -> pa.Array:
    return pc.utf8_slice_codeunits(column, 0, precision)


def _truncate(unit_us: int, column: pa.Array, _: Context) -> pa.Array:
    moments, missing = numbers(column.view(pa.int64()))
    # Floor, so that moments before 1970 also go down; beside the least int64 the difference wraps around.
    floors = moments - moments % unit_us
    missing |= (floors < MOMENT_US_MIN) | (floors > moments)
    floors[missing] = 0
    return pa.array(floors, mask=missing).view(TIMESTAMP)


def _round(decimals: int, column: pa.Array, _: Context) -> pa.Array:
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    scale = 10.0 ** abs(decimals)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.rint(values * scale) / scale if decimals >= 0 else np.rint(values / scale) * scale
        # A number too large to scale has no digits there. Adding zero takes the sign off a zero.
        rounded = np.where(np.isfinite(rounded), rounded, values) + 0.0
        rounded = rounded.astype(column.type.to_pandas_dtype())
    rounded[np.isnan(rounded)] = np.nan  # the one NaN: others could carry 52 bits
    return pa.array(rounded, mask=None if column.null_count == 0 else column.is_null().to_numpy(zero_copy_only=False))


def _bucket(edges: np.ndarray, names: pa.Array, column: pa.Array, _: Context) -> pa.Array:
    values, missing = numbers(column)
    if values.dtype.kind == "f":
        missing = missing | np.isnan(values)
    else:
        edges = np.ceil(edges).astype(np.int64)  # v >= 0.5 is v >= 1 for integers, and they compare exactly
    return names.take(pa.array(np.searchsorted(edges, values, side="right"), mask=missing))


def _mask(keep: int, side: str, column: pa.Array, _: Context) -> pa.Array:
    """Keep some characters of longer texts. How long the text was is not told."""
    first, last = (0, keep) if side == "start" else (-keep, None)
    kept = pc.utf8_slice_codeunits(column, first, last) if keep else pc.if_else(column.is_valid(), "", None)
    kept = pc.if_else(pc.greater(pc.utf8_length(column), keep), kept, "")
    parts = (kept, MASKED) if side == "start" else (MASKED, kept)
    return clean(pc.binary_join_element_wise(*parts, ""))


def _drop(column: pa.Array, _: Context) -> pa.Array:
    return pa.nulls(len(column), column.type)


def _constant(value: pa.Scalar, column: pa.Array, _: Context) -> pa.Array:
    return pa.repeat(value, len(column))
