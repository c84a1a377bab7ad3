"""The migrations build the schema that the code uses, from the checkout and from the wheel, once and only once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

import datasync
from datasync.domain.errors import StoreError
from datasync.store import schema, tables
from datasync.store.database import Database, check, upgrade

REVISIONS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"]


def test_the_migrated_schema_equals_the_metadata(database_url: str) -> None:
    assert upgrade(database_url) == REVISIONS
    assert check(database_url) == []


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX ix_segments_state_id",
        "ALTER TABLE peers DROP COLUMN address",
        "ALTER TABLE peers ADD COLUMN extra TEXT",
        "DROP TABLE consents",
    ],
)
def test_a_schema_that_differs_is_reported(database_url: str, change: str) -> None:
    database = Database.open(database_url)
    with database.write() as tx:
        tx.execute(text(change))
    database.close()
    words = change.split()
    assert any(words[-1] in line or words[-2] in line for line in check(database_url))


def test_upgrading_twice_does_nothing_the_second_time(database_url: str) -> None:
    upgrade(database_url)
    database = Database.open(database_url, create=False)
    with database.write() as tx:
        tx.execute(tables.registers.insert().values(name="kept", value="1"))
    assert upgrade(database_url) == []
    with database.read() as tx:
        assert tx.execute(tables.registers.select()).all() == [("kept", "1")]
    database.close()
    assert check(database_url) == []


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(database_url: str, tmp_path: Path) -> None:
    upgrade(database_url)
    database = Database.open(database_url)
    with database.write() as tx:
        tx.execute(text("DROP TABLE alembic_version"))
        tx.execute(text("DROP TABLE registers"))
    with pytest.raises(StoreError, match="already exists"):
        upgrade(database_url)
    with database.read() as tx:
        assert not tx.dialect.has_table(tx, "registers")
        assert not tx.dialect.has_table(tx, "alembic_version")
    database.close()


def test_the_migrations_are_found_inside_the_package_as_a_wheel_installs_them(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(Path(datasync.__file__).parent, site / "datasync")
    shutil.copytree(schema.migrations(), site / "datasync" / "migrations")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = (
        "from datasync.store import database, schema\n"
        "print(schema.migrations(), database.upgrade('sqlite:///node.db'), database.check('sqlite:///node.db'))"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    environment = {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == f"{site}/datasync/migrations {REVISIONS} []", ended.stderr
    assert (elsewhere / "node.db").exists()
