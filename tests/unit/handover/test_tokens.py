"""A device's signed token, opened, and whose device it is."""

import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import MessageError, SignatureInvalid, SignerForeign, SignerUntrusted
from datasync.domain.ids import node_name
from datasync.handover import tokens
from datasync.protocol import cbor, envelope
from datasync.protocol.parts import AttachToken
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority, Trust

NOW = Instant(1_800_000_000_000, 0)
DAY_MS = 86_400_000
WATCH, CBD = node_name("watch-1"), node_name("acme/cbd")
TOKEN = AttachToken(device=WATCH, incarnation=0, epoch=3, edge=CBD, nonce=b"n" * 16, previous=[], handover=None)


@pytest.fixture(scope="module")
def acme() -> Authority:
    return Authority.create("acme", NOW)


@pytest.fixture(scope="module")
def globex() -> Authority:
    return Authority.create("globex", NOW)


@pytest.fixture(scope="module")
def trust(acme: Authority, globex: Authority) -> Trust:
    return Trust([acme.certificate, globex.certificate])


def signed(identity: Identity, token: AttachToken = TOKEN, context: str = AttachToken.CONTEXT) -> bytes:
    return envelope.sign(identity, context, cbor.dumps(token.model_dump()))


def test_a_token_is_the_word_of_the_device_that_it_names(acme: Authority, trust: Trust) -> None:
    watch = acme.enrol(WATCH, Role.DEVICE, now=NOW)
    token, signer = tokens.opened(signed(watch), trust, NOW)
    assert token == TOKEN
    assert (signer.name, signer.operator, signer.certificate) == (WATCH, "acme", watch.certificate)


def test_another_device_or_an_edge_cannot_sign_it(acme: Authority, trust: Trust) -> None:
    for name, role in ((node_name("watch-2"), Role.DEVICE), (CBD, Role.EDGE)):
        with pytest.raises(SignerForeign):
            tokens.opened(signed(acme.enrol(name, role, now=NOW)), trust, NOW)


def test_what_was_signed_for_something_else_is_no_token(acme: Authority, trust: Trust) -> None:
    watch = acme.enrol(WATCH, Role.DEVICE, now=NOW)
    with pytest.raises(SignatureInvalid):
        tokens.opened(signed(watch, context="ds/1/d/watch-1/up"), trust, NOW)
    with pytest.raises(MessageError):
        tokens.opened(envelope.sign(watch, AttachToken.CONTEXT, b"\xa0"), trust, NOW)
    with pytest.raises(MessageError):
        tokens.opened(b"", trust, NOW)


def test_a_stranger_and_one_whose_certificate_ended_are_not_believed(acme: Authority, trust: Trust) -> None:
    stranger = Authority.create("acme", NOW).enrol(WATCH, Role.DEVICE, now=NOW)
    with pytest.raises(SignerUntrusted):
        tokens.opened(signed(stranger), trust, NOW)
    watch = acme.enrol(WATCH, Role.DEVICE, now=NOW, days=1)
    with pytest.raises(SignerUntrusted):
        tokens.opened(signed(watch), trust, Instant(NOW.wall_ms + 2 * DAY_MS, 0))


def test_a_name_is_of_the_operator_that_showed_it_first(acme: Authority, globex: Authority, trust: Trust) -> None:
    ours, renewed, theirs = (each.enrol(WATCH, Role.DEVICE, now=NOW) for each in (acme, acme, globex))
    for identity in (ours, renewed):
        tokens.check_operator(trust.verify(identity.certificate, NOW), "acme")
    imposter = trust.verify(theirs.certificate, NOW)
    tokens.check_operator(imposter, "")
    with pytest.raises(SignerForeign, match="globex"):
        tokens.check_operator(imposter, "acme")
