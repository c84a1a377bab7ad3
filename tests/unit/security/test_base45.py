"""Base45, by the examples of RFC 9285 and by what any bytes give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync.security.base45 import ALPHABET, decode, encode


@pytest.mark.parametrize(
    ("data", "text"), [(b"AB", "BB8"), (b"Hello!!", "%69 VD92EX0"), (b"base-45", "UJCLQE7W581"), (b"ietf!", "QED8WEX0")]
)
def test_the_examples_of_rfc_9285(data: bytes, text: str) -> None:
    assert encode(data) == text
    assert decode(text) == data


@given(st.binary(max_size=64))
def test_any_bytes_come_back_from_characters_that_a_qr_code_packs_tightly(data: bytes) -> None:
    text = encode(data)
    assert set(text) <= set(ALPHABET)
    assert len(text) == len(data) // 2 * 3 + len(data) % 2 * 2
    assert decode(text) == data
    assert text == text.rstrip()  # so nothing is lost where a scanner trims


@pytest.mark.parametrize("text", ["GGW", ":::", "A", "BB8A", "bb8", "B\nB", "::", "É00"])
def test_what_no_bytes_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Base45"):
        decode(text)
