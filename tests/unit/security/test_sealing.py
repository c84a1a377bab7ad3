import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, Undecipherable
from datasync.domain.ids import node_name
from datasync.security.identity import Identity, Role
from datasync.security.sealing import (
    HYBRID_SEALED_KEY_BYTES,
    SEALED_KEY_BYTES,
    HybridPrivateKey,
    Kem,
    decapsulate,
    draw,
    encapsulate,
    public_key,
)
from datasync.security.trust import Authority, Trust

INFO = b"datasync/test/1"
KEY = bytes(range(32))
PYHPKE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
"""An independent implementation of RFC 9180."""

RECIPIENT = X25519PrivateKey.from_private_bytes(bytes(range(32)))


def test_a_sealed_key_opens_at_its_recipient(edge: Identity) -> None:
    sealed = encapsulate(edge.sealing_key.public_key(), INFO, KEY)
    assert len(sealed) == SEALED_KEY_BYTES
    assert decapsulate(edge.sealing_key, INFO, sealed) == KEY


def test_another_implementation_of_rfc_9180_opens_what_we_seal(edge: Identity) -> None:
    sealed = encapsulate(edge.sealing_key.public_key(), INFO, KEY)
    private = KEMKey.from_pyca_cryptography_key(edge.sealing_key)
    assert PYHPKE.create_recipient_context(sealed[:32], private, INFO).open(sealed[32:]) == KEY


def test_we_open_what_another_implementation_of_rfc_9180_seals(edge: Identity) -> None:
    public = KEMKey.from_pyca_cryptography_key(edge.sealing_key.public_key())
    encapsulated, sender = PYHPKE.create_sender_context(public, INFO)
    assert decapsulate(edge.sealing_key, INFO, encapsulated + sender.seal(KEY)) == KEY


def test_another_node_or_another_use_does_not_open(edge: Identity, watch: Identity) -> None:
    sealed = encapsulate(edge.sealing_key.public_key(), INFO, KEY)
    with pytest.raises(Undecipherable):
        decapsulate(watch.sealing_key, INFO, sealed)
    with pytest.raises(Undecipherable):
        decapsulate(edge.sealing_key, b"datasync/other/1", sealed)


def test_every_truncation_and_every_flipped_bit_is_refused(edge: Identity) -> None:
    sealed = encapsulate(edge.sealing_key.public_key(), INFO, KEY)
    for length in range(len(sealed)):
        with pytest.raises(Undecipherable):
            decapsulate(edge.sealing_key, INFO, sealed[:length])
    # RFC 7748 ignores the top bit of a coordinate, but HPKE hashes the encapsulated key as it came.
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Undecipherable):
            decapsulate(edge.sealing_key, INFO, bytes(flipped))


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), (2**255 - 20).to_bytes(32, "little")])
def test_an_encapsulated_key_of_small_order_is_refused(edge: Identity, point: bytes) -> None:
    with pytest.raises(Undecipherable):
        decapsulate(edge.sealing_key, INFO, point + bytes(48))


@given(st.binary(min_size=SEALED_KEY_BYTES, max_size=SEALED_KEY_BYTES))
def test_arbitrary_bytes_do_not_open(sealed: bytes) -> None:
    with pytest.raises(Undecipherable):
        decapsulate(RECIPIENT, INFO, sealed)


