"""Every kind of message, as it is and damaged, whole and by the bit, as a broker and as a signer can damage it."""

import pytest

from datasync.domain.errors import MessageError, Undecipherable
from datasync.domain.limits import SEQUENCE_MAX
from datasync.protocol import cbor, envelope
from datasync.protocol.envelope import Opener, Sealer
from datasync.protocol.messages import Forward, Message, Upload, decode
from tests.unit.protocol.samples import COVERAGE, KINDS, sample

TOPIC = "ds/1/d/watch-7/up"
LIMIT = 1 << 20
SEALED = (Upload, Forward)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_comes_back_as_it_was(kind: type[Message]) -> None:
    said = sample(kind)
    assert decode(said.encode()) == said


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_and_every_flipped_bit_of_a_frame_is_refused(world, entropy, kind: type[Message]) -> None:
    """The certificate's bits are flipped in test_envelope.py: they are the same in every frame."""
    body = sample(kind).encode()
    if kind in SEALED:
        body = Sealer(world.watch, entropy).seal(world.peer(world.edge), TOPIC, body)
    frame = envelope.sign(world.watch, TOPIC, body)
    start = frame.index(world.watch.certificate)
    spared = range(start, start + len(world.watch.certificate))
    for end in range(len(frame)):
        refused(world, frame[:end])
    for place in (place for place in range(len(frame)) if place not in spared):
        for bit in range(8):
            refused(world, frame[:place] + bytes([frame[place] ^ 1 << bit]) + frame[place + 1 :])


def refused(world, frame: bytes) -> None:
    with pytest.raises(MessageError):
        envelope.verify(frame, TOPIC, world.trust, world.now, bytes_max=LIMIT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_its_signer_damaged_is_refused_or_is_another_message(kind: type[Message]) -> None:
    """No exception but ours gets out, whatever a signer says; and what is read says again what was read."""
    body = sample(kind).encode()
    flipped = (
        body[:place] + bytes([body[place] ^ 1 << bit]) + body[place + 1 :]
        for place in range(len(body))
        for bit in range(8)
    )
    read = 0
    for damaged in (*(body[:end] for end in range(len(body))), *flipped):
        try:
            message = decode(damaged)
        except MessageError:
            continue
        read += 1
        assert message.encode() == damaged
    assert read < len(body) * 8


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "epoch" in kind.model_fields])
@pytest.mark.parametrize("epoch", [SEQUENCE_MAX + 1, (1 << 64) - 1, -1, 1.0, "1", True, None])
def test_an_epoch_beyond_its_bounds_is_refused(kind: type[Message], epoch: object) -> None:
    with pytest.raises(MessageError, match="epoch"):
        decode(cbor.dumps(sample(kind).model_dump() | {"epoch": epoch}))


@pytest.mark.parametrize(
    "bounds", [[0, (1 << 64) - 1], [SEQUENCE_MAX + 1, SEQUENCE_MAX + 1], [5, 4], [0, 1, 2], [-1, 3]]
)
@pytest.mark.parametrize("field", ["durable", "has", "safe", "manifest"])
def test_sequence_numbers_beyond_their_bounds_are_refused(field: str, bounds: list[int]) -> None:
    stream = next(iter(COVERAGE))
    for kind in (kind for kind in KINDS if field in kind.model_fields):
        with pytest.raises(MessageError, match=field):
            decode(cbor.dumps(sample(kind).model_dump() | {field: {stream: bounds}}))


def test_what_is_sealed_opens_for_nobody_when_a_bit_is_flipped(world, entropy) -> None:
    peer, watch = world.peer(world.edge), world.peer(world.watch)
    for kind in SEALED:
        data = Sealer(world.watch, entropy).seal(peer, TOPIC, sample(kind).encode())
        opener = Opener(world.edge)
        assert isinstance(decode(opener.open(data, TOPIC, watch)), kind)
        for place in range(len(data)):
            damaged = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
            with pytest.raises((MessageError, Undecipherable)):
                opener.open(damaged, TOPIC, watch)


@pytest.mark.parametrize("declared", [b"\x5a\x80\x00\x00\x00", b"\x9a\x80\x00\x00\x00", b"\xba\x80\x00\x00\x00"])
def test_a_declared_length_of_2_to_the_31_is_refused_by_a_signer_too(declared: bytes) -> None:
    for body in (declared, declared + bytes(1_000), b"\xa1\x61t" + declared, b"\x81" + declared):
        with pytest.raises(MessageError):
            decode(body)


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x61t", b"\xa1\x00"])
def test_nesting_100_000_deep_is_refused_by_a_signer_too(opening: bytes) -> None:
    with pytest.raises(MessageError, match="nested"):
        decode(opening * 100_000 + b"\x00")
