"""``datasync db``."""

import json
import sqlite3
from pathlib import Path

import pytest

from datasync.cli.main import main
from datasync.store import compaction
from datasync.store.database import Database

CLOUD = """
identity = "identity"
trust = "trust"
node_key = "node.key"
database = "sqlite:///cloud.db"
keys = "sqlite:///keys.db"
broker = "mqtt://localhost"
admin_token_file = "token"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cloud.toml"
    path.write_text(CLOUD)
    return path


def test_upgrade_brings_both_databases_of_a_node_up(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "upgrade", "--config", str(config), "--json"]) == 0
    applied = json.loads(capsys.readouterr().out)["applied"]
    assert [Path(url).name for url in applied] == ["cloud.db", "keys.db"]
    assert all(applied.values())
    assert main(["db", "check", "--config", str(config)]) == 0


def test_a_second_upgrade_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    main(["db", "upgrade", "--url", url])
    capsys.readouterr()
    assert main(["db", "upgrade", "--url", url]) == 0
    assert "already up to date" in capsys.readouterr().out


def test_check_says_no_and_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    main(["db", "upgrade", "--url", url])
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("DROP TABLE workers")
    connection.close()
    capsys.readouterr()
    assert main(["db", "check", "--url", url]) == 1
    assert "workers" in capsys.readouterr().out


def test_a_password_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql+psycopg://user:geheim@127.0.0.1:1/none"
    assert main(["db", "check", "--url", url]) == 1
    printed = capsys.readouterr()
    assert "geheim" not in printed.out + printed.err
    assert "[STORE_FAILED]" in printed.err


def test_compact_pays_what_a_stopped_node_owes_and_is_refused_beside_a_running_one(config: Path, capsys) -> None:
    main(["db", "upgrade", "--config", str(config)])
    database = Database.open(f"sqlite:///{config.parent}/cloud.db", exclusive=True)
    with database.write() as tx:
        for what in (compaction.KEYS, compaction.ROWS):
            compaction.owe(tx, what, 1)
    assert main(["db", "compact", "--config", str(config)]) == 1
    assert "stop that node" in capsys.readouterr().err
    database.close()
    assert main(["db", "compact", "--config", str(config)]) == 0
    database = Database.open(f"sqlite:///{config.parent}/cloud.db")
    with database.read() as tx:
        assert [each.owed_ms for each in compaction.states(tx).values()] == [None, None]
    database.close()
