"""Certificates without what can be derived: the very same come back, and nothing that is not as ours is packed."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.domain.clock import Instant
from datasync.domain.ids import node_name
from datasync.security import certificates, compact
from datasync.security.certificates import Role
from datasync.security.sealing import Kem
from datasync.security.trust import Authority

NOW = Instant(1_769_900_000_123, 0)
ACME = Authority.create("acme", NOW)
OWN = certificates.read_authority(ACME.certificate)


@pytest.mark.parametrize("kem", Kem)
@pytest.mark.parametrize(("name", "role"), [("watch-7", Role.DEVICE), ("acme/cbd", Role.EDGE), ("acme/x", Role.WORKER)])
@pytest.mark.parametrize("hosts", [(), ("edge.example", "192.0.2.7", "2001:db8::1")])
def test_a_nodes_certificate_comes_back_as_it_was(kem: Kem, name: str, role: Role, hosts: tuple[str, ...]) -> None:
    node = ACME.enrol(node_name(name), role, now=NOW, days=7, hosts=hosts, kem=kem)
    packed = compact.pack_node(node.certificate, OWN)
    public = node.signing_key.public_key(), node.sealing_key.public_key()
    assert compact.unpack_node(packed, node.name, role, *public, OWN) == node.certificate


def test_a_renewed_one_does_so_too() -> None:
    node = ACME.enrol(node_name("watch-7"), Role.DEVICE, now=NOW)
    renewed = ACME.renew(node, now=Instant(NOW.wall_ms + 86_400_500, 0))
    public = node.signing_key.public_key(), node.sealing_key.public_key()
    assert compact.unpack_node(compact.pack_node(renewed, OWN), node.name, node.role, *public, OWN) == renewed


def test_an_authoritys_certificate_comes_back_as_it_was() -> None:
    assert compact.unpack_authority(compact.pack_authority(ACME.certificate)) == ACME.certificate


def test_a_certificate_that_is_made_otherwise_is_not_packed() -> None:
    node = ACME.enrol(node_name("watch-7"), Role.DEVICE, now=NOW)
    builder = certificates.node_builder(
        node.name,
        node.role,
        node.signing_key.public_key(),
        node.sealing_key.public_key(),
        authority=OWN,
        validity=node.validity,
        serial=7,
    ).add_extension(x509.OCSPNoCheck(), critical=False)
    other = builder.sign(ACME.key, None).public_bytes(Encoding.DER)
    with pytest.raises(ValueError, match="not made as this version makes them"):
        compact.pack_node(other, OWN)


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 7), (1, b"short"), (2, b""), (2, b"x" * 21), (3, -1), (4, 1 << 40), (5, b"short"), (5, None)],
)
def test_values_that_make_no_certificate_are_refused(at: int, value: object) -> None:
    packed = compact.pack_authority(ACME.certificate)
    packed[at] = value
    with pytest.raises(ValueError, match=r"packed|bytes|time|packed"):
        compact.unpack_authority(packed)
