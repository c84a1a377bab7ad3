"""Rotating a node's key: nothing is lost whenever it dies, and afterwards the old key opens nothing."""

import itertools
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasync.cli.main import main
from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, KeyUnavailable, StoreError
from datasync.domain.ids import NodeName, StreamId
from datasync.handover import accounts
from datasync.handover.machine import Account
from datasync.nodes.config import EdgeConfig
from datasync.nodes.config_file import load
from datasync.nodes.node_key import open_node_key
from datasync.protocol.parts import SessionKeys
from datasync.security.files import read_key
from datasync.security.node_keys import KeyAddress, Surroundings
from datasync.security.vault import Vault
from datasync.store import audit, tables
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from tests.unit.nodes.dying import rotate_and_die, rotated

CONFIG = """
identity = "identity"
trust = "trust"
database = "sqlite:///edge.db"
keys = "sqlite:///keys.db"
node_key = "node.key"
broker = "mqtt://localhost"
backbone = "mqtt://localhost"
cloud = "acme/cloud"
admin_token_hash = "8b7df143d91c716ecfa5fc1730022f6b421b05cedee8fd52b1fc65a96030ad52"
"""
STREAMS = tuple(StreamId(f"{number:032x}") for number in range(1, 6))
DEVICES = tuple(NodeName(f"watch-{number}") for number in range(3))
NOW = Instant(1_800_000_000_000, 0)
ENTROPY = random.Random(5).randbytes
KEYS = SessionKeys(session=bytes(range(32)), previous={})


@dataclass(frozen=True)
class Edge:
    """A stopped edge's folder, with segments of five streams, session keys of three devices, and what is sealed."""

    folder: Path
    bodies: dict[StreamId, tuple[str, bytes]]

    @property
    def config(self) -> Path:
        return self.folder / "edge.toml"

    @property
    def key(self) -> Path:
        return self.folder / "node.key"

    def copied(self, to: Path) -> "Edge":
        shutil.copytree(self.folder, to)
        return Edge(to, self.bodies)

    def is_open_to(self, node_key: bytes) -> list[bool]:
        """Whether each stream and each device's session keys open with a node key."""
        with databases(self.folder) as (database, keys):
            vault = Vault(node_key, SqlKeyShelf(keys), ENTROPY)
            opened = [opens(lambda each=each: self._body(vault, each)) for each in STREAMS]
            with database.read() as tx:
                for device in DEVICES:
                    opened.append(opens(lambda device=device: accounts.load_keys(tx, vault, device) == KEYS))
        return opened

    def _body(self, vault: Vault, stream: StreamId) -> bool:
        name, body = self.bodies[stream]
        return vault.decrypt(stream, name, 0, body) == stream.encode()


