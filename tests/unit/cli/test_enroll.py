"""``datasync enroll``: what it makes can be loaded by a node and is trusted by the others."""

import json
import stat
import time
from pathlib import Path

import pytest

from datasync.cli.main import main
from datasync.domain.clock import Instant
from datasync.security.files import read_key
from datasync.security.identity import Identity, Role
from datasync.security.sealing import HybridPrivateKey
from datasync.security.trust import Trust
from datasync.store.workers import token_hash


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "authority"
    assert main(["enroll", "ca", "acme", "--folder", str(folder)]) == 0
    return folder


def enroll(role: str, name: str, authority: Path, *more: str) -> tuple[int, Path]:
    folder = authority.parent / role
    return main(["enroll", role, name, "--authority", str(authority), "--folder", str(folder), *more]), folder


@pytest.mark.parametrize(("role", "name"), [("device", "watch-7"), ("edge", "acme/cbd"), ("cloud", "acme/cloud")])
def test_a_node_gets_all_that_its_configuration_wants(role: str, name: str, authority: Path) -> None:
    code, folder = enroll(role, name, authority)
    assert code == 0
    identity = Identity.load(folder / "identity")
    peer = Trust.load(folder / "trust").verify(identity.certificate, Instant(time.time_ns() // 1_000_000, 0))
    assert (peer.name, peer.role, peer.operator) == (name, Role(role), "acme")
    assert len(read_key(folder / "keys" / "node.key")) == 32


@pytest.mark.parametrize(("role", "name"), [("edge", "acme/cbd"), ("cloud", "acme/cloud")])
def test_a_server_gets_an_identity_for_its_broker_which_has_nothing_of_its_own(
    role: str, name: str, authority: Path
) -> None:
    _, folder = enroll(role, name, authority, "--host", "edge.example")
    own, broker = Identity.load(folder / "identity"), Identity.load(folder / "broker")
    assert (broker.name, broker.role) == (name, Role.BROKER)
    assert broker.secret != own.secret
    assert broker.signing_key.public_key() != own.signing_key.public_key()
    assert b"edge.example" in own.certificate
    assert b"edge.example" in broker.certificate


def test_a_device_gets_no_broker(authority: Path) -> None:
    _, folder = enroll("device", "watch-7", authority)
    assert not (folder / "broker").exists()


def test_secrets_are_readable_by_their_owner_alone(authority: Path) -> None:
    _, folder = enroll("edge", "acme/cbd", authority)
    found = [path for root in (authority, folder / "identity", folder / "keys") for path in root.rglob("*")]
    files = [path for path in found if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_what_to_configure_is_printed_as_toml(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = enroll("edge", "acme/cbd", authority)
    assert f'identity = "{folder}/identity"\n' in capsys.readouterr().out


def test_nothing_is_overwritten_and_nothing_is_half_made(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = enroll("edge", "acme/cbd", authority)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert enroll("edge", "acme/other", authority)[0] == 1
    assert "not overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_authority_enrols_no_other_operators_edge(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = enroll("edge", "borealis/north", authority)
    assert code == 1
    assert "[CONFIG_INVALID]" in capsys.readouterr().err
    assert not folder.exists()


def test_another_operators_authority_can_be_trusted_besides(authority: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    main(["enroll", "ca", "borealis", "--folder", str(other)])
    _, folder = enroll("edge", "acme/cbd", authority, "--trust", str(other / "authority.pem"))
    assert sorted(path.name for path in (folder / "trust").iterdir()) == ["acme.pem", "borealis.pem"]
    Trust.load(folder / "trust")


def test_a_file_that_is_no_authority_is_refused_before_anything_is_made(authority: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing")
    code, folder = enroll("edge", "acme/cbd", authority, "--trust", str(wrong))
    assert code == 1
    assert not folder.exists()


@pytest.mark.parametrize("days", ["0", "-1", "100000", "x"])
def test_days_are_bounded(days: str, authority: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        enroll("edge", "acme/cbd", authority, "--days", days)
    assert exit_.value.code == 2


def test_an_administrators_token_comes_with_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enroll", "admin", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["admin_token_hash"] == token_hash(made["token"])
    assert len(made["token"]) >= 43


def test_a_node_may_be_sealed_to_so_that_quantum_computers_do_not_open_it(authority: Path) -> None:
    code, folder = enroll("edge", "acme/cbd", authority, "--kem", "mlkem768-x25519")
    assert code == 0
    assert isinstance(Identity.load(folder / "identity").sealing_key, HybridPrivateKey)
