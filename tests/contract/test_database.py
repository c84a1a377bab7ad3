"""The contract of transactions, on SQLite and on PostgreSQL: all or nothing, snapshots, one writer, durability."""

import gc
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from datasync.domain.errors import ConfigError, SchemaOutdated, StoreError
from datasync.domain.ids import StreamId
from datasync.store import counters, engines, registers, segments
from datasync.store.database import Database


def count_and_fail(database: Database) -> None:
    with database.write() as tx:
        registers.put(tx, "name", "lost")
        counters.take(tx, "rows", 10)
        raise ZeroDivisionError


def test_a_transaction_that_raises_changes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        count_and_fail(database)
    with database.write() as tx:
        assert registers.get(tx, "name") is None
        assert counters.take(tx, "rows", 1) == 1


def test_a_transaction_is_seen_by_others_only_once_it_has_committed(database: Database) -> None:
    with database.write() as tx:
        registers.put(tx, "name", 1)
        with database.read() as reader:
            assert registers.get(reader, "name") is None
    with database.read() as reader:
        assert registers.get(reader, "name") == 1


def test_a_reader_sees_one_snapshot_while_others_commit(database: Database) -> None:
    with database.read() as reader:
        assert registers.get(reader, "name") is None
        with database.write() as tx:
            registers.put(tx, "name", 1)
        assert registers.get(reader, "name") is None
    with database.read() as reader:
        assert registers.get(reader, "name") == 1


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError, match=r"(?i)read-?only"), database.read() as tx:
        registers.put(tx, "name", 1)
    with database.write() as tx:
        assert registers.get(tx, "name") is None


def test_the_drivers_errors_come_out_as_one_kind_without_the_values(database: Database) -> None:
    with pytest.raises(StoreError) as raised, database.write() as tx:
        tx.execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": "hunter2"})
    assert "nowhere" in raised.value.detail
    assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"


def test_a_failed_statement_does_not_spoil_the_next_transaction(database: Database) -> None:
    for _ in range(3):
        with pytest.raises(StoreError), database.write() as tx:
            tx.execute(text("SELECT nothing FROM nowhere"))
    with database.write() as tx:
        registers.put(tx, "name", 1)