def test_only_whole_keys_are_sealed(edge: Identity, entropy: Callable[[int], bytes]) -> None:
    for length in (0, 16, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            encapsulate(edge.sealing_key.public_key(), INFO, entropy(length))


HYBRID = draw(Kem.MLKEM768_X25519, random.Random(5).randbytes)
OTHER_HYBRID = draw(Kem.MLKEM768_X25519, random.Random(6).randbytes)


def test_a_key_sealed_with_both_kems_opens_at_its_recipient_alone(edge: Identity) -> None:
    sealed = encapsulate(HYBRID.public_key(), INFO, KEY)
    assert len(sealed) == HYBRID_SEALED_KEY_BYTES
    assert decapsulate(HYBRID, INFO, sealed) == KEY
    for recipient, info in ((OTHER_HYBRID, INFO), (HYBRID, INFO + b"x"), (edge.sealing_key, INFO)):
        with pytest.raises(Undecipherable):
            decapsulate(recipient, info, sealed)
    with pytest.raises(Undecipherable):
        decapsulate(HYBRID, INFO, encapsulate(edge.sealing_key.public_key(), INFO, KEY))


def test_both_parts_of_a_hybrid_key_are_needed() -> None:
    assert isinstance(HYBRID, HybridPrivateKey)
    assert isinstance(OTHER_HYBRID, HybridPrivateKey)
    sealed = encapsulate(HYBRID.public_key(), INFO, KEY)
    for mlkem, x25519 in ((HYBRID.mlkem, OTHER_HYBRID.x25519), (OTHER_HYBRID.mlkem, HYBRID.x25519)):
        with pytest.raises(Undecipherable):
            decapsulate(HybridPrivateKey(mlkem, x25519), INFO, sealed)


def test_a_hybrid_sealed_key_that_was_changed_anywhere_is_refused() -> None:
    sealed = encapsulate(HYBRID.public_key(), INFO, KEY)
    for place in range(len(sealed)):
        with pytest.raises(Undecipherable):
            decapsulate(HYBRID, INFO, sealed[:place] + bytes([sealed[place] ^ 1 << place % 8]) + sealed[place + 1 :])
        with pytest.raises(Undecipherable):
            decapsulate(HYBRID, INFO, sealed[:place])


def test_public_keys_of_both_kinds_come_back_from_their_bytes_and_others_are_refused(edge: Identity) -> None:
    for key in (HYBRID.public_key(), edge.sealing_key.public_key()):
        assert public_key(key.public_bytes_raw()).public_bytes_raw() == key.public_bytes_raw()
    raw = HYBRID.public_key().public_bytes_raw()
    for wrong in (raw[:-1], raw + b"x", raw[:-32] + bytes(32), b"\xff" * 1_184 + raw[-32:], b""):
        with pytest.raises(ValueError, match="key"):
            public_key(wrong)


def test_a_node_that_was_enrolled_so_is_sealed_to_with_both_kems(
    acme: Authority, trust: Trust, now: Instant, entropy: Callable[[int], bytes], tmp_path: Path
) -> None:
    enrolled = acme.enrol(node_name("acme/pq"), Role.EDGE, now=now, kem=Kem.MLKEM768_X25519, entropy=entropy)
    enrolled.save(tmp_path / "identity")
    edge = Identity.load(tmp_path / "identity")
    peer = trust.verify(edge.certificate, now)
    assert peer.sealing_key.public_bytes_raw() == enrolled.sealing_key.public_key().public_bytes_raw()
    sealed = encapsulate(peer.sealing_key, INFO, KEY)
    assert len(sealed) == HYBRID_SEALED_KEY_BYTES
    assert decapsulate(edge.sealing_key, INFO, sealed) == KEY
    renewed = acme.renew(edge, now=now, entropy=entropy)
    assert trust.verify(renewed, now).sealing_key.public_bytes_raw() == peer.sealing_key.public_bytes_raw()


def test_half_a_hybrid_key_is_no_key(acme: Authority, now: Instant, tmp_path: Path) -> None:
    acme.enrol(node_name("acme/pq"), Role.EDGE, now=now, kem=Kem.MLKEM768_X25519).save(tmp_path / "identity")
    file = tmp_path / "identity" / "sealing.key"
    blocks = file.read_bytes().split(b"-----BEGIN")[1:]
    for kept in (blocks[:1], blocks[1:], blocks[::-1], [*blocks, blocks[1]]):
        file.write_bytes(b"".join(b"-----BEGIN" + each for each in kept))
        with pytest.raises(ConfigError):
            Identity.load(tmp_path / "identity")
