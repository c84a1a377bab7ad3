from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

from datasync.domain.errors import Undecipherable
from datasync.security.identity import Identity
from datasync.security.sealing import SEALED_KEY_BYTES, decapsulate, encapsulate

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
