import struct
import tracemalloc

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.errors import MessageError
from datasync.domain.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_MAX
from datasync.protocol import cbor

INTEGERS = st.integers(-(2**64), 2**64 - 1)
KEYS = st.one_of(INTEGERS, st.text(max_size=8), st.binary(max_size=8))
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(allow_nan=False), st.text(), st.binary())
PLAIN = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5))
"""At most a few levels deep: hypothesis stops well below CBOR_DEPTH_MAX."""


def refused(data: bytes, why: str) -> None:
    with pytest.raises(MessageError, match=why) as refusal:
        cbor.loads(data)
    assert refusal.value.code == "MESSAGE_INVALID"


@given(PLAIN)
def test_plain_values_come_back(value: object) -> None:
    assert cbor.loads(cbor.dumps(value)) == value


@given(PLAIN)
def test_a_truncated_value_is_refused_at_every_byte(value: object) -> None:
    data = cbor.dumps(value)
    for length in range(len(data)):
        with pytest.raises(MessageError):
            cbor.loads(data[:length])


@given(st.one_of(st.binary(max_size=64), PLAIN.map(cbor2.dumps)))
def test_what_is_read_has_no_other_encoding(data: bytes) -> None:
    """Whatever the bytes: they are refused, or they are exactly what we would have written."""
    try:
        value = cbor.loads(data)
    except MessageError:
        return
    assert cbor.dumps(value) == data


def test_trailing_bytes_are_refused() -> None:
    refused(cbor.dumps(1) + b"\x00", "1 bytes follow")


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x00", b"\x82\x00"], ids=["lists", "maps", "pairs"])
def test_deep_nesting_is_refused_without_recursion(opening: bytes) -> None:
    refused(opening * 100_000 + b"\x00", f"deeper than {CBOR_DEPTH_MAX}")


def test_nesting_is_allowed_up_to_the_limit() -> None:
    data = b"\x81" * CBOR_DEPTH_MAX + b"\x00"
    assert cbor.dumps(cbor.loads(data)) == data
    refused(b"\x81" + data, "deeper than")


@pytest.mark.parametrize("major", [2, 3, 4, 5], ids=["bytes", "text", "list", "map"])
@pytest.mark.parametrize("length", [2**31, 2**63, 2**64 - 1])
def test_a_declared_length_beyond_the_data_is_refused_without_allocating(major: int, length: int) -> None:
    data = bytes([major << 5 | 27]) + length.to_bytes(8, "big")
    if length < 2**32:
        data = bytes([major << 5 | 26]) + length.to_bytes(4, "big")
    data += bytes(100)
    tracemalloc.start()
    refused(data, "declares more than there is")
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_too_many_items_are_refused() -> None:
    refused(b"\x9a" + struct.pack(">I", CBOR_ITEMS_MAX) + bytes(CBOR_ITEMS_MAX), "more than")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "too early"),
        (b"\x18\x17", "shortest"),
        (b"\x19\x00\xff", "shortest"),
        (b"\x1a\x00\x00\xff\xff", "shortest"),
        (b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", "shortest"),
        (b"\x58\x01a", "shortest"),
        (b"\xfa\x3f\x80\x00\x00", "shortest"),
        (b"\xf9\x7e\x01", "shortest"),
        (b"\x9f\xff", "indefinite"),
        (b"\xbf\xff", "indefinite"),
        (b"\x5f\x41a\xff", "indefinite"),
        (b"\x7f\x61a\xff", "indefinite"),
        (b"\x1c", "reserved"),
        (b"\xff", "simple"),
        (b"\xf7", "simple"),
        (b"\xf8\xff", "simple"),
        (b"\xe0", "simple"),
        (b"\x61\xff", "decoded"),
        (b"\xa2\x01\x00\x01\x00", "repeat"),
        (b"\xa2\x02\x00\x01\x00", "not sorted"),
        (b"\xa2\x61b\x00\x61a\x00", "not sorted"),
        (b"\xa1\x80\x00", "neither an integer nor a string"),
        (b"\xa1\xa0\x00", "neither an integer nor a string"),
        (b"\xa1\xf5\x00", "neither an integer nor a string"),
    ],
)
def test_other_encodings_are_refused(data: bytes, why: str) -> None:
    refused(data, why)


@pytest.mark.parametrize("tag", [0, 1, 2, 3, 4, 5, 18, 25, 28, 29, 30, 35, 36, 37, 256, 258, 260, 43000, 55799])
def test_tags_are_refused_wherever_they_stand(tag: int) -> None:
    for inner in (b"\x00", b"\x41a", b"\x82\x01\x02"):
        tagged = cbor2.dumps(cbor2.CBORTag(tag, 0))[:-1] + inner
        refused(tagged, "tag")
        refused(b"\x81" + tagged, "tag")
        refused(b"\xa1\x00" + tagged, "tag")
