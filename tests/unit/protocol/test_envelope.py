import random
from collections.abc import Callable
from itertools import pairwise

import cbor2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cwt import COSE, COSEKey
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import Instant
from datasync.domain.errors import MessageError, MessageTooLarge, SignatureInvalid, SignerUntrusted, Undecipherable
from datasync.domain.ids import node_name
from datasync.domain.limits import PEERS_CACHED_MAX
from datasync.protocol import cbor, cose, envelope
from datasync.protocol.envelope import Opener, Sealer
from datasync.security import sealing
from datasync.security.identity import Identity, Role
from datasync.security.sealing import Kem
from datasync.security.trust import Authority, Trust

TOPIC = "ds/1/d/watch-7/up"
BODY = b"\xa1aton"
LIMIT = 1 << 20
DAY_MS = 86_400_000
Entropy = Callable[[int], bytes]


def verify(world, data: bytes, context: str = TOPIC) -> envelope.Envelope:
    return envelope.verify(data, context, world.trust, world.now, bytes_max=LIMIT)


def signed_with(identity: Identity, protected: object, *, payload: object = BODY, unprotected: object = None) -> bytes:
    """A COSE_Sign1 with any headers and payload, and a right signature over them."""
    raw = protected if isinstance(protected, bytes) else cbor2.dumps(protected)
    to_sign = cbor2.dumps(["Signature1", raw, TOPIC.encode(), payload])
    parts = [raw, {} if unprotected is None else unprotected, payload, identity.signing_key.sign(to_sign)]
    return cbor2.dumps(cbor2.CBORTag(18, parts))


def test_a_verified_envelope_says_who_signed_what(world) -> None:
    opened = verify(world, envelope.sign(world.watch, TOPIC, BODY))
    assert opened.body == BODY
    assert opened.peer == world.peer(world.watch)


def test_another_implementation_of_cose_verifies_our_envelope(world) -> None:
    pem = world.watch.signing_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = COSEKey.from_pem(pem.decode())
    data = envelope.sign(world.watch, TOPIC, BODY)
    protected, unprotected, payload = COSE.new().decode_with_headers(data, key, external_aad=TOPIC.encode())
    assert (payload, unprotected) == (BODY, {})
    assert protected == {1: -8, 33: world.watch.certificate}


def test_what_another_implementation_of_cose_signs_we_verify(world) -> None:
    """Our own assembly of the structure in these tests is checked by the same means."""
    assert verify(world, signed_with(world.watch, {1: -8, 33: world.watch.certificate})).body == BODY


def test_an_envelope_does_not_verify_in_another_context(world) -> None:
    data = envelope.sign(world.watch, TOPIC, BODY)
    with pytest.raises(SignatureInvalid):
        verify(world, data, "ds/1/d/watch-8/up")


def test_a_signature_by_another_key_than_the_certificates_is_refused(world) -> None:
    forged = signed_with(world.docks, {1: -8, 33: world.watch.certificate})
    with pytest.raises(SignatureInvalid):
        verify(world, forged)


def test_a_stranger_and_an_expired_signer_are_refused(world) -> None:
    data = envelope.sign(world.watch, TOPIC, BODY)
    with pytest.raises(SignerUntrusted):
        envelope.verify(data, TOPIC, Trust([]), world.now, bytes_max=LIMIT)
    verify(world, data)
    later = Instant(world.now.wall_ms + 366 * DAY_MS, 0)
    with pytest.raises(SignerUntrusted, match="no longer valid"):
        envelope.verify(data, TOPIC, world.trust, later, bytes_max=LIMIT)


def test_size_is_checked_before_anything_is_parsed(world) -> None:
    data = envelope.sign(world.watch, TOPIC, BODY)
    with pytest.raises(MessageTooLarge):
        envelope.verify(data, TOPIC, world.trust, world.now, bytes_max=len(data) - 1)
    with pytest.raises(MessageTooLarge):
        envelope.verify(bytes(1000), TOPIC, world.trust, world.now, bytes_max=999)
    assert envelope.verify(data, TOPIC, world.trust, world.now, bytes_max=len(data)).body == BODY


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({1: -7}, "EdDSA"),
        ({1: None, 33: b""}, "EdDSA"),  # no algorithm at all
        ({1: 0, 33: b""}, "EdDSA"),
        ({1: "none", 33: b""}, "EdDSA"),
        ({1: "EdDSA"}, "EdDSA"),
        (b"\xa1\x01\xf9\xc8\x00", "EdDSA"),  # -8.0
        ({}, "EdDSA"),
        ({1: -8}, "protected headers"),
        ({1: -8, 33: True}, "byte string"),
        ({1: -8, 33: "text"}, "byte string"),
        ({1: -8, 33: [b"one", b"two"]}, "byte string"),
        ({1: -8, 2: [33], 33: b""}, "protected headers"),
        ({1: -8, 4: b"kid", 33: b""}, "protected headers"),
        ({33: b"", 1: -8}, "not sorted"),
        ([1, -8], "EdDSA"),
        (b"", "too early"),
        (b"\xa2\x01\x27\x01\x27", "repeat"),
        (b"\xbf\x01\x27\xff", "indefinite"),
    ],
)
def test_other_headers_are_refused_though_rightly_signed(world, headers: object, why: str) -> None:
    with pytest.raises(MessageError, match=why) as refused:
        verify(world, signed_with(world.watch, headers))
    assert refused.value.code == "MESSAGE_INVALID"


