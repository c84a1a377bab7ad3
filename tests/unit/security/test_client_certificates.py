"""Certificates of workers and administrators: for HTTP APIs, for the calling end, and for their own operator alone."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, MessageError, SignerForeign, SignerUntrusted
from datasync.domain.ids import NodeName, node_name
from datasync.protocol import envelope, topics
from datasync.security import certificates
from datasync.security.certificates import CLIENTS, Role
from datasync.security.trust import Authority, Trust

NOW = Instant(1_769_900_000_000, 0)
ACME = Authority.create("acme", NOW)
NAME = node_name("acme/cbd")


@pytest.mark.parametrize("role", sorted(CLIENTS))
def test_a_client_has_no_name_at_a_broker_that_a_topic_could_carry(role: Role) -> None:
    certificate = x509.load_der_x509_certificate(ACME.enrol(NAME, role, now=NOW).certificate)
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == f"{role}:acme.cbd"
    with pytest.raises(MessageError):
        topics.parse(f"ds/1/d/{common_name.value}/up")


@pytest.mark.parametrize("role", sorted(CLIENTS))
def test_a_clients_certificate_is_for_the_calling_end(role: Role) -> None:
    certificate = x509.load_der_x509_certificate(ACME.enrol(NAME, role, now=NOW).certificate)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("role", sorted(CLIENTS))
def test_a_client_signs_no_messages(role: Role) -> None:
    signed = envelope.sign(ACME.enrol(NAME, role, now=NOW), "context", b"body")
    with pytest.raises(SignerForeign):
        envelope.verify(signed, "context", Trust([ACME.certificate]), NOW, bytes_max=4096)


@pytest.mark.parametrize("role", sorted(CLIENTS))
@pytest.mark.parametrize("name", ["borealis/cbd", "cbd"])
def test_an_authority_vouches_for_clients_of_its_own_operator_alone(role: Role, name: str) -> None:
    with pytest.raises(ConfigError):
        ACME.enrol(NodeName(name), role, now=NOW)
    certificate = certificates.issue_node(
        NodeName(name),
        role,
        Ed25519PrivateKey.generate().public_key(),
        X25519PrivateKey.generate().public_key(),
        authority=certificates.read_authority(ACME.certificate),
        key=ACME.key,
        now=NOW,
        days=1,
        serial=1,
    )
    with pytest.raises(SignerUntrusted):
        Trust([ACME.certificate]).verify(certificate, NOW)
