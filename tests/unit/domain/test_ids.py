"""Names are what they may be and nothing else; a stream's id follows from its key."""

import hashlib

import pytest

from datasync.domain.ids import is_hex_id, node_name, operator_of, stream_id


@pytest.mark.parametrize("text", ["watch-7", "acme/cbd", "a", "0/0", "a_b-c/d-_", "a" * 63, f"{'a' * 63}/{'b' * 63}"])
def test_a_good_name_is_kept_as_it_is(text: str) -> None:
    assert node_name(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "/", "a/", "/a", "a/b/c", "A", "acme/CBD", "-a", "_a", "a b", "a+", "a#", "a/b\n", "ä", "a" * 64, "a.b"],
)
def test_a_bad_name_is_refused_and_told_what_is_right(text: str) -> None:
    with pytest.raises(ValueError, match="lower-case letters"):
        node_name(text)


def test_the_operator_is_in_the_name_of_an_edge_and_not_in_that_of_a_device() -> None:
    assert operator_of(node_name("acme/cbd")) == "acme"
    assert operator_of(node_name("watch-7")) == ""


def test_a_streams_id_is_the_first_half_of_its_keys_hash() -> None:
    key = bytes(range(32))
    assert stream_id(key) == hashlib.sha256(key).digest()[:16].hex()
    assert is_hex_id(stream_id(key))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_the_wrong_size_names_no_stream(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        stream_id(bytes(size))


@pytest.mark.parametrize("text", ["", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 32 + "\n"])
def test_what_is_not_32_hexadecimal_digits_is_no_id(text: str) -> None:
    assert not is_hex_id(text)
