"""Arrow columns as JSON text, by Arrow's own kernels: no value passes through Python, except binary ones.

A column of any type that a policy knows becomes a string column of the same length, whose values are JSON
(RFC 8259). Nulls stay null, so that a writer chooses what stands for them. Timestamps are RFC 3339 in UTC, binary
values base64, and numbers that JSON lacks (NaN and the infinities) are null.
"""

import base64

import pyarrow as pa
import pyarrow.compute as pc

NULL = pa.scalar("null")


def json_text(column: pa.Array) -> pa.Array:
    """Return ``column`` as a string column of JSON values. Raises TypeError for a type that no policy has."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_finite(column), column, None).cast(pa.string())
    if pa.types.is_timestamp(kind):
        return _quoted(timestamp_text(column))
    if pa.types.is_binary(kind):
        return _quoted(base64_text(column))
    if pa.types.is_string(kind):
        return _quoted(_escaped(column))
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        objects = json_objects(names, column.flatten())
        return pc.if_else(column.is_valid(), objects, None)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _list_text(column)
    raise TypeError(f"a column of type {kind} has no JSON form")


def json_objects(names: list[str], columns: list[pa.Array], *, end: str = "") -> pa.Array:
    """Return one JSON object for each row, followed by ``end``; nulls are written as null."""
    parts: list[pa.Array | str] = []
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        key = _escaped(pa.array([name]))[0].as_py()
        parts += [f'{"," if index else "{"}"{key}":', pc.fill_null(json_text(column), NULL)]
    return pc.binary_join_element_wise(*parts, "}" + end, "")


def timestamp_text(column: pa.Array) -> pa.Array:
    """Return UTC timestamps as RFC 3339, for example ``2026-01-31T23:59:59.250000Z``."""
    text = column.view(pa.timestamp(column.type.unit)).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T", max_replacements=1), "Z", "")


def base64_text(column: pa.Array) -> pa.Array:
    """Return binary values in base64 (RFC 4648)."""
    encoded = [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]
    return pa.array(encoded, pa.string())


def _quoted(text: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', text, '"', "")


def _escaped(text: pa.Array) -> pa.Array:
    text = pc.replace_substring(pc.replace_substring(text, "\\", "\\\\"), '"', '\\"')
    if pc.any(pc.match_substring_regex(text, r"[\x00-\x1f]")).as_py():
        for code in range(0x20):
            text = pc.replace_substring(text, chr(code), f"\\u{code:04x}")
    return text


def _list_text(column: pa.Array) -> pa.Array:
    lists = column.cast(pa.list_(column.type.value_type))
    values = pc.fill_null(json_text(lists.flatten()), NULL)
    ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(lists), 0))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, values), ",")
    return pc.if_else(lists.is_valid(), pc.binary_join_element_wise("[", joined, "]", ""), None)