@pytest.mark.parametrize("payload", [None, "text", 1, [BODY], {}], ids=repr)
def test_a_payload_that_is_no_byte_string_is_refused(world, payload: object) -> None:
    with pytest.raises(MessageError, match="byte strings"):
        verify(world, signed_with(world.watch, {1: -8, 33: world.watch.certificate}, payload=payload))


@pytest.mark.parametrize("unprotected", [{4: b"kid"}, {33: b""}, [], b"", 0], ids=repr)
def test_an_unprotected_header_is_refused(world, unprotected: object) -> None:
    data = signed_with(world.watch, {1: -8, 33: world.watch.certificate}, unprotected=unprotected)
    with pytest.raises(MessageError, match="no unprotected header"):
        verify(world, data)


def test_other_tags_lengths_and_encodings_of_the_same_message_are_refused(world) -> None:
    data = envelope.sign(world.watch, TOPIC, BODY)
    parts = cbor2.loads(data).value
    for tag in (16, 17, 96, 98, 61):
        with pytest.raises(MessageError, match="tag 18"):
            verify(world, cbor2.dumps(cbor2.CBORTag(tag, parts)))
    others = [data[1:], b"\xd8\x12" + data[1:], data + b"\x00", b"\xd2" + data, b"\xd2\x9f" + data[2:] + b"\xff"]
    others += [cbor2.dumps(cbor2.CBORTag(18, wrong)) for wrong in (parts[:3], [*parts, b""], {}, b"")]
    others += [cbor2.dumps(cbor2.CBORTag(18, [*parts[:3], parts[3] + b"\x00"]))]
    for other in others:
        with pytest.raises(MessageError):
            verify(world, other)


@pytest.mark.parametrize("payload", [b"\x81" * 100_000, b"\xd2" + b"\x81" * 100_000, b"\xd2\x9a\x80\x00\x00\x00"])
def test_bombs_are_refused(world, payload: bytes) -> None:
    with pytest.raises(MessageError):
        verify(world, payload)
    with pytest.raises(MessageError):
        verify(world, signed_with(world.watch, payload))


def test_every_truncation_and_every_flipped_bit_of_an_envelope_is_refused(world) -> None:
    data = envelope.sign(world.watch, TOPIC, BODY)
    for damaged in damages(data):
        with pytest.raises(MessageError):
            verify(world, damaged)


def damages(data: bytes) -> list[bytes]:
    """The message cut off at every byte, and with every single bit flipped."""
    cut = [data[:length] for length in range(len(data))]
    flipped = [
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :] for bit in range(8 * len(data))
    ]
    return cut + flipped


# Sealed messages


def test_a_sealed_message_opens_at_its_receiver(world, entropy: Entropy) -> None:
    sealer, opener = Sealer(world.watch, entropy), Opener(world.edge)
    for text in (b"", b"a", bytes(100_000)):
        data = sealer.seal(world.peer(world.edge), TOPIC, text)
        assert opener.open(data, TOPIC, world.peer(world.watch)) == text


def test_another_implementation_of_cose_opens_our_sealed_message(world, entropy: Entropy) -> None:
    data = Sealer(world.watch, entropy).seal(world.peer(world.edge), TOPIC, BODY)
    sealed = cbor2.loads(data).value[1][cose.HEADER_SEALED_KEY]
    key = sealing.decapsulate(world.edge.sealing_key, info(world), sealed)
    content = COSEKey.from_symmetric_key(key, alg="A256GCM")
    protected, _, text = COSE.new().decode_with_headers(data, content, external_aad=TOPIC.encode())
    assert (protected, text) == ({1: 3}, BODY)


def info(world) -> bytes:
    """What binds a content key of the watch for the edge to its use."""
    verify_key = world.watch.signing_key.public_key().public_bytes_raw()
    return cbor2.dumps(["datasync/content-key/2", "watch-7", verify_key, "acme/cbd", TOPIC])


