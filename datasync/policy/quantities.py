"""Durations and moments as policies write them.

A duration is a whole number and a unit (``30d``); a moment is an RFC 3339 time with its zone, or a distance from now
(``now-7d``). Durations are kept in milliseconds; moments in microseconds since 1970, the unit of Arrow's timestamps.
"""

import re
from datetime import UTC, datetime, timedelta

from datasync.domain.clock import Instant

_UNITS_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
DURATION = r"([1-9][0-9]{0,8})(ms|s|m|h|d|w|y)"
"""How durations are written, as a regular expression for the whole text."""

_DURATION = re.compile(DURATION)
_DISTANCE = re.compile(r"now(?:([-+])(.+))?")
_DURATION_MS_MAX = 1_000 * _UNITS_MS["y"]

MOMENT_US_MIN, MOMENT_US_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999 in microseconds since 1970: what Python's datetime, and so every reader, can express."""


def duration_ms(text: str) -> int:
    """Return a duration in milliseconds. Raises ValueError; a year has 365 days, the longest duration 1000 years."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: write a whole number and a unit (ms, s, m, h, d, w, y), as in 30d")
    length_ms = int(match[1]) * _UNITS_MS[match[2]]
    if length_ms > _DURATION_MS_MAX:
        raise ValueError(f"{text} is longer than 1000 years")
    return length_ms


def duration_text(length_ms: int) -> str:
    """Return a duration as policies write it, in its largest whole unit."""
    unit = max((unit for unit, size_ms in _UNITS_MS.items() if length_ms % size_ms == 0), key=_UNITS_MS.__getitem__)
    return f"{length_ms // _UNITS_MS[unit]}{unit}"


def distance_ms(text: str) -> int | None:
    """Return how far ``now-7d`` is from now in milliseconds (negative: before); None when ``text`` is no distance.

    Raises ValueError when it begins as one and does not end as one.
    """
    match = _DISTANCE.fullmatch(text)
    if match is None:
        return None
    sign, length = match.groups()
    if sign is None:
        return 0
    return duration_ms(length) if sign == "+" else -duration_ms(length)


def moment_us(text: str) -> int:
    """Return an RFC 3339 time in microseconds since 1970. Raises ValueError; a zone is required."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write RFC 3339, as in 2024-05-01T00:00:00Z") from None
    return datetime_us(moment)


def datetime_us(moment: datetime) -> int:
    """Return a datetime in microseconds since 1970, exactly. Raises ValueError when it has no zone."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no time zone: add Z or an offset")
    elapsed_us = (moment - _EPOCH) // timedelta(microseconds=1)
    if not MOMENT_US_MIN <= elapsed_us <= MOMENT_US_MAX:
        raise ValueError(f"{moment.isoformat()} is outside of the years 1 to 9999 in UTC")
    return elapsed_us


def instant_us(now: Instant) -> int:
    """Return an instant's wall time in microseconds since 1970."""
    return now.wall_ms * 1_000


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
