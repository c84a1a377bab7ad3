"""The types of fields: how policies write them and what they are in Arrow."""

import re
from typing import Any

import pyarrow as pa

from datasync.domain.limits import VECTOR_LENGTH_MAX
from datasync.policy.problems import nearest

POINT = pa.struct([("lat", pa.float64()), ("lon", pa.float64())])
TIMESTAMP = pa.timestamp("us", "UTC")

SCALARS = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "timestamp": TIMESTAMP,
}
_VECTOR = re.compile(r"vector\(([1-9][0-9]{0,5})\)")
_NAMES = {arrow: name for name, arrow in (*SCALARS.items(), ("point", POINT))}

WRITTEN: dict[str, Any] = {
    "anyOf": [
        {"enum": [*SCALARS, "point"]},
        {"type": "string", "pattern": rf"^({_VECTOR.pattern}|\[({'|'.join(SCALARS)})\])$"},
        {"type": "array", "items": {"enum": [*SCALARS]}, "minItems": 1, "maxItems": 1},
    ]
}
"""How policies write types, as JSON Schema."""


def arrow_type(text: str) -> pa.DataType:
    """Return the Arrow type of a policy's type. Raises ValueError with what is known."""
    if text in SCALARS:
        return SCALARS[text]
    if text == "point":
        return POINT
    if text.startswith("[") and text[1:-1] in SCALARS:
        return pa.list_(SCALARS[text[1:-1]])
    vector = _VECTOR.fullmatch(text)
    if vector and int(vector[1]) <= VECTOR_LENGTH_MAX:
        return pa.list_(pa.float32(), int(vector[1]))
    raise ValueError(f"there is no type {text}: {nearest(text, (*SCALARS, 'point', '[scalar]', 'vector(n)'))}")


def type_name(kind: pa.DataType) -> str:
    """Return how policies write an Arrow type."""
    if pa.types.is_fixed_size_list(kind):
        return f"vector({kind.list_size})"
    if pa.types.is_list(kind):
        return f"[{_NAMES[kind.value_type]}]"
    return _NAMES[kind]
