import contextlib
import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, SignerUntrusted
from datasync.domain.ids import NodeName, node_name
from datasync.domain.limits import CERTIFICATE_BYTES_MAX, PEERS_CACHED_MAX
from datasync.security import certificates
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority, Trust

DAY_MS = 86_400_000
Entropy = Callable[[int], bytes]


def forge(
    authority: Authority,
    now: Instant,
    *,
    name: str = "watch-7",
    role: Role = Role.DEVICE,
    key: Ed25519PrivateKey | None = None,
    verify_key: Ed25519PublicKey | None = None,
    sealing_key: X25519PublicKey | None = None,
) -> bytes:
    """What the holder of an authority's key could sign, whatever `enrol` would say to it."""
    return certificates.issue_node(
        NodeName(name),
        role,
        verify_key or Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
        sealing_key or X25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
        authority=certificates.read_authority(authority.certificate),
        key=key or authority.key,
        now=now,
        days=1,
        serial=7,
    )


def rebuild(authority: Authority, certificate: bytes, extensions: list[tuple[x509.ExtensionType, bool]]) -> bytes:
    """The same certificate with other extensions, signed by the authority again."""
    old = x509.load_der_x509_certificate(certificate)
    key = old.public_key()
    assert isinstance(key, Ed25519PublicKey)
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, key, 9, old.not_valid_before_utc, old.not_valid_after_utc
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(authority.key, None).public_bytes(Encoding.DER)


def extensions_of(certificate: bytes) -> dict[str, tuple[x509.ExtensionType, bool]]:
    loaded = x509.load_der_x509_certificate(certificate)
    return {type(each.value).__name__: (each.value, each.critical) for each in loaded.extensions}


def uris(*values: str) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(value) for value in values]), True


def test_a_certificate_proves_name_role_operator_and_keys(trust: Trust, edge: Identity, now: Instant) -> None:
    peer = trust.verify(edge.certificate, now)
    assert (peer.name, peer.role, peer.operator) == ("acme/cbd", Role.EDGE, "acme")
    assert peer.verify_key == edge.signing_key.public_key()
    assert peer.sealing_key == edge.sealing_key.public_key()
    assert peer.certificate == edge.certificate


def test_a_device_is_proved_by_the_operator_that_enrolled_it(
    trust: Trust, borealis: Authority, now: Instant, entropy: Entropy
) -> None:
    device = borealis.enrol(node_name("car-1"), Role.DEVICE, now=now, entropy=entropy)
    assert trust.verify(device.certificate, now).operator == "borealis"


@pytest.mark.parametrize("role", [Role.EDGE, Role.CLOUD, Role.POLICY])
def test_an_operator_cannot_vouch_for_another_operators_node(
    trust: Trust, borealis: Authority, now: Instant, role: Role
) -> None:
    with pytest.raises(SignerUntrusted, match="borealis may not vouch for 'acme/cbd'"):
        trust.verify(forge(borealis, now, name="acme/cbd", role=role), now)
    with pytest.raises(ConfigError, match="not borealis's"):
        borealis.enrol(node_name("acme/cbd"), role, now=now)


def test_an_authority_that_is_not_trusted_proves_nothing(acme: Authority, now: Instant, entropy: Entropy) -> None:
    impostor = Authority.create("acme", now, entropy=entropy)
    node = impostor.enrol(node_name("acme/cbd"), Role.EDGE, now=now, entropy=entropy)
    with pytest.raises(SignerUntrusted, match="no trusted operator's authority"):
        Trust([acme.certificate]).verify(node.certificate, now)


def test_two_authorities_of_one_operator_may_overlap(acme: Authority, now: Instant, entropy: Entropy) -> None:
    successor = Authority.create("acme", now, entropy=entropy)
    trust = Trust([acme.certificate, successor.certificate])
    for authority in (acme, successor):
        node = authority.enrol(node_name("acme/cbd"), Role.EDGE, now=now, entropy=entropy)
        assert trust.verify(node.certificate, now).name == "acme/cbd"


def test_a_node_cannot_vouch_for_others(trust: Trust, acme: Authority, edge: Identity, now: Instant) -> None:
    with pytest.raises(SignerUntrusted):
        trust.verify(forge(acme, now, key=edge.signing_key), now)


