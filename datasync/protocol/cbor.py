"""CBOR from strangers: one encoding for each value, and nothing parsed that was not looked over first.

:func:`loads` walks the bytes without recursion and without allocating what they declare, and refuses whatever is not
the deterministic encoding (RFC 8949, section 4.2: shortest lengths, definite lengths, map keys sorted, here the
shorter first as in section 4.2.3) of plain values: integers, floats, text, byte strings, lists, maps keyed by
integers or strings, booleans and null. No tags: so no dates, no decimals, no shared references. Only then cbor2
decodes.
"""

from typing import Any

import cbor2

from datasync.domain.errors import MessageError
from datasync.domain.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_MAX

_INTEGERS, _BYTES, _TEXT, _LIST, _MAP, _SIMPLE = (0, 1), 2, 3, 4, 5, 7
_SHORTEST = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}
_SIMPLE_BYTES = {20: 0, 21: 0, 22: 0, 25: 2, 26: 4, 27: 8}
"""false, true, null, and floats of 16, 32 and 64 bits, with the bytes that follow."""

_FLOATS = (25, 26, 27)

_NO_MAP, _FIRST_KEY = None, b""


def dumps(value: object) -> bytes:
    """Return the deterministic encoding of a plain value."""
    return cbor2.dumps(value, canonical=True)


def loads(data: bytes) -> Any:
    """Return the plain value that ``data`` encodes. Raises MessageError for anything else, trailing bytes included."""
    check(data)
    try:
        return cbor2.loads(data)
    except (cbor2.CBORError, ValueError) as error:
        raise MessageError(f"the CBOR cannot be decoded: {error}") from error


def check(data: bytes) -> None:
    """Raise MessageError unless ``data`` is one plain value in its deterministic encoding, within the limits."""
    position, items = 0, 0
    needed, key = 1, _NO_MAP  # of the innermost open container: items still to come; a map's last key
    outer: list[tuple[int, bytes | None]] = []
    while True:
        while not needed:
            if not outer:
                return _check_end(data, position)
            needed, key = outer.pop()
        items += 1
        if items > CBOR_ITEMS_MAX:
            raise MessageError(f"the CBOR has more than {CBOR_ITEMS_MAX} items")
        start = position
        major, contained, position = _item(data, position)
        if key is not None and not needed & 1:
            key = _ascending(key, data[start:position], major)
        needed -= 1
        if contained:
            if len(outer) >= CBOR_DEPTH_MAX:
                raise MessageError(f"the CBOR is nested deeper than {CBOR_DEPTH_MAX}")
            outer.append((needed, key))
            needed, key = contained, _FIRST_KEY if major == _MAP else _NO_MAP


def _item(data: bytes, start: int) -> tuple[int, int, int]:
    """Return an item's major type, how many items it contains, and where it ends (a container: where they begin)."""
    if start >= len(data):
        raise MessageError("the CBOR ends too early")
    major, argument = data[start] >> 5, data[start] & 31
    position = start + 1
    if argument >= 24 and major != _SIMPLE:
        argument, position = _argument(data, position, argument)
    if major in (_BYTES, _TEXT):
        contained, position = 0, position + argument
        declared = position
    elif major in (_LIST, _MAP):
        contained = argument << (major == _MAP)
        declared = position + contained  # an item takes at least a byte
    elif major == _SIMPLE:
        contained, position = 0, _simple(data, start)
        declared = position
    elif major in _INTEGERS:
        contained, declared = 0, position
    else:
        raise MessageError("the CBOR has a tag")
    if declared > len(data):
        raise MessageError("the CBOR declares more than there is")
    return major, contained, position


def _argument(data: bytes, position: int, low: int) -> tuple[int, int]:
    if low not in _SHORTEST:
        raise MessageError("the CBOR has an item of indefinite or reserved length")
    end = position + (1 << (low - 24))
    argument = int.from_bytes(data[position:end], "big")
    if argument < _SHORTEST[low]:
        raise MessageError("the CBOR has an integer or a length that is not in its shortest form, or cut off")
    return argument, end


def _simple(data: bytes, start: int) -> int:
    kind = data[start] & 31
    if kind not in _SIMPLE_BYTES:
        raise MessageError("the CBOR has an unknown simple value")
    end = start + 1 + _SIMPLE_BYTES[kind]
    if kind in _FLOATS and end <= len(data) and dumps(cbor2.loads(data[start:end])) != data[start:end]:
        raise MessageError("the CBOR has a float that is not in its shortest form")
    return end


def _check_end(data: bytes, position: int) -> None:
    if position != len(data):
        raise MessageError(f"{len(data) - position} bytes follow the CBOR value")


def _ascending(last: bytes, key: bytes, major: int) -> bytes:
    if major not in (*_INTEGERS, _BYTES, _TEXT):
        raise MessageError("the CBOR has a map with a key that is neither an integer nor a string")
    if (len(key), key) <= (len(last), last):
        raise MessageError("the CBOR has a map with keys that repeat or are not sorted")
    return key