def test_a_sealed_message_is_for_one_receiver_context_and_sender(world, entropy: Entropy) -> None:
    watch, docks = world.peer(world.watch), world.peer(world.docks)
    data = Sealer(world.watch, entropy).seal(world.peer(world.edge), TOPIC, BODY)
    opener = Opener(world.edge)
    assert opener.open(data, TOPIC, watch) == BODY
    with pytest.raises(Undecipherable):
        Opener(world.docks).open(data, TOPIC, watch)
    with pytest.raises(Undecipherable):
        opener.open(data, "ds/1/d/watch-7/seg", watch)
    with pytest.raises(Undecipherable):  # another node passes it off as its own
        opener.open(data, TOPIC, docks)


def test_a_message_to_a_node_of_the_hybrid_kem_opens_there(world, entropy: Entropy) -> None:
    edge = world.authority.enrol(node_name("acme/pq"), Role.EDGE, now=world.now, kem=Kem.MLKEM768_X25519)
    data = Sealer(world.watch, entropy).seal(world.peer(edge), TOPIC, BODY)
    assert Opener(edge).open(data, TOPIC, world.peer(world.watch)) == BODY
    with pytest.raises(Undecipherable):
        Opener(world.edge).open(data, TOPIC, world.peer(world.watch))


def header(sealed: bytes) -> tuple[bytes, bytes]:
    """Return the sealed key and the nonce of a message."""
    unprotected = cbor2.loads(sealed).value[1]
    return unprotected[cose.HEADER_SEALED_KEY], unprotected[cose.HEADER_IV]


def test_one_content_key_serves_a_receiver_and_context_and_nonces_never_repeat(world, entropy: Entropy) -> None:
    sealer = Sealer(world.watch, entropy)
    edge, docks = world.peer(world.edge), world.peer(world.docks)
    headers = [header(sealer.seal(edge, TOPIC, BODY)) for _ in range(100)]
    assert len({key for key, _ in headers}) == 1
    counters = [int.from_bytes(nonce[4:], "big") for _, nonce in headers]
    assert all(second == first + 1 for first, second in pairwise(counters))
    assert len({nonce[:4] for _, nonce in headers}) == 1
    others = [header(sealer.seal(docks, TOPIC, BODY)), header(sealer.seal(edge, "ds/1/d/watch-7/seg", BODY))]
    assert len({headers[0][0], *(key for key, _ in others)}) == 3


def test_processes_of_one_identity_share_neither_keys_nor_the_fixed_parts_of_nonces(world) -> None:
    """A machine that is cloned, or whose disk was restored, starts other processes with the identity it had."""
    edge = world.peer(world.edge)
    processes = [Sealer(world.watch, random.Random(seed).randbytes) for seed in range(20)]
    opener, watch = Opener(world.edge), world.peer(world.watch)
    messages = [sealer.seal(edge, TOPIC, BODY) for sealer in processes for _ in range(3)]
    assert {opener.open(message, TOPIC, watch) for message in messages} == {BODY}
    opened = [sealing.decapsulate(world.edge.sealing_key, info(world), header(message)[0]) for message in messages]
    assert len(set(opened)) == len(processes)
    assert len({header(message)[1] for message in messages}) == len(messages)


def test_a_content_key_is_bound_to_its_sender_receiver_and_context(world, entropy: Entropy) -> None:
    """Whoever has the key, as the receiver does, cannot make it another's, or another message's, by its header."""
    data = Sealer(world.watch, entropy).seal(world.peer(world.edge), TOPIC, BODY)
    sealed_key, nonce = header(data)
    opener, watch = Opener(world.edge), world.peer(world.watch)
    opener.open(data, TOPIC, watch)
    content_key = next(opener._keys.get(use) for use in opener._keys)
    evil = Authority.create("evil", world.now)
    namesake = evil.enrol(world.watch.name, Role.DEVICE, now=world.now)
    namesake_peer = Trust([evil.certificate]).verify(namesake.certificate, world.now)
    uses = [(world.peer(world.docks), TOPIC), (namesake_peer, TOPIC), (watch, "ds/1/d/watch-7/seg")]
    for sender, context in uses:
        forged = cose.seal(content_key, nonce, sealed_key, context.encode(), b"forged")
        with pytest.raises(Undecipherable):
            opener.open(forged, context, sender)


def test_a_content_key_is_replaced_when_it_was_used_up(world, entropy: Entropy, monkeypatch) -> None:
    monkeypatch.setattr(envelope, "MESSAGES_PER_KEY_MAX", 3)
    sealer, opener = Sealer(world.watch, entropy), Opener(world.edge)
    messages = [sealer.seal(world.peer(world.edge), TOPIC, BODY) for _ in range(7)]
    keys = [cbor2.loads(data).value[1][cose.HEADER_SEALED_KEY] for data in messages]
    assert [keys.count(key) for key in dict.fromkeys(keys)] == [3, 3, 1]
    assert {opener.open(data, TOPIC, world.peer(world.watch)) for data in messages} == {BODY}


