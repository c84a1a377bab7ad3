"""``datasync enroll revoke|renew``: lists that nodes and brokers take, and certificates that go on."""

import json
import os
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509

from datasync.cli.main import main
from datasync.domain.clock import Instant
from datasync.domain.errors import SignerRevoked
from datasync.protocol import revocations
from datasync.security.identity import Identity
from datasync.security.trust import Trust

DAY_MS = 86_400_000


class Site:
    """An authority with an edge and two devices, and what its lists do to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "authority"
        assert main(["enroll", "ca", "acme", "--folder", str(self.authority)]) == 0
        for role, name in (("edge", "acme/cbd"), ("device", "watch-1"), ("device", "watch-2")):
            self.enroll(role, name)

    def enroll(self, role: str, name: str, into: str = "") -> None:
        home = self.folder / (into or name.replace("/", "."))
        assert main(["enroll", role, name, "--authority", str(self.authority), "--folder", str(home)]) == 0

    def identity(self, name: str, part: str = "identity") -> Identity:
        return Identity.load(self.folder / name / part)

    def revoke(self, *what: str) -> int:
        out, crl = (str(self.folder / name) for name in ("revoked.cose", "crl.pem"))
        return main(["enroll", "revoke", *what, "--authority", str(self.authority), "--out", out, "--crl-out", crl])

    def is_refused(self, certificate: bytes) -> bool:
        trust = Trust.load(self.authority / "authority.pem")
        trust.revoke(*revocations.read((self.folder / "revoked.cose").read_bytes(), trust))
        try:
            trust.verify(certificate, Instant(time.time_ns() // 1_000_000, 0))
        except SignerRevoked:
            return True
        return False

    def in_crl(self, certificate: bytes) -> bool:
        crl = x509.load_pem_x509_crl((self.folder / "crl.pem").read_bytes())
        authority = x509.load_pem_x509_certificate((self.authority / "authority.pem").read_bytes())
        assert crl.is_signature_valid(authority.public_key())
        serial = x509.load_der_x509_certificate(certificate).serial_number
        return crl.get_revoked_certificate_by_serial_number(serial) is not None


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_node_is_revoked_by_its_name_or_by_its_certificate_and_the_list_grows(site: Site) -> None:
    assert site.revoke("watch-1") == 0
    assert site.is_refused(site.identity("watch-1").certificate)
    assert not site.is_refused(site.identity("watch-2").certificate)
    assert site.revoke(str(site.folder / "watch-2" / "identity" / "certificate.pem")) == 0
    for name in ("watch-1", "watch-2"):
        assert site.is_refused(site.identity(name).certificate)
        assert site.in_crl(site.identity(name).certificate)
    assert not site.in_crl(site.identity("acme.cbd").certificate)


def test_a_servers_broker_is_revoked_with_it(site: Site) -> None:
    assert site.revoke("acme/cbd") == 0
    assert site.is_refused(site.identity("acme.cbd").certificate)
    assert site.is_refused(site.identity("acme.cbd", "broker").certificate)


def test_a_node_that_is_enrolled_again_after_it_was_revoked_is_trusted(site: Site) -> None:
    assert site.revoke("watch-1") == 0
    site.enroll("device", "watch-1", into="again")
    assert not site.is_refused(site.identity("again").certificate)
    assert site.is_refused(site.identity("watch-1").certificate)


def test_what_the_authority_did_not_issue_it_cannot_revoke(site: Site, tmp_path: Path, capsys) -> None:
    assert site.revoke("watch-9") == 1
    assert "no certificate was issued to 'watch-9' here" in capsys.readouterr().err
    other = Site(tmp_path / "other")
    assert site.revoke(str(other.folder / "watch-1" / "identity" / "certificate.pem")) == 1
    assert not (site.folder / "revoked.cose").exists()


def test_a_renewed_certificate_has_the_same_name_and_keys_and_lasts_longer(site: Site, capsys) -> None:
    before = [site.identity("acme.cbd", part) for part in ("identity", "broker")]
    home, authority = str(site.folder / "acme.cbd"), str(site.authority)
    capsys.readouterr()
    assert main(["enroll", "renew", "--folder", home, "--authority", authority, "--days", "700", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["renewed"] == 2
    after = [site.identity("acme.cbd", part) for part in ("identity", "broker")]
    trust = Trust.load(site.folder / "acme.cbd" / "trust")
    for old, new in zip(before, after, strict=True):
        assert (new.name, new.role, new.secret) == (old.name, old.role, old.secret)
        assert new.certificate != old.certificate
        assert new.validity.last_ms - old.validity.last_ms > 300 * DAY_MS
        later = Instant(time.time_ns() // 1_000_000 + 600 * DAY_MS, 0)
        assert trust.verify(new.certificate, later).verify_key == old.signing_key.public_key()


def test_a_nodes_former_certificates_are_revoked_with_it(site: Site) -> None:
    former = site.identity("watch-1").certificate
    home, authority = str(site.folder / "watch-1"), str(site.authority)
    assert main(["enroll", "renew", "--folder", home, "--authority", authority]) == 0
    assert site.revoke("watch-1") == 0
    assert site.is_refused(former)
    assert site.is_refused(site.identity("watch-1").certificate)


def test_another_authority_cannot_renew(site: Site, tmp_path: Path) -> None:
    other, home = Site(tmp_path / "other"), site.folder / "watch-1"
    before = (home / "identity" / "certificate.pem").read_bytes()
    assert main(["enroll", "renew", "--folder", str(home), "--authority", str(other.authority)]) == 1
    assert (home / "identity" / "certificate.pem").read_bytes() == before


def test_a_broker_that_runs_as_somebody_else_goes_on_reading_its_files(site: Site) -> None:
    broker = site.folder / "acme.cbd" / "broker" / "certificate.pem"
    owner = 65_534 if os.geteuid() == 0 else os.geteuid()
    os.chown(broker, owner, -1)
    site.revoke("watch-1")
    assert main(["enroll", "renew", "--folder", str(broker.parents[1]), "--authority", str(site.authority)]) == 0
    assert (broker.stat().st_uid, stat.S_IMODE(broker.stat().st_mode)) == (owner, 0o600)
    assert stat.S_IMODE((site.folder / "crl.pem").stat().st_mode) == 0o644