def test_validity_is_asked_at_every_use(trust: Trust, edge: Identity, now: Instant) -> None:
    trust.verify(edge.certificate, now)
    early = Instant(now.wall_ms - certificates.BACKDATED_MS - 1, 0)
    late = Instant(now.wall_ms + 365 * DAY_MS + 1, 0)
    with pytest.raises(SignerUntrusted, match="not yet valid"):
        trust.verify(edge.certificate, early)
    with pytest.raises(SignerUntrusted, match="no longer valid"):
        trust.verify(edge.certificate, late)
    assert trust.verify(edge.certificate, Instant(late.wall_ms - 1, 0)).name == edge.name
    assert trust.verify(edge.certificate, Instant(early.wall_ms + 1, 0)).name == edge.name


def test_an_expired_authority_proves_nothing(now: Instant, entropy: Entropy) -> None:
    authority = Authority.create("acme", now, days=1, entropy=entropy)
    node = authority.enrol(node_name("watch-7"), Role.DEVICE, now=now, days=30, entropy=entropy)
    trust = Trust([authority.certificate])
    assert trust.verify(node.certificate, now).name == "watch-7"
    with pytest.raises(SignerUntrusted, match="no longer valid"):
        trust.verify(node.certificate, Instant(now.wall_ms + 2 * DAY_MS, 0))


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("acme/cbd", Role.DEVICE),
        ("watch-7", Role.EDGE),
        ("watch-7", Role.CLOUD),
        ("policy", Role.POLICY),
        ("Watch", Role.DEVICE),
        ("a/b/c", Role.EDGE),
        ("watch-7", Role.BROKER),
    ],
)
def test_a_name_must_fit_its_role(trust: Trust, acme: Authority, now: Instant, name: str, role: Role) -> None:
    with pytest.raises(SignerUntrusted):
        trust.verify(forge(acme, now, name=name, role=role), now)
    with pytest.raises(ConfigError):
        acme.enrol(NodeName(name), role, now=now)


SMALL_ORDER = Ed25519PublicKey.from_public_bytes(bytes(32))
SMALL_ORDER_SEALING = X25519PublicKey.from_public_bytes(bytes(32))


def test_a_signing_key_of_small_order_is_refused(trust: Trust, acme: Authority, now: Instant) -> None:
    with pytest.raises(SignerUntrusted, match="small order"):
        trust.verify(forge(acme, now, verify_key=SMALL_ORDER), now)


def test_a_sealing_key_of_small_order_is_refused(trust: Trust, acme: Authority, now: Instant) -> None:
    with pytest.raises(SignerUntrusted, match="small order"):
        trust.verify(forge(acme, now, sealing_key=SMALL_ORDER_SEALING), now)


@pytest.mark.parametrize("missing", ["BasicConstraints", "KeyUsage", "SubjectAlternativeName", "UnrecognizedExtension"])
def test_every_extension_of_the_profile_is_needed(
    trust: Trust, acme: Authority, watch: Identity, now: Instant, missing: str
) -> None:
    kept = [each for name, each in extensions_of(watch.certificate).items() if name != missing]
    assert len(kept) == 4
    with pytest.raises(SignerUntrusted):
        trust.verify(rebuild(acme, watch.certificate, kept), now)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("BasicConstraints", (x509.BasicConstraints(ca=True, path_length=None), True)),
        ("KeyUsage", (certificates._key_usage(signs_certificates=True), True)),
        ("SubjectAlternativeName", uris("urn:datasync:device:watch-7", "urn:datasync:device:watch-8")),
        ("SubjectAlternativeName", uris("urn:datasync:operator:acme")),
        ("SubjectAlternativeName", uris("urn:datasync:admin:watch-7")),
        ("SubjectAlternativeName", uris("device:watch-7")),
        ("SubjectAlternativeName", (x509.SubjectAlternativeName([x509.DNSName("watch-7")]), True)),
        ("UnrecognizedExtension", (x509.UnrecognizedExtension(certificates.SEALING_KEY_OID, bytes(34)), False)),
        ("UnrecognizedExtension", (x509.UnrecognizedExtension(certificates.SEALING_KEY_OID, b"\x04\x20abc"), False)),
        ("added", (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)),
    ],
)
def test_an_extension_outside_of_the_profile_is_refused(
    trust: Trust, acme: Authority, watch: Identity, now: Instant, name: str, other: tuple[x509.ExtensionType, bool]
) -> None:
    changed = {**extensions_of(watch.certificate), name: other}
    with pytest.raises(SignerUntrusted):
        trust.verify(rebuild(acme, watch.certificate, list(changed.values())), now)