def test_the_memory_of_content_keys_is_bounded(world, entropy: Entropy) -> None:
    opener = Opener(world.edge)
    watch = world.peer(world.watch)
    first = Sealer(world.watch, entropy).seal(world.peer(world.edge), TOPIC, BODY)
    opener.open(first, TOPIC, watch)
    key = next(opener._keys.get(known) for known in opener._keys)
    for number in range(PEERS_CACHED_MAX):
        opener._keys.put((b"info", number.to_bytes(4, "big")), key)
    assert len(opener._keys) == PEERS_CACHED_MAX
    assert opener.open(first, TOPIC, watch) == BODY


def test_every_truncation_and_every_flipped_bit_of_a_sealed_message_is_refused(world, entropy: Entropy) -> None:
    data = Sealer(world.watch, entropy).seal(world.peer(world.edge), TOPIC, BODY)
    fresh, warm, watch = Opener(world.edge), Opener(world.edge), world.peer(world.watch)
    warm.open(data, TOPIC, watch)
    for damaged in damages(data):
        for opener in (fresh, warm):
            with pytest.raises(MessageError):
                opener.open(damaged, TOPIC, watch)
    assert warm.open(data, TOPIC, watch) == BODY


@pytest.mark.parametrize(
    "parts",
    [
        [b"\xa1\x01\x01", {5: bytes(12), -65537: bytes(80)}, b""],
        [b"\xa1\x01\x03", {5: bytes(12), -65537: bytes(80), 4: b"kid"}, b""],
        [b"\xa1\x01\x03", {5: bytes(12)}, b""],
        [b"\xa1\x01\x03", {5: bytes(11), -65537: bytes(80)}, b""],
        [b"\xa1\x01\x03", {5: "12 characters", -65537: bytes(80)}, b""],
        [b"\xa1\x01\x03", {5: bytes(12), -65537: 80}, b""],
        [b"\xa1\x01\x03", {5: bytes(12), -65537: bytes(79)}, b""],
        [b"\xa1\x01\x03", {5: bytes(12), -65537: bytes(80)}, None],
        [b"\xa1\x01\x03", {5: bytes(12), -65537: bytes(80)}, b"short"],
        [b"\xa1\x01\x03", [], b""],
        [b"\xa1\x01\x03", {}],
        [],
    ],
)
def test_a_sealed_message_outside_of_the_profile_is_refused(world, parts: list[object]) -> None:
    with pytest.raises(MessageError):
        Opener(world.edge).open(cbor2.dumps(cbor2.CBORTag(16, parts), canonical=True), TOPIC, world.peer(world.watch))


# Whatever the bytes


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xd2\x84", b"\xd0\x83", b"\xd2\x84\x43\xa1\x01\x27\xa0"]))
def test_arbitrary_bytes_are_refused(world, data: bytes, start: bytes) -> None:
    with pytest.raises(MessageError):
        verify(world, start + data)
    with pytest.raises(MessageError):
        Opener(world.edge).open(start + data, TOPIC, world.peer(world.watch))


@given(st.data())
def test_a_message_changed_anywhere_is_refused(world, data: st.DataObject) -> None:
    sealed = Sealer(world.watch, random.Random(1).randbytes).seal(world.peer(world.edge), TOPIC, BODY)
    for message in (envelope.sign(world.watch, TOPIC, BODY), sealed):
        start = data.draw(st.integers(0, len(message)))
        end = data.draw(st.integers(start, len(message)))
        changed = message[:start] + data.draw(st.binary(max_size=40)) + message[end:]
        if changed == message:
            continue
        with pytest.raises(MessageError):
            verify(world, changed)
        with pytest.raises(MessageError):
            Opener(world.edge).open(changed, TOPIC, world.peer(world.watch))


@given(st.dictionaries(st.integers(-40, 40) | st.text(max_size=3), st.binary(max_size=9) | st.integers(), max_size=4))
def test_any_signed_headers_but_ours_are_refused(world, headers: dict) -> None:
    with pytest.raises(MessageError):
        verify(world, signed_with(world.watch, cbor.dumps(headers)))


def test_a_signature_with_a_scalar_above_the_groups_order_is_refused(world) -> None:
    """S and S + L satisfy the same equation; only one may be accepted (RFC 8032, section 5.1.7)."""
    order = 2**252 + 27742317777372353535851937790883648493
    data = envelope.sign(world.watch, TOPIC, BODY)
    scalar = int.from_bytes(data[-32:], "little") + order
    with pytest.raises(SignatureInvalid):
        verify(world, data[:-32] + scalar.to_bytes(32, "little"))
