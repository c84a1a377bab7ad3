"""Checkpoints: one signature of a stream over many segments, by which each of them can be checked alone."""

from collections.abc import Sequence
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cwt import COSE, COSEKey
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.errors import CheckpointInvalid, SegmentInvalid, SignatureInvalid
from datasync.domain.ids import stream_id
from datasync.domain.limits import CHECKPOINT_BYTES_MAX, CHECKPOINT_SEGMENTS_MAX, SEQUENCE_MAX
from datasync.domain.ranges import RangeSet
from datasync.protocol import cbor, checkpoint, cose
from datasync.protocol.checkpoint import CONTEXT, Entry

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()


def entries(count: int) -> list[Entry]:
    """Segments of three rows each, with a gap after each."""
    return [Entry(4 * number, 4 * number + 2, f"{number:064x}") for number in range(count)]


def signed(content: object, key: Ed25519PrivateKey = KEY, context: bytes = CONTEXT) -> bytes:
    return cose.sign(key, context, cbor.dumps(content))


def listed(items: Sequence[Entry]) -> list[Any]:
    return [[each.seq_first, each.seq_last, bytes.fromhex(each.hash)] for each in items]


def refused(data: bytes) -> None:
    with pytest.raises((CheckpointInvalid, SignatureInvalid)):
        checkpoint.verify(checkpoint.parse(data))


@pytest.mark.parametrize("count", [1, 2, CHECKPOINT_SEGMENTS_MAX])
def test_what_is_signed_comes_back(count: int) -> None:
    made = checkpoint.sign(entries(count), KEY)
    parsed = checkpoint.parse(made.data)
    checkpoint.verify(parsed)
    assert parsed == made
    assert parsed.stream == stream_id(PUBLIC)
    assert list(parsed.entries) == entries(count)
    assert parsed.numbers == RangeSet.of((4 * number, 4 * number + 2) for number in range(count))


def test_the_largest_checkpoint_is_within_the_limit() -> None:
    last = SEQUENCE_MAX - CHECKPOINT_SEGMENTS_MAX
    largest = [Entry(last + number, last + number, "f" * 64) for number in range(CHECKPOINT_SEGMENTS_MAX)]
    assert len(checkpoint.sign(largest, KEY).data) <= CHECKPOINT_BYTES_MAX


def test_another_implementation_of_cose_verifies_it() -> None:
    made = checkpoint.sign(entries(3), KEY)
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    payload = COSE.new().decode(made.data, COSEKey.from_pem(pem), external_aad=b"datasync/checkpoint/1")
    assert cbor2.loads(payload) == [1, PUBLIC, listed(entries(3))]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        entries(CHECKPOINT_SEGMENTS_MAX + 1),
        [Entry(5, 4, "0" * 64)],
        [Entry(-1, 4, "0" * 64)],
        [Entry(0, SEQUENCE_MAX + 1, "0" * 64)],
        [Entry(0, 4, "0" * 64), Entry(4, 8, "1" * 64)],
        list(reversed(entries(2))),
    ],
    ids=["nothing", "too many", "reversed", "negative", "too high", "overlapping", "out of order"],
)
def test_what_is_no_run_of_segments_is_neither_signed_nor_taken(wrong: list[Entry]) -> None:
    with pytest.raises(CheckpointInvalid):
        checkpoint.sign(wrong, KEY)
    with pytest.raises(CheckpointInvalid):
        checkpoint.parse(signed([1, PUBLIC, listed(wrong)]))


@pytest.mark.parametrize(
    "content",
    [
        [2, PUBLIC, listed(entries(1))],
        [True, PUBLIC, listed(entries(1))],
        [1, PUBLIC[:-1], listed(entries(1))],
        [1, "text", listed(entries(1))],
        [1, PUBLIC, {}],
        [1, PUBLIC, [[0, 1]]],
        [1, PUBLIC, [[0, True, bytes(32)]]],
        [1, PUBLIC, [[0, 1.0, bytes(32)]]],
        [1, PUBLIC, [[0, 1, bytes(31)]]],
        [1, PUBLIC, [[0, 1, "0" * 64]]],
        [1, PUBLIC],
        {},
        None,
    ],
    ids=str,
)
def test_other_content_is_refused(content: object) -> None:
    with pytest.raises(CheckpointInvalid):
        checkpoint.parse(signed(content))


def test_only_the_stream_itself_signs_for_it() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    parsed = checkpoint.parse(signed([1, PUBLIC, listed(entries(1))], stranger))
    with pytest.raises(SignatureInvalid):
        checkpoint.verify(parsed)


def test_what_was_signed_for_another_use_is_no_checkpoint() -> None:
    parsed = checkpoint.parse(signed([1, PUBLIC, listed(entries(1))], context=b"datasync/consent"))
    with pytest.raises(SignatureInvalid):
        checkpoint.verify(parsed)


def test_a_stream_key_of_small_order_is_refused() -> None:
    """With the neutral element as key and R = A, S = 0 this signature verifies for every message."""
    weak = b"\x01" + bytes(31)
    Ed25519PublicKey.from_public_bytes(weak).verify(weak + bytes(32), b"anything")
    forged = signed([1, weak, listed(entries(1))])[:-64] + weak + bytes(32)
    with pytest.raises(CheckpointInvalid, match="small order"):
        checkpoint.verify(checkpoint.parse(forged))


def test_every_truncation_and_every_flipped_bit_is_refused() -> None:
    data = checkpoint.sign(entries(2), KEY).data
    for length in range(len(data)):
        refused(data[:length])
    for bit in range(8 * len(data)):
        refused(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])


def test_one_over_the_size_limit_is_not_even_parsed() -> None:
    with pytest.raises(SegmentInvalid, match="bytes"):
        checkpoint.parse(bytes(CHECKPOINT_BYTES_MAX + 1))


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xd2\x84\x43\xa1\x01\x27\xa0"]))
def test_arbitrary_bytes_are_no_checkpoint(data: bytes, start: bytes) -> None:
    refused(start + data)
