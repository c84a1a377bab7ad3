"""The numbers of the RFCs, through the functions that datasync uses."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datasync.domain.errors import Undecipherable
from datasync.security import points
from datasync.security.sealing import decapsulate

RFC_8032 = [  # section 7.1: secret key, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2"
        "4655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302ae"
        "eb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28"
        "dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_ed25519_is_that_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert key.public_key().public_bytes_raw().hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    verify_key = points.verify_key(bytes.fromhex(public))
    verify_key.verify(bytes.fromhex(signature), bytes.fromhex(message))
    with pytest.raises(InvalidSignature):
        verify_key.verify(bytes.fromhex(signature), bytes.fromhex(message) + b"\x00")


# The vectors that RFC 9180 refers to (section 7.4, test-vectors.json of cfrg/draft-irtf-cfrg-hpke): mode_base,
# DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
RECIPIENT = bytes.fromhex("497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d")
RECIPIENT_PUBLIC = bytes.fromhex("430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c")
ENCAPSULATED = bytes.fromhex("6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256")
KEY = bytes.fromhex("f50b0609186798729ed0564b36ef2ef8044f1f9d05636874d1f46c819c7a669f")
BASE_NONCE = bytes.fromhex("151d9929e2449747889bc923")
PLAINTEXT = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
CIPHERTEXT = bytes.fromhex("e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a")


def test_the_key_schedule_is_that_of_rfc_9180() -> None:
    """What is sealed under the key and nonce that the vector comes to opens here, as its own ciphertext does there."""
    assert AESGCM(KEY).decrypt(BASE_NONCE, CIPHERTEXT, b"Count-0") == PLAINTEXT
    recipient = X25519PrivateKey.from_private_bytes(RECIPIENT)
    assert recipient.public_key().public_bytes_raw() == RECIPIENT_PUBLIC
    content_key = bytes(range(32))
    sealed = ENCAPSULATED + AESGCM(KEY).encrypt(BASE_NONCE, content_key, b"")
    assert decapsulate(recipient, INFO, sealed) == content_key
    with pytest.raises(Undecipherable):
        decapsulate(recipient, INFO + b"\x00", sealed)
