"""Compaction: no file of a database holds what was erased from it, and what could not be done stays owed.

PostgreSQL's own files are searched, the server's folder being the tests'.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, make_url, select, text

from datasync.domain.errors import StoreError
from datasync.domain.ids import StreamId
from datasync.store import compaction, engines, tables
from datasync.store.compaction import KEYS, ROWS, State
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from tests.conftest import PostgresCluster

Files = Callable[[], dict[str, bytes]]


@pytest.fixture
def files(database_url: str, request: pytest.FixtureRequest) -> Files:
    """What returns the contents of all files of the database."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        folder = Path(url.database or "").parent
        return lambda: {path.name: path.read_bytes() for path in folder.iterdir()}
    cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
    return lambda: cluster.files(url.database or "")


def found(files: Files, secrets: list[bytes]) -> set[str]:
    """Return in which files there is any third of any of the secrets."""
    parts = [each[at : at + len(each) // 3] for each in secrets for at in (0, len(each) // 3, 2 * len(each) // 3)]
    return {name for name, held in files().items() for part in parts if part in held}


def fill(database: Database, seed: int, rounds: int) -> tuple[list[bytes], list[bytes]]:
    """Let keys come and go, and return the wrapped ones that are kept and those that were destroyed."""
    draw = random.Random(seed)
    shelf, kept, gone = SqlKeyShelf(database), dict[StreamId, bytes](), list[bytes]()
    for _ in range(rounds):
        new = {StreamId(f"{draw.getrandbits(128):032x}"): draw.randbytes(60) for _ in range(150)}
        ids = [f"{draw.getrandbits(128):032x}" for _ in new]
        with database.write() as tx:
            rows = [(key_id, *each, 1) for key_id, each in zip(ids, new.items(), strict=True)]
            tx.execute(insert(tables.data_keys).values(rows))
        kept |= new
        leaving = draw.sample(sorted(kept), k=100)
        shelf.delete(leaving)
        gone += [kept.pop(each) for each in leaving]
    return list(kept.values()), gone


def segment(number: int, stream: str) -> dict[str, object]:
    zeros = dict.fromkeys(("seq_last", "rows", "bytes", "captured", "state", "tier"), 0)
    texts = dict.fromkeys(("policy_digest", "hash", "key_id"), "")
    own = {"id": number, "stream_id": stream, "collection": "c", "seq_first": number, "meta": f"car {stream}"}
    return {**zeros, **texts, **own, "verified": True}


def put_rows(database: Database, stream: str, bodies: list[bytes]) -> None:
    with database.write() as tx:
        first = 1 + (tx.scalar(select(tables.segments.c.id).order_by(tables.segments.c.id.desc()).limit(1)) or 0)
        tx.execute(insert(tables.segments), [segment(first + at, stream) for at in range(len(bodies))])
        tx.execute(insert(tables.bodies), [{"id": first + at, "body": body} for at, body in enumerate(bodies)])


def erase_rows(database: Database, stream: str) -> None:
    of = tables.segments.c
    with database.write() as tx:
        ids = select(of.id).where(of.stream_id == stream)
        tx.execute(tables.bodies.delete().where(tables.bodies.c.id.in_(ids)))
        tx.execute(tables.segments.delete().where(of.stream_id == stream))


@pytest.mark.parametrize("seed", [7, 10])
def test_no_file_holds_a_destroyed_key_after_the_keys_were_compacted(
    database_url: str, files: Files, seed: int
) -> None:
    database = Database.open(database_url)
    shelf = SqlKeyShelf(database)
    kept, gone = fill(database, seed, 1 if "postgres" in database_url else 12)
    with database.write() as tx:
        tx.exec_driver_sql("ANALYZE")  # a server's statistics know values, too
    if "postgres" in database_url:
        assert found(files, gone) != set(), "the search finds what is there"
    shelf.compact()
    assert found(files, gone) == set()
    assert found(files, kept) != set(), "the search finds what is there"
    database.close()


def test_no_file_holds_an_erased_body_or_its_metadata_after_the_rows_were_compacted(
    database_url: str, files: Files
) -> None:
    draw = random.Random(5)
    database = Database.open(database_url)
    gone, kept = ([draw.randbytes(size) for size in (90, 900, 40_000) for _ in range(4)] for _ in range(2))
    put_rows(database, "a" * 32, gone)
    put_rows(database, "b" * 32, kept)
    with database.write() as tx:
        tx.exec_driver_sql("ANALYZE")
    erase_rows(database, "a" * 32)
    erased = [*gone, b"a" * 32]
    if "postgres" in database_url:
        assert found(files, gone) != set() != found(files, [b"a" * 32]), "the search finds what is there"
    database.compact(compaction.ERASED)
    assert found(files, erased) == set()
    assert found(files, kept) != set() != found(files, [b"b" * 32])
    with database.read() as tx:
        assert [row.body for row in tx.execute(select(tables.bodies).order_by("id"))] == kept
    database.close()


def test_statistics_of_a_table_that_is_empty_now_are_gone_too(
    postgres_url: str, postgres_cluster: PostgresCluster
) -> None:
    database = Database.open(postgres_url)
    put_rows(database, "a" * 32, [b"x"])
    with database.write() as tx:
        tx.exec_driver_sql("ANALYZE")
    erase_rows(database, "a" * 32)
    database.compact(compaction.ERASED)
    assert found(lambda: postgres_cluster.files(make_url(postgres_url).database or ""), [b"a" * 32]) == set()
    database.close()


def test_who_still_looks_at_what_was_erased_keeps_it_owed_and_is_named_as_the_reason(
    database_url: str, monkeypatch
) -> None:
    monkeypatch.setitem(engines._SQLITE_SETTINGS, "busy_timeout", 50)
    database = Database.open(database_url)
    put_rows(database, "a" * 32, [b"x"])
    with database.read() as tx:
        assert tx.scalar(select(tables.registers.c.name)) is None  # a snapshot, and no lock on what is rewritten
        erase_rows(database, "a" * 32)
        with pytest.raises(StoreError, match=r"reader|older snapshot"):
            database.compact(compaction.ERASED)
        assert len(tx.execute(select(tables.segments)).all()) == 1
    database.compact(compaction.ERASED)
    database.close()


def test_a_lock_that_is_not_to_be_had_is_waited_for_briefly_and_settings_are_as_before(postgres_url: str) -> None:
    database, other = Database.open(postgres_url), Database.open(postgres_url)
    with other.write() as tx:
        tx.exec_driver_sql("LOCK TABLE bodies IN ACCESS SHARE MODE")
        began = time.monotonic()
        with pytest.raises(StoreError, match="lock timeout"):
            database.compact(compaction.ERASED)
        assert time.monotonic() - began < 8
    with database.write() as tx:
        shown = [tx.scalar(text(f"SHOW {name}")) for name in ("lock_timeout", "statement_timeout")]
    assert shown == [f"{engines.LOCK_WAIT_MS_MAX // 1000}s", "0"]
    database.compact(compaction.ERASED)
    for each in (database, other):
        each.close()


def test_a_role_that_may_not_rewrite_the_tables_is_told_so(postgres_url: str) -> None:
    Database.open(postgres_url).close()
    owner = Database.open(postgres_url)
    with owner.write() as tx:
        tx.exec_driver_sql(f"CREATE ROLE guest_{make_url(postgres_url).database} LOGIN")
        tx.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO guest_{make_url(postgres_url).database}")
    url = make_url(postgres_url)
    guest = Database.open(url.set(username=f"guest_{url.database}").render_as_string(hide_password=False), create=False)
    with pytest.raises(StoreError, match="must be owner"):
        guest.compact(compaction.ERASED)
    guest.close()
    owner.close()


KILLED = """
import os, signal, sys, threading, time
from datasync.store import compaction
from datasync.store.database import Database

database = Database.open(sys.argv[1])
with database.write() as tx:
    compaction.owe(tx, compaction.ROWS, 7)
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()
while True:
    database.compact(compaction.ERASED)
"""


@pytest.mark.parametrize("delay_s", [0.02, 0.2])
def test_what_is_owed_outlives_a_kill_in_the_middle_and_is_made_up_for(
    database_url: str, files: Files, delay_s: float
) -> None:
    draw = random.Random(6)
    bodies = [draw.randbytes(20_000) for _ in range(60)]
    database = Database.open(database_url)
    put_rows(database, "a" * 32, bodies[:45])
    put_rows(database, "b" * 32, bodies[45:])
    erase_rows(database, "a" * 32)
    database.close()
    command = [sys.executable, "-c", KILLED, database_url, str(delay_s)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    database = Database.open(database_url)
    with database.read() as tx:
        assert compaction.state(tx, ROWS) == State(owed_ms=7)
        assert [row.body for row in tx.execute(select(tables.bodies).order_by("id"))] == bodies[45:]
    database.compact(compaction.ERASED)
    assert found(files, bodies[:45]) == set()
    database.close()


def test_the_first_debt_counts_until_it_is_paid_and_each_kind_by_itself(database: Database) -> None:
    with database.write() as tx:
        compaction.owe(tx, ROWS, 10)
        compaction.owe(tx, ROWS, 20)
        assert (compaction.state(tx, ROWS), compaction.state(tx, KEYS)) == (State(owed_ms=10), State())
        compaction.done(tx, ROWS, 30)
        assert compaction.state(tx, ROWS) == State(done_ms=30)
        compaction.owe(tx, ROWS, 40)
        assert compaction.state(tx, ROWS) == State(40, 30)


def test_the_servers_log_holds_destroyed_keys_until_it_is_given_back(
    postgres_url: str, postgres_cluster: PostgresCluster
) -> None:
    """What docs/ERASURE.md tells who keeps keys on PostgreSQL to do."""
    database = Database.open(postgres_url)
    gone = fill(database, 3, 1)[1]
    SqlKeyShelf(database).compact()
    assert found(postgres_cluster.log_files, gone) != set()
    with postgres_cluster.setting("wal_recycle", "off"):
        postgres_cluster.recycle_log()
    assert found(postgres_cluster.log_files, gone) == set()
    database.close()
