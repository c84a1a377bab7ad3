"""``datasync audit``."""

import json
from pathlib import Path

import pytest

from datasync.cli.main import main
from datasync.store import decisions, tables
from datasync.store.database import Database
from datasync.store.decisions import Decision


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database whose log has three entries."""
    address = f"sqlite:///{tmp_path}/edge.db"
    database = Database.open(address)
    opened = Decision(
        at_ms=1_700_000_000_000,
        event="opened",
        worker="router",
        collection="trips",
        purpose="service.routing",
        revision=1,
        digest="d" * 64,
        code="ALLOW",
        rules=("R1",),
    )
    with database.write() as tx:
        for _ in range(3):
            decisions.append(tx, opened)
    database.close()
    return address


def test_a_whole_log_verifies(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"entries": 3, "wrong": None}


def test_a_changed_log_does_not(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    database = Database.open(url)
    with database.write() as tx:
        tx.execute(tables.decisions.update().where(tables.decisions.c.number == 2).values(worker="nobody"))
    database.close()
    assert main(["audit", "verify", "--url", url]) == 1
    assert "entry 2" in capsys.readouterr().out


def test_the_log_is_shown_as_a_table_and_as_lines(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "show", "--url", url]) == 0
    assert capsys.readouterr().out.count("service.routing") == 3
    assert main(["audit", "show", "--url", url, "--json", "--after", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["number"] for line in lines] == [2, 3]
    assert lines[0]["rules"] == ["R1"]


def test_a_database_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--url", f"sqlite:///{tmp_path}/none.db"]) == 1
    assert "STORE_FAILED" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
