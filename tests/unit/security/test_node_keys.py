"""Where a node's key comes from, and what is said when it does not."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from datasync.domain.errors import ConfigError
from datasync.security import node_keys, passphrase
from datasync.security.node_keys import KeyAddress, Kind, Surroundings
from datasync.security.passphrase import Cost

KEY = bytes(range(32))
PASSPHRASE = "correct horse battery"
CHEAP = Cost(n=1 << 10, r=8, p=1)
Entropy = Callable[[int], bytes]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    return folder


def read(text: str, folder: Path, **environment: str) -> bytes:
    return node_keys.read(KeyAddress.parse(text, folder), Surroundings(environment))


@pytest.mark.parametrize("text", ["node.key", "file:node.key", "./keys/../node.key"])
def test_a_bare_path_is_a_file(text: str, tmp_path: Path) -> None:
    address = KeyAddress.parse(text, tmp_path)
    assert address.kind is Kind.FILE
    assert address.path is not None
    assert address.path.resolve() == tmp_path / "node.key"


@pytest.mark.parametrize("text", ["vault:node.key", "passprase:node.key", "file:", "", "env:"])
def test_an_address_that_leads_nowhere_says_what_would(text: str, tmp_path: Path) -> None:
    if text == "":
        text = "kms:"
    with pytest.raises(ValueError, match="passphrase:…"):
        KeyAddress.parse(text, tmp_path)


@pytest.mark.parametrize("text", ["file:node.key", "passphrase:node.key"])
def test_a_key_that_was_written_is_read_again(text: str, secrets: Path, entropy: Entropy) -> None:
    address, around = KeyAddress.parse(text, secrets), Surroundings({"DATASYNC_PASSPHRASE": PASSPHRASE})
    node_keys.write(address, KEY, around, entropy, CHEAP)
    assert node_keys.read(address, around) == KEY
    assert (secrets / "node.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="not overwritten"):
        node_keys.write(address, KEY, around, entropy, CHEAP)


def test_a_wrong_passphrase_opens_nothing(entropy: Entropy) -> None:
    content = passphrase.seal(KEY, PASSPHRASE, entropy, CHEAP)
    assert passphrase.unseal(content, PASSPHRASE, "node.key") == KEY
    with pytest.raises(ConfigError, match=r"node\.key: the passphrase is wrong"):
        passphrase.unseal(content, PASSPHRASE + "!", "node.key")


def test_the_default_cost_is_taken(entropy: Entropy) -> None:
    said = json.loads(content := passphrase.seal(KEY, PASSPHRASE, entropy))
    assert (said["kdf"], said["n"], said["r"], said["p"]) == ("scrypt", 65536, 8, 2)
    assert passphrase.unseal(content, PASSPHRASE, "") == KEY


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1 << 20, "r": 16},
        {"n": 1000},
        {"n": 1 << 30},
        {"p": 1 << 10},
        {"kdf": "none"},
        {"salt": "00"},
        {"more": 1},
        {"sealed": "0" * 96},
        {"n": 1 << 11},
    ],
)
def test_a_file_that_was_changed_is_refused(change: dict[str, object], entropy: Entropy) -> None:
    said = json.loads(passphrase.seal(KEY, PASSPHRASE, entropy, CHEAP)) | change
    with pytest.raises(ConfigError):
        passphrase.unseal(json.dumps(said).encode(), PASSPHRASE, "node.key")


def test_a_short_passphrase_is_not_taken(entropy: Entropy) -> None:
    with pytest.raises(ConfigError, match="12 characters"):
        passphrase.seal(KEY, "short", entropy, CHEAP)


def test_a_passphrase_comes_from_a_file_a_descriptor_or_a_person_and_is_read_once(secrets: Path) -> None:
    file = secrets / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")
    file.chmod(0o600)
    assert Surroundings({"DATASYNC_PASSPHRASE_FILE": str(file)}).passphrase() == PASSPHRASE
    reading, writing = os.pipe()
    os.write(writing, f"{PASSPHRASE}\n".encode())
    os.close(writing)
    around = Surroundings({"DATASYNC_PASSPHRASE_FILE": f"/dev/fd/{reading}"})
    assert (around.passphrase(), around.passphrase()) == (PASSPHRASE, PASSPHRASE)
    os.close(reading)
    asked: list[str] = []
    around = Surroundings({}, lambda text: asked.append(text) or PASSPHRASE)  # type: ignore[func-returns-value]
    assert (around.passphrase(), around.passphrase(), len(asked)) == (PASSPHRASE, PASSPHRASE, 1)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        Surroundings({"DATASYNC_PASSPHRASE_FILE": str(file)}).passphrase()


def test_without_a_passphrase_it_is_said_how_to_give_one(secrets: Path, entropy: Entropy) -> None:
    (secrets / "node.key").write_bytes(passphrase.seal(KEY, PASSPHRASE, entropy, CHEAP))
    (secrets / "node.key").chmod(0o600)
    with pytest.raises(ConfigError, match="DATASYNC_PASSPHRASE_FILE"):
        read("passphrase:node.key", secrets)
    (secrets / "node.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read("passphrase:node.key", secrets, DATASYNC_PASSPHRASE=PASSPHRASE)


def test_a_credential_is_read_from_where_systemd_puts_it(secrets: Path) -> None:
    (secrets / "datasync-node-key").write_text(KEY.hex())
    (secrets / "datasync-node-key").chmod(0o440)  # an access list shows as the group's right
    assert read("credential:datasync-node-key", secrets, CREDENTIALS_DIRECTORY=str(secrets)) == KEY
    with pytest.raises(ConfigError, match="LoadCredential=other:"):
        read("credential:other", secrets, CREDENTIALS_DIRECTORY=str(secrets))
    with pytest.raises(ConfigError, match="LoadCredential"):
        read("credential:datasync-node-key", secrets)
    with pytest.raises(ConfigError, match="no such credential"):
        read("credential:../keys/datasync-node-key", secrets, CREDENTIALS_DIRECTORY=str(secrets))
    (secrets / "datasync-node-key").chmod(0o444)
    with pytest.raises(ConfigError, match="chmod o="):
        read("credential:datasync-node-key", secrets, CREDENTIALS_DIRECTORY=str(secrets))


def test_a_variable_holds_the_key_itself(tmp_path: Path) -> None:
    assert read("env:NODE_KEY", tmp_path, NODE_KEY=KEY.hex()) == KEY
    with pytest.raises(ConfigError, match="not set"):
        read("env:NODE_KEY", tmp_path)
    with pytest.raises(ConfigError, match="hexadecimal"):
        read("env:NODE_KEY", tmp_path, NODE_KEY="a secret that is not to be shown")


def test_an_installed_package_offers_a_key_management_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_kms.py").write_text(
        "class Source:\n"
        "    def __init__(self, name): self.name = name\n"
        "    def node_key(self): return bytes(range(32)) if self.name == 'keys/cbd' else b'short'\n"
    )
    info = tmp_path / "acme_kms-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-kms\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[datasync.node_keys]\nacme = acme_kms:Source\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read("kms:acme/keys/cbd", tmp_path) == KEY
    with pytest.raises(ConfigError, match="5 bytes"):
        read("kms:acme/other", tmp_path)
    with pytest.raises(ConfigError, match="entry point 'nobody'"):
        read("kms:nobody/keys", tmp_path)
    sys.modules.pop("acme_kms")


@pytest.mark.parametrize("text", ["credential:name", "env:NAME", "kms:acme/key"])
def test_only_files_are_written(text: str, tmp_path: Path, entropy: Entropy) -> None:
    with pytest.raises(ConfigError, match="file:PATH or passphrase:PATH"):
        node_keys.write(KeyAddress.parse(text, tmp_path), KEY, Surroundings({}), entropy)
