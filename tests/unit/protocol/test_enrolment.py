"""A device's enrolment as a text: it comes back whole or not at all, and says nothing to who has no code."""

import os
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import segno
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from datasync.domain.clock import Instant
from datasync.domain.errors import (
    EnrolmentCodeWrong,
    EnrolmentDamaged,
    EnrolmentExpired,
    EnrolmentInvalid,
    EnrolmentTooLarge,
)
from datasync.domain.ids import node_name
from datasync.protocol import cbor, enrolment
from datasync.protocol.enrolment import PREFIX, Enrolment
from datasync.security import base45, compact, passphrase
from datasync.security.certificates import Role
from datasync.security.passphrase import Cost
from datasync.security.sealing import Kem
from datasync.security.trust import Authority

NOW = Instant(1_769_900_000_000, 0)
HOUR_MS = 3_600_000
CHEAP = Cost(n=2, r=1, p=1)
CODE = "7KQD-2M0X-9TZA-1B4C"
ACME, BOREALIS = Authority.create("acme", NOW), Authority.create("borealis", NOW)


def enrolled(kem: Kem = Kem.X25519, days: int = 365) -> Enrolment:
    device = ACME.enrol(node_name("watch-7"), Role.DEVICE, now=NOW, kem=kem, days=days)
    authorities = ACME.certificate, BOREALIS.certificate
    return Enrolment(device, authorities, node_name("acme/cbd"), "mqtts://cbd.example:8884", NOW.wall_ms + HOUR_MS)


WHOLE = enrolled()


def pack(whole: Enrolment, **options: Any) -> str:
    return enrolment.pack(whole, CODE, os.urandom, cost=CHEAP, **options)


def unpack(text: str, code: str = CODE, now: Instant = NOW) -> Enrolment:
    return enrolment.unpack(text, code, now, os.urandom, cost=CHEAP)


def sealed(content: bytes) -> str:
    """Return the text of any content, as who has the code could make it."""
    salt = os.urandom(16)
    key = passphrase.stretch(CODE.replace("-", ""), salt, CHEAP)
    data = salt + AESGCM(key).encrypt(bytes(12), content, b"datasync/enrolment/1")
    return PREFIX + base45.encode(data + enrolment._checksum(data))


def content(whole: Enrolment) -> list[Any]:
    return enrolment._packed(whole, None)


@pytest.mark.parametrize("kem", Kem)
def test_an_enrolment_comes_back_with_a_secret_of_its_own(kem: Kem) -> None:
    whole = enrolled(kem)
    back = unpack(pack(whole))
    assert back.identity.secret != whole.identity.secret
    assert replace(back, identity=whole.identity) == whole
    assert back.identity.certificate == whole.identity.certificate
    assert back.identity.signing_key.private_bytes_raw() == whole.identity.signing_key.private_bytes_raw()
    assert back.identity.sealing_key.public_key().public_bytes_raw() in whole.identity.certificate
    assert unpack(pack(whole)).identity.secret != back.identity.secret


def test_an_identity_that_was_in_use_keeps_its_secret() -> None:
    whole = enrolled()
    assert unpack(pack(whole, with_secret=True)).identity.secret == whole.identity.secret


@pytest.mark.parametrize("typed", ["7kqd2m0x9tza1b4c", " 7KQD 2MOX 9TZA IB4C\n", "7KQD-2M0X-9TZA-LB4C"])
def test_a_code_is_the_same_however_it_is_typed(typed: str) -> None:
    assert unpack(pack(enrolled()), typed).edge == "acme/cbd"


def test_codes_are_drawn_from_80_bits() -> None:
    codes = {enrolment.draw_code(os.urandom) for _ in range(100)}
    assert len(codes) == 100
    assert all(len(code.replace("-", "")) * 5 == 80 for code in codes)
    assert enrolment.draw_code(lambda count: b"\xff" * count) == "ZZZZ-ZZZZ-ZZZZ-ZZZZ"


@pytest.mark.parametrize("code", ["", "7KQD", "7KQD-2M0X-9TZA-1B4D", "U" * 16, "7KQD-2M0X-9TZA-1B4C-0000", "ß" * 16])
def test_another_code_opens_nothing(code: str) -> None:
    with pytest.raises(EnrolmentCodeWrong):
        unpack(pack(enrolled()), code)


def test_who_has_no_code_finds_nothing_in_a_picture() -> None:
    whole = enrolled()
    seen = base45.decode(pack(whole, with_secret=True).removeprefix(PREFIX))
    key = whole.identity.signing_key
    for secret in (
        key.private_bytes_raw(),
        key.public_key().public_bytes_raw(),
        whole.identity.secret,
        b"watch",
        b"cbd",
    ):
        assert secret not in seen