def opens(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except KeyUnavailable:
        return False


@contextmanager
def databases(folder: Path) -> Iterator[tuple[Database, Database]]:
    database, keys = (Database.open(f"sqlite:///{folder / name}") for name in ("edge.db", "keys.db"))
    try:
        yield database, keys
    finally:
        database.close()
        keys.close()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Edge:
    folder = tmp_path_factory.mktemp("pristine") / "edge"
    folder.mkdir(mode=0o700)
    (folder / "edge.toml").write_text(CONFIG)
    with databases(folder) as (database, keys):
        vault = Vault(start(folder, keys), SqlKeyShelf(keys), ENTROPY)
        bodies = {stream: vault.encrypt(stream, 0, stream.encode(), NOW) for stream in STREAMS}
        with database.write() as tx:
            for device in DEVICES:
                accounts.save(tx, Account(device), NodeName("acme/cbd"), NOW.wall_ms)
                accounts.save_keys(tx, vault, device, KEYS)
    return Edge(folder, bodies)


@pytest.fixture
def edge(pristine: Edge, tmp_path: Path) -> Edge:
    return pristine.copied(tmp_path / "edge")


def start(folder: Path, keys: Database) -> bytes:
    address = load(EdgeConfig, folder / "edge.toml", {}).node_key
    return open_node_key(address, keys, Surroundings({}), ENTROPY)


def test_after_a_rotation_the_new_key_opens_everything_and_the_old_one_nothing(edge: Edge) -> None:
    old = read_key(edge.key)
    assert all(edge.is_open_to(old))
    done = rotated(edge.config, None)
    new = read_key(edge.key)
    assert (done.data_keys, done.session_keys, done.unreadable) == (5, 3, 0)
    assert all(edge.is_open_to(new))
    assert not any(edge.is_open_to(old))
    assert not list(edge.folder.glob("*.next")) + list(edge.folder.glob(".*former"))
    with databases(edge.folder) as (database, keys), database.read() as tx:
        assert start(edge.folder, keys) == new
        assert [(each.event, each.subject) for each in audit.page(tx)] == [("key-rotated", done.name)]


def test_a_copy_from_before_the_rotation_is_not_opened_by_the_new_key(edge: Edge, tmp_path: Path) -> None:
    before = edge.copied(tmp_path / "stolen")
    rotated(edge.config, None)
    assert not any(before.is_open_to(read_key(edge.key)))


def test_no_file_holds_what_the_old_key_wrapped_or_the_old_key_and_no_body_was_touched(edge: Edge) -> None:
    with sqlite3.connect(edge.folder / "keys.db") as before:
        wrapped = [row[0] for row in before.execute("SELECT wrapped FROM data_keys")]
    with sqlite3.connect(edge.folder / "edge.db") as before:
        wrapped += [row[0] for row in before.execute("SELECT session_key FROM attachments")]
    old = read_key(edge.key)
    rotated(edge.config, None)
    left = {path: path.read_bytes() for path in edge.folder.iterdir() if path.is_file()}
    assert len(wrapped) == 8
    for path, content in left.items():
        assert not [each for each in (*wrapped, old, old.hex().encode()) if each in content], path


@pytest.mark.parametrize("to", [None, "next/new.key"])
def test_killed_at_any_point_it_goes_on_where_it_was(pristine: Edge, folder: Path, to: str | None) -> None:
    old = read_key(pristine.key)
    for point in itertools.count(1):
        edge = pristine.copied(folder / str(point))
        address = None if to is None else KeyAddress.parse(to, edge.folder)
        died = rotate_and_die(edge.config, address, point)
        rotated_again(edge, address, old)
        if not died:
            break
        shutil.rmtree(edge.folder)
    assert point > 16, "the points were not found"


def test_killed_over_and_over_it_ends(pristine: Edge, folder: Path) -> None:
    edge, old = pristine.copied(folder / "edge"), read_key(pristine.key)
    lives = next(life for life in itertools.count(1) if not rotate_and_die(edge.config, None, 3 + 2 * life))
    assert lives > 2
    assert all(edge.is_open_to(read_key(edge.key)))
    assert not any(edge.is_open_to(old))


def rotated_again(edge: Edge, address: KeyAddress | None, old: bytes) -> None:
    """End the rotation, unless it ended before it died."""
    if json.loads(register(edge))["rotation"] is not None:
        with databases(edge.folder) as (_, keys), pytest.raises(ConfigError, match="has not ended"):
            start(edge.folder, keys)
        done = rotated(edge.config, None)
        assert (done.data_keys, done.session_keys, done.unreadable) == (5, 3, 0)
    elif read_key(edge.key) == old if edge.key.exists() else False:
        rotated(edge.config, address)
    kept = edge.key if address is None or address.path is None else address.path
    assert all(edge.is_open_to(read_key(kept)))
    assert not any(edge.is_open_to(old))
    assert [path.name for path in kept.parent.iterdir() if "key" in path.name and "db" not in path.name] == [kept.name]
    assert edge.key.exists() == (kept == edge.key)


def register(edge: Edge) -> str:
    with sqlite3.connect(edge.folder / "keys.db") as keys:
        (value,) = keys.execute("SELECT value FROM registers WHERE name = 'node key'").fetchone()
    keys.close()
    return str(value)


def test_it_is_refused_while_the_node_runs(edge: Edge) -> None:
    running = Database.open(f"sqlite:///{edge.folder}/edge.db", exclusive=True)
    try:
        with pytest.raises(StoreError, match="stop that node"):
            rotated(edge.config, None)
    finally:
        running.close()
    rotated(edge.config, None)


def test_to_another_address_the_old_file_is_destroyed_and_the_node_is_told_where_the_new_one_is(edge: Edge) -> None:
    new = KeyAddress.parse("keys/new.key", edge.folder)
    rotated(edge.config, new)
    assert not edge.key.exists()
    with databases(edge.folder) as (_, keys):
        with pytest.raises(ConfigError, match=f'write node_key = "{new}"'):
            start(edge.folder, keys)
        edge.config.write_text(CONFIG.replace("node.key", "keys/new.key"))
        start(edge.folder, keys)


def test_another_key_is_refused_at_the_start_and_none_is_drawn_beside_wrapped_data_keys(edge: Edge) -> None:
    edge.key.unlink()
    with databases(edge.folder) as (_, keys):
        with pytest.raises(ConfigError, match="cannot be read"):
            start(edge.folder, keys)
        edge.key.write_text("00" * 32)
        edge.key.chmod(0o600)
        with pytest.raises(ConfigError, match="not the key that the data keys are wrapped under"):
            start(edge.folder, keys)


def test_a_key_database_of_before_the_register_is_taken_with_its_own_key_alone(edge: Edge) -> None:
    with databases(edge.folder) as (_, keys):
        with keys.write() as tx:
            tx.execute(tables.registers.delete())
        right = edge.key.read_text()
        edge.key.write_text("00" * 32)
        with pytest.raises(ConfigError, match="not the key"):
            start(edge.folder, keys)
        edge.key.write_text(right)
        assert start(edge.folder, keys) == bytes.fromhex(right)


def test_a_key_that_is_not_in_a_file_is_rotated_to_an_address_that_is_given(edge: Edge) -> None:
    edge.config.write_text(CONFIG.replace("node.key", "env:DATASYNC_NODE_KEY"))
    old = {"DATASYNC_NODE_KEY": edge.key.read_text().strip()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "DATASYNC_NODE_KEY", old["DATASYNC_NODE_KEY"])
        assert main(["keys", "rotate", "--config", str(edge.config)]) == 1
        to = f"file:{edge.folder}/new.key"
        assert main(["keys", "rotate", "--config", str(edge.config), "--to", to]) == 0
    assert all(edge.is_open_to(read_key(edge.folder / "new.key")))


def test_the_list_counts_by_key_and_says_what_no_key_opens(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    with databases(edge.folder) as (_, keys), keys.write() as tx:
        tx.execute(
            tables.data_keys.update().where(tables.data_keys.c.stream_id == STREAMS[0]).values(wrapped=b"?" * 61)
        )
    assert main(["keys", "list", "--config", str(edge.config), "--json"]) == 0
    own, lost = json.loads(capsys.readouterr().out)["node_keys"]
    assert (own["data_keys"], own["session_keys"], own["address"]) == (4, 3, f"file:{edge.key}")
    assert (lost["name"], lost["data_keys"], lost["session_keys"]) == (None, 1, 0)
    assert main(["keys", "rotate", "--config", str(edge.config)]) == 0
    assert "1 secrets were under no key" in capsys.readouterr().out


def test_in_the_middle_the_list_shows_both_keys(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    point = 8
    shown: list[int] = []
    while len(shown) < 2 or min(shown[:2]) == 0:
        other = edge.copied(edge.folder.parent / f"at-{point}")
        assert rotate_and_die(other.config, None, point)
        assert main(["keys", "list", "--config", str(other.config), "--json"]) == 0
        shown = [each["data_keys"] for each in json.loads(capsys.readouterr().out)["node_keys"]]
        point += 1
    assert sum(shown) == 5


def test_a_key_is_made_put_under_a_passphrase_and_under_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, first, second = f"file:{tmp_path}/keys/a", f"passphrase:{tmp_path}/keys/b", f"passphrase:{tmp_path}/keys/c"
    assert main(["keys", "init", plain]) == 0
    assert capsys.readouterr().out == f'node_key = "{plain}"\n'
    monkeypatch.setenv("DATASYNC_NEW_PASSPHRASE", "correct horse")
    assert main(["keys", "encrypt", plain, first]) == 0
    assert f"shred -u {tmp_path}/keys/a" in capsys.readouterr().out
    monkeypatch.setenv("DATASYNC_PASSPHRASE", "correct horse")
    monkeypatch.setenv("DATASYNC_NEW_PASSPHRASE", "battery staple")
    assert main(["keys", "encrypt", first, second]) == 0
    monkeypatch.setenv("DATASYNC_PASSPHRASE", "battery staple")
    assert main(["keys", "encrypt", first, f"file:{tmp_path}/keys/d"]) == 1
    assert "passphrase is wrong" in capsys.readouterr().err
    assert main(["keys", "encrypt", second, f"file:{tmp_path}/keys/d"]) == 0
    assert read_key(tmp_path / "keys" / "d") == read_key(tmp_path / "keys" / "a")
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    assert main(["keys", "init", f"file:{tmp_path}/open/key"]) == 1
    assert f"chmod 700 {tmp_path}/open" in capsys.readouterr().err