def test_writers_in_many_threads_take_turns_and_readers_do_not_wait(database: Database, new_segment: Any) -> None:
    errors: list[BaseException] = []

    def write(letter: str) -> None:
        try:
            for number in range(10):
                with database.write() as tx:
                    segments.append(tx, [new_segment(letter * 32, 10 * number)])
        except BaseException as error:
            errors.append(error)

    def read() -> None:
        try:
            seen = 0
            while seen < 40:
                with database.read() as tx:
                    (count,) = [c.segments for c in segments.counts(tx)] or [0]
                assert count >= seen
                seen = count
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    threads += [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.read() as tx:
        positions = [s.position for letter in "abcd" for s in segments.of_stream(tx, StreamId(letter * 32))]
    assert sorted(positions, key=lambda p: p or 0) == list(range(1, 41))


def test_a_commit_survives_the_kill_of_its_process(database_url: str) -> None:
    program = (
        "import os, signal, sys\n"
        "from datasync.store import registers\n"
        "from datasync.store.database import Database\n"
        "database = Database.open(sys.argv[1], exclusive=True)\n"
        "with database.write() as tx:\n"
        "    registers.put(tx, 'done', True)\n"
        "with database.write() as tx:\n"
        "    registers.put(tx, 'torn', True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, database_url], check=False, timeout=60)
    assert ended.returncode == -9
    database = Database.open(database_url, exclusive=True)
    with database.read() as tx:
        assert registers.get(tx, "done") is True
        assert registers.get(tx, "torn") is None
    database.close()


def test_two_owners_cannot_have_a_database_open_at_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LOCK_WAIT_MS_MAX", 100)
    owner = Database.open(database_url, exclusive=True)
    with pytest.raises(StoreError, match=r"another process has this database open.*stop that node"):
        Database.open(database_url, exclusive=True)
    guest = Database.open(database_url)
    with guest.write() as tx:
        registers.put(tx, "name", 1)
    guest.close()
    owner.close()
    Database.open(database_url, exclusive=True).close()


def test_a_database_of_another_schema_is_refused_and_says_what_to_run(database: Database) -> None:
    url = database._writer.url.render_as_string(hide_password=False)
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaOutdated, match=r"9999.*datasync db upgrade"):
        Database.open(url)


def test_a_database_that_holds_something_else_is_left_alone(database_url: str) -> None:
    database = Database.open(database_url)
    with database.write() as tx:
        tx.execute(text("DROP TABLE alembic_version"))
    database.close()
    with pytest.raises(SchemaOutdated, match="none"):
        Database.open(database_url)


def test_an_empty_database_is_not_given_a_schema_unless_asked(postgres_url: str) -> None:
    with pytest.raises(SchemaOutdated, match="none"):
        Database.open(postgres_url, create=False)


def test_a_missing_file_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing\.db"):
        Database.open(f"sqlite:///{tmp_path}/missing.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_what_a_database_leaves_on_disk_is_its_owners_alone(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/new/folder/node.db", exclusive=True)
    with database.write() as tx:
        registers.put(tx, "name", 1)
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new/folder").iterdir()}
    database.close()
    assert files == dict.fromkeys(["node.db", "node.db-wal", "node.db-shm", "node.db.lock"], 0o600)


def test_every_connection_to_sqlite_is_durable_and_checks_foreign_keys(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)

    def settings(tx: Any) -> dict[str, Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")
        return {name: tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}

    durable = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": engines.LOCK_WAIT_MS_MAX}
    with database.write() as tx, database.read() as one, database.read() as two:
        assert settings(tx) == durable | {"query_only": 0}
        assert settings(one) == settings(two) == durable | {"query_only": 1}
    database.close()


def test_a_writing_transaction_on_sqlite_holds_the_lock_from_its_beginning(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    with database.write() as tx:
        assert tx.connection.driver_connection is not None
        assert tx.connection.driver_connection.in_transaction
        assert tx.connection.driver_connection.isolation_level is None, "the driver begins nothing by itself"
        other = engines.writer(engines.parse_url(sqlite_url), exclusive=False)
        driver = other.raw_connection()
        driver.driver_connection.execute("PRAGMA busy_timeout=0")  # type: ignore[union-attr]
        with pytest.raises(Exception, match="database is locked"):
            driver.driver_connection.execute("BEGIN IMMEDIATE")  # type: ignore[union-attr]
        driver.close()
        other.dispose()
    database.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.db").write_bytes(b"not a database, surely not one at all " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Database.open(f"sqlite:///{tmp_path}/node.db")


def test_a_place_that_cannot_have_a_write_ahead_log_is_refused() -> None:
    engine = engines.writer(make_url("sqlite:///file:nowhere?mode=memory&uri=true"), exclusive=False)
    with pytest.raises(StoreError, match="journal_mode is 'memory' and must be 'wal'"):
        engine.connect()


@pytest.mark.parametrize("value", ["off", "local"])
def test_a_postgresql_that_commits_before_it_is_durable_is_refused(postgres_url: str, value: str) -> None:
    with pytest.raises(StoreError, match=f"synchronous_commit is '{value}'"):
        Database.open(f"{postgres_url}&options=-c%20synchronous_commit%3D{value}")


def test_a_postgresql_that_does_not_flush_is_refused(postgres_cluster: Any, postgres_url: str) -> None:
    with postgres_cluster.setting("fsync", "off"), pytest.raises(StoreError, match="fsync is 'off'"):
        Database.open(postgres_url)
    Database.open(postgres_url).close()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true"]
)
def test_an_address_that_is_no_database_is_a_mistake_in_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///path"):
        Database.open(url)


def test_a_server_that_is_not_there_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Database.open(f"postgresql://postgres@/nothing?host={tmp_path}")


def test_an_address_without_a_driver_gets_the_one_that_is_used(postgres_url: str) -> None:
    Database.open(postgres_url.replace("postgresql+psycopg", "postgresql")).close()


def test_closing_leaves_nothing_open_behind(database_url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        database = Database.open(database_url, exclusive=True)
        with database.write() as tx:
            registers.put(tx, "name", 1)
        with database.read() as one, database.read() as two:
            assert registers.get(one, "name") == registers.get(two, "name") == 1
        database.close()
        database.close()
        del database, tx, one, two
        gc.collect()