def test_what_is_cut_off_anywhere_or_changed_in_any_character_is_damaged() -> None:
    text = pack(enrolled())
    for end in range(len(text)):
        with pytest.raises(EnrolmentDamaged):
            unpack(text[:end])
    for at in range(len(text)):
        with pytest.raises(EnrolmentDamaged):
            unpack(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])


@pytest.mark.parametrize("text", ["", "DS1:", "https://example.com", "DS2:BB8", "DS1:bb8", "DS1:é"])
def test_another_text_is_damaged(text: str) -> None:
    with pytest.raises(EnrolmentDamaged):
        unpack(text)


def test_who_changes_the_checksum_too_needs_the_code_all_the_same() -> None:
    data = bytearray(base45.decode(pack(enrolled()).removeprefix(PREFIX))[:-4])
    for at in (0, 16, len(data) - 1):
        changed = data.copy()
        changed[at] ^= 1
        with pytest.raises(EnrolmentCodeWrong):
            unpack(PREFIX + base45.encode(bytes(changed) + enrolment._checksum(bytes(changed))))


def test_what_is_too_old_is_refused() -> None:
    text = pack(enrolled())
    unpack(text, now=Instant(NOW.wall_ms + HOUR_MS, 0))
    with pytest.raises(EnrolmentExpired):
        unpack(text, now=Instant(NOW.wall_ms + HOUR_MS + 1, 0))


def test_what_is_longer_than_any_qr_code_is_refused_at_both_ends() -> None:
    with pytest.raises(EnrolmentTooLarge):
        unpack(PREFIX + "0" * enrolment.TEXT_CHARACTERS_MAX)
    many = tuple(Authority.create(f"operator-{number}", NOW).certificate for number in range(15))
    with pytest.raises(EnrolmentTooLarge):
        pack(replace(enrolled(), authorities=(ACME.certificate, *many), broker="mqtts://" + "x" * 2_000))


def test_a_certificate_that_is_over_or_of_another_authority_is_refused() -> None:
    whole = enrolled(days=1)
    later = Instant(NOW.wall_ms + 2 * 24 * HOUR_MS, 0)
    with pytest.raises(EnrolmentInvalid, match="no longer valid"):
        unpack(pack(replace(whole, expires_ms=later.wall_ms + HOUR_MS)), now=later)
    foreign = content(whole)
    foreign[6] = [compact.pack_authority(Authority.create("acme", NOW).certificate)]
    with pytest.raises(EnrolmentInvalid):
        unpack(sealed(cbor.dumps(foreign)))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (1, "acme/cbd"),
        (1, "Watch 7"),
        (2, bytes(31)),
        (2, bytes(32)),
        (3, bytes(31)),
        (3, bytes(96)),
        (4, bytes(31)),
        (5, []),
        (5, None),
        (6, []),
        (6, [[]]),
        (7, "cbd"),
        (7, "mallory/cbd"),
        (7, "../../etc"),
        (8, 7),
    ],
)
def test_what_does_not_fit_together_is_refused(at: int, value: object) -> None:
    changed = content(enrolled())
    changed[at] = value
    with pytest.raises(EnrolmentInvalid) as refused:
        unpack(sealed(cbor.dumps(changed)))
    assert refused.value.code == "ENROLMENT_INVALID"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=8) | st.binary(max_size=100),
    lambda inner: st.lists(inner, max_size=7),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(at=st.lists(st.integers(0, 8), min_size=1, max_size=3), value=PLAIN)
def test_whatever_who_has_the_code_changes_inside_is_refused_and_breaks_nothing(at: list[int], value: Any) -> None:
    changed = content(WHOLE)
    part, last = changed, at[0]
    for index in at[1:]:
        if isinstance(part[last], list) and part[last]:
            part, last = part[last], index % len(part[last])
    part[last] = value
    with suppress(EnrolmentInvalid):
        assert unpack(sealed(cbor.dumps(changed))).identity.certificate == WHOLE.identity.certificate


@pytest.mark.parametrize(
    "inside", [b"", b"\xff", b"\x80", cbor.dumps({1: 2}), b"\x9b" + b"\xff" * 8, b"\x81" * 100_000]
)
def test_what_is_no_enrolment_inside_is_refused(inside: bytes) -> None:
    with pytest.raises(EnrolmentInvalid):
        unpack(sealed(inside))


@pytest.mark.parametrize(("kem", "version_max"), [(Kem.X25519, 19), (Kem.MLKEM768_X25519, 20)])
def test_it_fits_a_qr_code_of_half_the_largest_size(kem: Kem, version_max: int) -> None:
    symbol = segno.make(pack(enrolled(kem), with_secret=True), error="m", boost_error=False, micro=False)
    assert symbol.mode == "alphanumeric"
    assert symbol.version <= version_max
