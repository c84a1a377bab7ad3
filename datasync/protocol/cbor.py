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
_SIMPLE_VALUES = (20, 21, 22, 25, 26, 27)
"""false, true, null, and floats of 16, 32 and 64 bits."""


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
    waiting: list[int] = [1]  # for each open container, how many items it still needs
    last_keys: list[bytes | None] = [None]  # and, where it is a map, its last key
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            last_keys.pop()
            continue
        items += 1
        if items > CBOR_ITEMS_MAX:
            raise MessageError(f"the CBOR has more than {CBOR_ITEMS_MAX} items")
        start = position
        major, count, position = _item(data, position)
        key = last_keys[-1]
        if key is not None and waiting[-1] % 2 == 0:
            last_keys[-1] = _ascending(key, data[start:position], major)
        waiting[-1] -= 1
        if major in (_LIST, _MAP):
            if len(waiting) > CBOR_DEPTH_MAX:
                raise MessageError(f"the CBOR is nested deeper than {CBOR_DEPTH_MAX}")
            waiting.append(count)
            last_keys.append(b"" if major == _MAP else None)
    if position != len(data):
        raise MessageError(f"{len(data) - position} bytes follow the CBOR value")


def _item(data: bytes, start: int) -> tuple[int, int, int]:
    """Return an item's major type, how many items it contains, and where it ends (a container: where they begin)."""
    if start >= len(data):
        raise MessageError("the CBOR ends too early")
    major, low = data[start] >> 5, data[start] & 31
    position, argument = start + 1, low
    if low >= 24:
        if low > 27:
            raise MessageError("the CBOR has an item of indefinite or reserved length")
        position += 1 << (low - 24)
        argument = int.from_bytes(data[start + 1 : position], "big")
        if argument < _SHORTEST[low] and major != _SIMPLE:
            raise MessageError("the CBOR has an integer or a length that is not in its shortest form")
    left = len(data) - position
    if major in _INTEGERS:
        needed = count = 0
    elif major in (_BYTES, _TEXT):
        needed, count = argument, 0
        position += argument
    elif major in (_LIST, _MAP):
        needed = count = argument * (2 if major == _MAP else 1)  # an item takes at least a byte
    elif major == _SIMPLE and low in _SIMPLE_VALUES:
        needed = count = 0
    else:
        raise MessageError("the CBOR has a tag or an unknown simple value")
    if needed > left:
        raise MessageError("the CBOR declares more than there is")
    return major, count, position


def _ascending(last: bytes, key: bytes, major: int) -> bytes:
    if major not in (*_INTEGERS, _BYTES, _TEXT):
        raise MessageError("the CBOR has a map with a key that is neither an integer nor a string")
    if (len(key), key) <= (len(last), last):
        raise MessageError("the CBOR has a map with keys that repeat or are not sorted")
    return key