def test_the_profile_itself_rebuilt_is_accepted(trust: Trust, acme: Authority, watch: Identity, now: Instant) -> None:
    """Without this, the refusals above could all come from the rebuilding."""
    same = rebuild(acme, watch.certificate, list(extensions_of(watch.certificate).values()))
    assert trust.verify(same, now).name == "watch-7"


def test_the_common_name_is_the_name_as_topics_write_it(acme: Authority, edge: Identity, watch: Identity) -> None:
    subjects = [x509.load_der_x509_certificate(each.certificate).subject.rfc4514_string() for each in (edge, watch)]
    assert subjects == ["CN=acme.cbd", "CN=watch-7"]


def test_a_common_name_that_is_not_the_name_is_refused(
    trust: Trust, acme: Authority, watch: Identity, now: Instant
) -> None:
    """A broker goes by the common name, the nodes by the URI: they must not differ."""
    kept, liar = list(extensions_of(watch.certificate).values()), acme.enrol(node_name("watch-8"), Role.DEVICE, now=now)
    with pytest.raises(SignerUntrusted, match="common name watch-7"):
        trust.verify(rebuild(acme, liar.certificate, kept), now)


def test_hosts_stand_beside_the_name_and_do_not_change_it(trust: Trust, acme: Authority, now: Instant) -> None:
    hosts = ("edge.example", "192.0.2.7", "2001:db8::7")
    edge = acme.enrol(node_name("acme/cbd"), Role.EDGE, now=now, hosts=hosts)
    assert trust.verify(edge.certificate, now).name == "acme/cbd"
    names = x509.load_der_x509_certificate(edge.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["edge.example"]
    assert [str(each) for each in names.value.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "2001:db8::7"]


@pytest.mark.parametrize("host", ["", "*.example", "Edge.example", "edge_1", "edge.example:8080", "a" * 64, "-a"])
def test_what_is_no_host_is_refused(acme: Authority, now: Instant, host: str) -> None:
    with pytest.raises(ConfigError, match="is no host"):
        acme.enrol(node_name("acme/cbd"), Role.EDGE, now=now, hosts=[host])


def test_more_hosts_than_a_certificate_has_room_for_are_refused(acme: Authority, now: Instant) -> None:
    with pytest.raises(ConfigError, match=f"more than {CERTIFICATE_BYTES_MAX}"):
        acme.enrol(node_name("acme/cbd"), Role.EDGE, now=now, hosts=[f"edge-{each}.example" for each in range(300)])


def test_a_name_that_is_too_long_for_a_common_name_is_not_enrolled(acme: Authority, now: Instant) -> None:
    with pytest.raises(ConfigError, match="64"):
        acme.enrol(node_name(f"acme/{'a' * 60}"), Role.EDGE, now=now)


def test_only_ed25519_certificates_are_read(trust: Trust, now: Instant) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "acme")])
    moment = datetime.datetime.fromtimestamp(now.wall_ms / 1000, datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, moment, moment + datetime.timedelta(days=1))
    der = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(SignerUntrusted, match="Ed25519"):
        trust.verify(der, now)
    with pytest.raises(ConfigError, match="Ed25519"):
        Trust([der])


def test_a_large_certificate_is_refused_before_it_is_parsed(trust: Trust, now: Instant) -> None:
    with pytest.raises(SignerUntrusted, match="bytes, more than"):
        trust.verify(bytes(CERTIFICATE_BYTES_MAX + 1), now)


def test_every_truncation_and_every_flipped_bit_of_a_certificate_is_refused(
    trust: Trust, watch: Identity, now: Instant
) -> None:
    for length in range(len(watch.certificate)):
        with pytest.raises(SignerUntrusted):
            trust.verify(watch.certificate[:length], now)
    for bit in range(8 * len(watch.certificate)):
        flipped = bytearray(watch.certificate)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignerUntrusted):
            trust.verify(bytes(flipped), now)


NOBODY = Trust([])


