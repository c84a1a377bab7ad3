"""Which format a client gets: the one it names, else the best that its Accept header allows (RFC 9110, 12.5.1)."""

from datasync.api.problems import NotAcceptable
from datasync.views.formats import FORMATS, Format


def choose(name: str | None, accept: str) -> Format:
    """Return the format. Raises NotAcceptable when the header allows none; an empty header allows all."""
    if name is not None:
        return next(kind for kind in FORMATS if kind.name == name)
    ranges = _ranges(accept) or [("*/*", 1.0)]
    best = max(FORMATS, key=lambda kind: _quality(kind, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"views come as {', '.join(kind.content_type for kind in FORMATS)}")
    return best


def _quality(kind: Format, ranges: list[tuple[str, float]]) -> float:
    group = kind.content_type.split("/")[0] + "/*"
    for pattern in (kind.content_type, group, "*/*"):
        found = [quality for name, quality in ranges if name == pattern]
        if found:
            return max(found)
    return 0.0


def _ranges(accept: str) -> list[tuple[str, float]]:
    return [(name, quality) for part in accept.split(",") for name, quality in [_range(part)] if name]


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return name, _number(value.strip())
    return name, 1.0


def _number(text: str) -> float:
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isdecimal():
        return 0.0
    return min(float(text), 1.0)
