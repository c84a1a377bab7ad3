"""Certificates of workers and administrators: made by the commands, shown by them, and taken by a running cloud."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasync.cli.main import main
from datasync.nodes.shell import system_clock
from datasync.security.certificates import Role
from datasync.security.identity import Identity
from datasync.security.trust import Trust
from tests.unit.cli.conftest import Site

DAY_MS = 86_400_000
VIEW = ("view", "motion", "--purpose", "improve.train")


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "authority"
    assert main(["enroll", "ca", "acme", "--folder", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "name", "role"),
    [
        (("worker", "edge-coach"), "acme/edge-coach", Role.WORKER),
        (("admin", "acme/alice"), "acme/alice", Role.ADMIN),
    ],
)
def test_a_client_gets_a_short_lived_certificate_and_a_key_that_is_its_own(
    authority: Path, words: tuple[str, ...], name: str, role: Role, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = authority.parent / "client"
    capsys.readouterr()
    assert main(["enroll", *words, "--authority", str(authority), "--folder", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    identity = Identity.load(folder)
    peer = Trust.load(authority / "authority.pem").verify(identity.certificate, system_clock())
    assert (peer.name, peer.role) == (name, role) == (told["name"], role)
    assert "token" not in told
    assert identity.validity.last_ms - system_clock().wall_ms <= 30 * DAY_MS
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "words",
    [
        ("worker", "edge-coach"),
        ("worker", "edge-coach", "--authority", "AUTHORITY"),
        ("worker", "edge-coach", "--folder", "client"),
        ("worker", "Edge Coach", "--authority", "AUTHORITY", "--folder", "client"),
        ("worker", "edge-coach", "--authority", "AUTHORITY", "--folder", "AUTHORITY"),
        ("admin", "acme/alice"),
        ("admin", "--authority", "AUTHORITY", "--folder", "client"),
        ("admin", "alice", "--authority", "AUTHORITY", "--folder", "client"),
        ("admin", "borealis/bob", "--authority", "AUTHORITY", "--folder", "client"),
    ],
)
def test_what_makes_no_client_is_refused_and_leaves_nothing(
    authority: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(authority.parent)
    assert main(["enroll", *(str(authority) if word == "AUTHORITY" else word for word in words)]) == 1
    assert "[CONFIG_INVALID]" in capsys.readouterr().err
    assert not Path("client").exists()


def test_a_client_is_revoked_and_renewed_by_its_name_and_nobody_else_is(
    authority: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("acme/alice", "acme/alice-2", "acme/alice-ab"):
        folder = authority.parent / name.rpartition("/")[2]
        made = ["enroll", "admin", name, "--authority", str(authority), "--folder", str(folder)]
        assert main(made) == 0
    folder = authority.parent / "alice"
    before = Identity.load(folder)
    assert main(["enroll", "renew", "--folder", str(folder), "--authority", str(authority), "--days", "3"]) == 0
    renewed = Identity.load(folder)
    assert renewed.signing_key.public_key() == before.signing_key.public_key()
    assert renewed.certificate != before.certificate
    capsys.readouterr()
    out = str(authority.parent / "revoked.cose")
    assert main(["enroll", "revoke", "acme/alice", "--authority", str(authority), "--out", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revoked"] == ["acme/alice"]


class SecureSite(Site):
    """A cloud whose API speaks TLS and requires certificates, and answers probes beside it."""

    @property
    def api(self) -> str:
        return f"https://127.0.0.1:{self.http['edge']}"

    def enrolled(self, *words: str) -> tuple[str, ...]:
        """Make a client; return the options with which it shows itself to the cloud, and to nobody else."""
        authority, folder = self.folder / "authority", self.folder / f"client-{words[1].rpartition('/')[2]}"
        self.done("enroll", *words, "--authority", str(authority), "--folder", str(folder))
        return self.shown(folder)

    def shown(self, folder: Path | None) -> tuple[str, ...]:
        ca = str(self.folder / "authority" / "authority.pem")
        node = ("--url", self.api, "--ca", ca, "--peer", "acme/cloud")
        return node if folder is None else (*node, "--cert", str(folder))


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[SecureSite]:
    site = SecureSite(tmp_path)
    site.set_up()
    # what is ready is asked for where probes are answered, which here has the port that other sites' APIs have
    probed, api = str(site.http["cloud"]), str(site.http["edge"])
    try:
        site.start("cloud", DATABASE="sqlite:///cloud.db", HTTP__TLS="true", HTTP__PORT=api, HTTP__PROBES_PORT=probed)
        site.wait_ready("cloud")
        yield site
    finally:
        for node in list(site.processes):
            site.stop(node)


def test_with_certificates_a_worker_is_registered_reads_and_is_revoked_and_a_token_needs_one_too(
    secure: SecureSite, tmp_path: Path
) -> None:
    admin = secure.enrolled("admin", "acme/alice")
    worker = secure.shown(secure.folder / "trainer")
    issuing = ("--authority", str(secure.folder / "authority"))
    certify = (*issuing, "--folder", str(secure.folder / "trainer"), "--json")
    told: dict[str, Any] = json.loads(secure.done("enroll", "worker", "cloud-trainer", *admin, *certify, token=""))
    assert "token" not in told
    assert told["in_policy"]
    secure.done(*VIEW, *worker, token="")
    listed = str(tmp_path / "revoked.cose")
    secure.done("enroll", "revoke", "acme/cloud-trainer", *issuing, "--out", listed)
    secure.done("enroll", "push-revocations", listed, *admin, token="")
    refused = secure.datasync(*VIEW, *worker, token="")
    assert refused.returncode == 1
    assert refused.stderr.rstrip().endswith("[CERTIFICATE_REVOKED]")
    assert "acme/cloud" in secure.done("status", *admin, token="")
    refused = secure.datasync("status", *secure.shown(None))
    assert (refused.returncode, refused.stderr.rstrip()[-14:]) == (1, "[PEER_REFUSED]")
    assert "acme/cloud" in secure.done("status", *secure.shown(secure.folder / "cloud" / "identity"))


def test_a_key_that_others_can_read_is_refused_with_the_command_that_sets_it_right(
    authority: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = authority.parent / "client"
    assert main(["enroll", "admin", "acme/careless", "--authority", str(authority), "--folder", str(folder)]) == 0
    (folder / "signing.key").chmod(0o644)
    monkeypatch.setenv("DATASYNC_CERT", str(folder))
    node = ["--url", "https://127.0.0.1:1", "--ca", str(authority / "authority.pem")]
    assert main(["status", *node]) == 1
    assert f"chmod 600 {folder}/signing.key" in capsys.readouterr().err


def test_who_has_neither_token_nor_certificate_is_told_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", "https://127.0.0.1:1"]) == 1
    assert "--cert" in capsys.readouterr().err