@given(st.binary(max_size=600))
def test_arbitrary_bytes_prove_nothing(data: bytes) -> None:
    with pytest.raises(SignerUntrusted):
        NOBODY.verify(data, Instant(0, 0))


@given(st.data())
def test_whatever_a_trusted_authority_signs_is_read_or_refused(data: st.DataObject) -> None:
    """A compromised authority may sign malformed extensions; they are refused, never an unforeseen error."""
    now = Instant(1_750_000_000_000, 0)
    authority = Authority.create("acme", now, entropy=bytes)
    original = forge(authority, now)
    certificate = x509.load_der_x509_certificate(original)
    body = bytearray(certificate.tbs_certificate_bytes)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    signature = authority.key.sign(bytes(body))
    signed = original.replace(certificate.tbs_certificate_bytes, bytes(body)).replace(certificate.signature, signature)
    with contextlib.suppress(SignerUntrusted):
        assert Trust([authority.certificate]).verify(signed, now).operator == "acme"


def test_the_memory_of_proved_certificates_is_bounded(acme: Authority, now: Instant) -> None:
    trust = Trust([acme.certificate])
    for number in range(20):
        trust.verify(forge(acme, now, name=f"watch-{number}"), now)
    assert len(trust._proved) == 20
    assert trust._proved._entries_max == PEERS_CACHED_MAX


def test_trust_is_loaded_from_a_folder_of_certificates_or_from_files(
    acme: Authority, borealis: Authority, edge: Identity, now: Instant, tmp_path: Path
) -> None:
    acme.save(tmp_path / "acme")
    borealis.save(tmp_path / "borealis")
    folder = tmp_path / "trust"
    folder.mkdir()
    (folder / "acme.pem").write_bytes((tmp_path / "acme" / "authority.pem").read_bytes())
    assert Trust.load(folder).verify(edge.certificate, now).operator == "acme"
    assert Trust.load(folder / "acme.pem").verify(edge.certificate, now).operator == "acme"
    with pytest.raises(SignerUntrusted):
        Trust.load([tmp_path / "borealis" / "authority.pem"]).verify(edge.certificate, now)


def test_trust_without_certificates_or_with_bad_ones_is_a_configuration_error(edge: Identity, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no operator's certificate"):
        Trust.load(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Trust.load(tmp_path / "missing.pem")
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"bad\.pem"):
        Trust.load(tmp_path)
    with pytest.raises(ConfigError, match="no operator's authority"):
        Trust([edge.certificate])


def test_an_authority_that_did_not_sign_itself_is_refused(acme: Authority) -> None:
    with pytest.raises(ConfigError, match="not signed by itself"):
        Trust([acme.certificate[:-1] + bytes([acme.certificate[-1] ^ 1])])


def test_a_saved_authority_loads_and_enrols(acme: Authority, trust: Trust, now: Instant, tmp_path: Path) -> None:
    acme.save(tmp_path / "authority")
    loaded = Authority.load(tmp_path / "authority")
    assert loaded == acme
    node = loaded.enrol(node_name("acme/docks"), Role.EDGE, now=now)
    assert trust.verify(node.certificate, now).name == "acme/docks"


def test_an_authority_does_not_load_with_another_key(acme: Authority, borealis: Authority, tmp_path: Path) -> None:
    acme.save(tmp_path / "a")
    borealis.save(tmp_path / "b")
    (tmp_path / "a" / "authority.key").write_bytes((tmp_path / "b" / "authority.key").read_bytes())
    with pytest.raises(ConfigError, match="not the one in the certificate"):
        Authority.load(tmp_path / "a")


@pytest.mark.parametrize("days", [-1, 0, 36_501])
def test_a_certificate_is_valid_for_a_sensible_time(acme: Authority, now: Instant, days: int) -> None:
    with pytest.raises(ConfigError, match="days"):
        Authority.create("acme", now, days=days)
    with pytest.raises(ConfigError, match="days"):
        acme.enrol(node_name("watch-7"), Role.DEVICE, now=now, days=days)


@pytest.mark.parametrize("operator", ["", "acme/cbd", "Acme", "ac me"])
def test_an_operator_needs_a_plain_name(operator: str, now: Instant) -> None:
    with pytest.raises(ConfigError):
        Authority.create(operator, now)
