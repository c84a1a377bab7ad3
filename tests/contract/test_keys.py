"""The key shelf: durable, forgotten for good when deleted, and overwritten on SQLite."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from datasync.domain.errors import StoreError
from datasync.domain.ids import StreamId
from datasync.security.vault import KeyShelf
from datasync.store import engines
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf

A, B, C = (StreamId(letter * 32) for letter in "abc")


def wrapped(number: int) -> bytes:
    return random.Random(number).randbytes(60)


def found_in_files(folder: Path, secrets: list[bytes]) -> list[str]:
    """Search the folder's files for any quarter of the secrets (60 bytes each)."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    parts = [secret[start : start + 15] for secret in secrets for start in range(0, 60, 15)]
    return [f"{name}: {part.hex()}" for name, held in contents.items() for part in parts if part in held]


def test_a_key_is_kept_by_its_id_and_listed_by_its_stream_oldest_first(database: Database) -> None:
    shelf: KeyShelf = SqlKeyShelf(database)
    shelf.put("1" * 32, A, wrapped(1), 20)
    shelf.put("2" * 32, A, wrapped(2), 10)
    shelf.put("3" * 32, B, wrapped(3), 5)
    assert shelf.get("1" * 32) == wrapped(1)
    assert shelf.get("4" * 32) is None
    assert shelf.of_stream(A) == [("2" * 32, wrapped(2)), ("1" * 32, wrapped(1))]
    assert shelf.of_stream(C) == []


def test_a_key_put_again_is_kept_as_it_was_wrapped_last(database: Database) -> None:
    shelf = SqlKeyShelf(database)
    shelf.put("1" * 32, A, wrapped(1), 20)
    shelf.put("1" * 32, A, wrapped(2), 20)
    assert shelf.of_stream(A) == [("1" * 32, wrapped(2))]


def test_deleting_streams_destroys_all_their_keys_and_no_others(database: Database) -> None:
    shelf = SqlKeyShelf(database)
    for number, stream in enumerate((A, A, B, C)):
        shelf.put(str(number) * 32, stream, wrapped(number), number)
    shelf.delete([A, B])
    shelf.delete([A])
    shelf.delete([])
    assert [shelf.get(str(number) * 32) for number in range(4)] == [None, None, None, wrapped(3)]
    assert shelf.of_stream(A) == []


def test_a_key_and_its_deletion_survive_the_kill_of_their_process(database_url: str) -> None:
    program = (
        "import os, signal, sys\n"
        "from datasync.store.database import Database\n"
        "from datasync.store.keys import SqlKeyShelf\n"
        "shelf = SqlKeyShelf(Database.open(sys.argv[1]))\n"
        "shelf.put('1' * 32, 'a' * 32, b'one', 1)\n"
        "shelf.put('2' * 32, 'b' * 32, b'two', 1)\n"
        "shelf.delete(['a' * 32])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, database_url], check=False, timeout=60).returncode == -9
    database = Database.open(database_url)
    shelf = SqlKeyShelf(database)
    assert (shelf.get("1" * 32), shelf.get("2" * 32)) == (None, b"two")
    database.close()


@pytest.mark.parametrize("seed", range(3))
def test_no_file_holds_a_deleted_key_however_many_came_and_went(tmp_path: Path, seed: int) -> None:
    """Enough keys for a tree of several pages, deleted in random order while others are added."""
    draw = random.Random(seed)
    database = Database.open(f"sqlite:///{tmp_path}/keys.db")
    shelf = SqlKeyShelf(database)
    kept: dict[StreamId, bytes] = {}
    gone: list[bytes] = []
    for number in range(200):
        stream = StreamId(f"{draw.getrandbits(128):032x}")
        kept[stream] = wrapped(1000 * seed + number)
        shelf.put(f"{draw.getrandbits(128):032x}", stream, kept[stream], number)
        if number % 20 == 19:
            leaving = draw.sample(sorted(kept), k=draw.randint(1, len(kept)))
            shelf.delete(leaving)
            gone += [kept.pop(stream) for stream in leaving]
            assert found_in_files(tmp_path, gone) == []
    assert len(found_in_files(tmp_path, list(kept.values()))) >= len(kept), "the search finds keys that are there"
    database.close()


def test_a_deletion_that_cannot_be_overwritten_yet_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines._SQLITE_SETTINGS, "busy_timeout", 50)
    database = Database.open(f"sqlite:///{tmp_path}/keys.db")
    shelf = SqlKeyShelf(database)
    shelf.put("1" * 32, A, wrapped(1), 1)
    with database.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM data_keys").scalar() == 1
        with pytest.raises(StoreError, match="write-ahead log"):
            shelf.delete([A])
    assert shelf.get("1" * 32) is None
    shelf.delete([A])
    assert found_in_files(tmp_path, [wrapped(1)]) == []
    database.close()


def test_opening_the_shelf_overwrites_what_a_crash_left_of_a_deleted_key(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from datasync.store.database import Database\n"
        "from datasync.store.keys import SqlKeyShelf\n"
        "class Crashing(Database):\n"
        "    crash = False\n"
        "    def checkpoint(self):\n"
        "        if self.crash: os.kill(os.getpid(), signal.SIGKILL)\n"
        "database = Crashing.open(sys.argv[1])\n"
        "shelf = SqlKeyShelf(database)\n"
        "shelf.put('1' * 32, 'a' * 32, bytes.fromhex(sys.argv[2]), 1)\n"
        "database.crash = True\n"
        "shelf.delete(['a' * 32])\n"
    )
    url = f"sqlite:///{tmp_path}/keys.db"
    command = [sys.executable, "-c", program, url, wrapped(1).hex()]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert found_in_files(tmp_path, [wrapped(1)]) != []
    database = Database.open(url)
    shelf = SqlKeyShelf(database)
    assert shelf.get("1" * 32) is None
    assert found_in_files(tmp_path, [wrapped(1)]) == []
    database.close()
