"""Examples of the COSE working group that fit datasync's profile (github.com/cose-wg/Examples at 53c9d63)."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datasync.protocol import cbor, cose

CONTENT = b"This is the content."
HEADER_CONTENT_TYPE = 3


def test_a_signature_is_that_of_the_example_eddsa_sig_01() -> None:
    """The example has an unprotected kid besides, which no signature covers and which our profile does not have."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = Ed25519PrivateKey.from_private_bytes(secret)
    data = cose.sign(key, b"", CONTENT, {HEADER_CONTENT_TYPE: 0})
    assert data[:1] == bytes.fromhex("D2")
    assert cbor.loads(data[1:]) == [
        bytes.fromhex("A201270300"),
        {},
        CONTENT,
        bytes.fromhex(
            "7142FD2FF96D56DB85BEE905A76BA1D0B7321A95C8C4D3607C5781932B7AFB87"
            "11497DFA751BF40B58B3BCC32300B1487F3DB34085EEF013BF08F4A44D6FEF0D"
        ),
    ]
    cose.parse_signed(data, frozenset({HEADER_CONTENT_TYPE})).verify(key.public_key(), b"")


def test_what_is_sealed_is_that_of_the_example_aes_gcm_enc_03() -> None:
    """The example's key is known beforehand; ours travels in an unprotected header, which no AEAD covers either."""
    key = AESGCM(bytes.fromhex("0F1E2D3C4B5A69788796A5B4C3D2E1F01F2E3D4C5B6A798897A6B5C4D3E2F100"))
    iv = bytes.fromhex("02D1F7E6F26C43D4868D87CE")
    ciphertext = bytes.fromhex("9D64A5A59A3B04867DCCF6B8EF82F7D1A3B25EF84ECA2BC5D7593A96E943859A9CC24AD3")
    data = cose.seal(key, iv, b"sealed key", b"", CONTENT)
    assert data[:1] == bytes.fromhex("D0")
    assert cbor.loads(data[1:]) == [
        bytes.fromhex("A10103"),
        {cose.HEADER_IV: iv, cose.HEADER_SEALED_KEY: b"sealed key"},
        ciphertext,
    ]
    assert cose.parse_sealed(data).open(key, b"") == CONTENT
