import random
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datasync.domain.clock import Instant
from datasync.domain.errors import BodyDamaged, ConfigError, KeyUnavailable, StoreError, Undecipherable
from datasync.domain.ids import StreamId
from datasync.domain.limits import KEYS_CACHED_MAX
from datasync.security.vault import (
    Vault,
    key_id,
    load_or_create_node_key,
    open_body,
    seal_body,
    state_key,
)

ONE, TWO = StreamId("1" * 32), StreamId("2" * 32)
ROWS = b"columns of a segment"
NODE_KEY = bytes(range(32))
Entropy = Callable[[int], bytes]


class FileShelf:
    """A shelf in a SQLite file, apart from the store's own, so that these tests need nothing above `security`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sql("CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, stream TEXT, wrapped BLOB, created INTEGER)")

    def put(self, key_id: str, stream: StreamId, wrapped: bytes, created_ms: int) -> None:
        self._sql("INSERT INTO keys VALUES (?, ?, ?, ?)", key_id, stream, wrapped, created_ms)

    def get(self, key_id: str) -> bytes | None:
        found = self._sql("SELECT wrapped FROM keys WHERE id = ?", key_id)
        return found[0][0] if found else None

    def of_stream(self, stream: StreamId) -> list[tuple[str, bytes]]:
        return self._sql("SELECT id, wrapped FROM keys WHERE stream = ? ORDER BY created, id", stream)

    def delete(self, streams: Iterable[StreamId]) -> None:
        for stream in streams:
            self._sql("DELETE FROM keys WHERE stream = ?", stream)

    def _sql(self, statement: str, *values: object) -> list[tuple]:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()


@pytest.fixture
def shelf(tmp_path: Path) -> FileShelf:
    return FileShelf(tmp_path / "keys.db")


@pytest.fixture
def vault(shelf: FileShelf, entropy: Entropy) -> Vault:
    return Vault(NODE_KEY, shelf, entropy)


def test_a_body_opens_in_this_vault_and_after_a_restart(
    vault: Vault, shelf: FileShelf, now: Instant, entropy: Entropy
) -> None:
    name, body = vault.encrypt(ONE, 7, ROWS, now)
    assert vault.decrypt(ONE, name, 7, body) == ROWS
    assert Vault(NODE_KEY, shelf, entropy).decrypt(ONE, name, 7, body) == ROWS


def test_the_key_is_on_the_shelf_before_the_body_leaves(vault: Vault, shelf: FileShelf, now: Instant) -> None:
    name, _ = vault.encrypt(ONE, 0, ROWS, now)
    assert [kept for kept, _ in shelf.of_stream(ONE)] == [name]


def test_a_stream_keeps_its_key_across_bodies_and_restarts(
    vault: Vault, shelf: FileShelf, now: Instant, entropy: Entropy
) -> None:
    names = {vault.encrypt(ONE, number, ROWS, now)[0] for number in range(3)}
    names.add(Vault(NODE_KEY, shelf, entropy).encrypt(ONE, 3, ROWS, now)[0])
    assert len(names) == 1
    assert vault.encrypt(TWO, 0, ROWS, now)[0] not in names


def test_neither_key_nor_rows_are_readable_in_files(vault: Vault, shelf: FileShelf, now: Instant) -> None:
    session = bytes(32)
    name = vault.adopt(ONE, state_key(session, ONE), now)
    _, body = vault.encrypt(ONE, 0, ROWS, now)
    file = shelf.path.read_bytes()
    assert ROWS not in body
    assert name.encode() in file
    assert state_key(session, ONE) not in file


def test_a_body_opens_in_its_own_place_alone(vault: Vault, now: Instant) -> None:
    name, body = vault.encrypt(ONE, 7, ROWS, now)
    with pytest.raises(BodyDamaged):
        vault.decrypt(ONE, name, 8, body)
    with pytest.raises(KeyUnavailable):
        vault.decrypt(TWO, name, 7, body)


def test_every_truncation_and_every_flipped_bit_of_a_body_is_refused(vault: Vault, now: Instant) -> None:
    name, body = vault.encrypt(ONE, 7, ROWS, now)
    for length in range(len(body)):
        with pytest.raises(BodyDamaged):
            vault.decrypt(ONE, name, 7, body[:length])
    for bit in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BodyDamaged):
            vault.decrypt(ONE, name, 7, bytes(flipped))


def test_destroyed_keys_are_gone_from_shelf_and_memory(
    vault: Vault, shelf: FileShelf, now: Instant, entropy: Entropy
) -> None:
    name, body = vault.encrypt(ONE, 0, ROWS, now)
    adopted = vault.adopt(ONE, state_key(bytes(32), ONE), now)
    other, kept = vault.encrypt(TWO, 0, ROWS, now)
    vault.destroy([ONE])
    assert shelf.of_stream(ONE) == []
    for fresh in (vault, Vault(NODE_KEY, shelf, entropy)):
        for gone in (name, adopted):
            with pytest.raises(KeyUnavailable, match="destroyed"):
                fresh.decrypt(ONE, gone, 0, body)
        assert fresh.decrypt(TWO, other, 0, kept) == ROWS


def test_a_stream_that_comes_back_after_its_keys_were_destroyed_gets_a_new_one(vault: Vault, now: Instant) -> None:
    name, _ = vault.encrypt(ONE, 0, ROWS, now)
    vault.destroy([ONE])
    again, body = vault.encrypt(ONE, 0, ROWS, now)
    assert again != name
    assert vault.decrypt(ONE, again, 0, body) == ROWS


def test_a_vault_forgets_keys_even_when_the_shelf_cannot_delete_them(
    tmp_path: Path, now: Instant, entropy: Entropy
) -> None:
    class Stuck(FileShelf):
        def delete(self, streams: Iterable[StreamId]) -> None:
            super().delete(streams)
            raise StoreError("deleted, but not overwritten")

    vault = Vault(NODE_KEY, Stuck(tmp_path / "keys.db"), entropy)
    name, body = vault.encrypt(ONE, 0, ROWS, now)
    with pytest.raises(StoreError):
        vault.destroy([ONE])
    with pytest.raises(KeyUnavailable):
        vault.decrypt(ONE, name, 0, body)


def test_another_node_key_opens_nothing(vault: Vault, shelf: FileShelf, now: Instant, entropy: Entropy) -> None:
    name, body = vault.encrypt(ONE, 0, ROWS, now)
    stranger = Vault(bytes(32), shelf, entropy)
    with pytest.raises(KeyUnavailable, match="cannot be unwrapped"):
        stranger.decrypt(ONE, name, 0, body)
    with pytest.raises(KeyUnavailable, match="cannot be unwrapped"):
        stranger.encrypt(ONE, 1, ROWS, now)


def test_a_wrapped_key_cannot_be_moved_to_another_stream(vault: Vault, shelf: FileShelf, now: Instant) -> None:
    name, body = vault.encrypt(ONE, 0, ROWS, now)
    wrapped = shelf.get(name)
    assert wrapped is not None
    shelf.delete([ONE])
    shelf.put(name, TWO, wrapped, 0)
    with pytest.raises(KeyUnavailable):
        vault.decrypt(TWO, name, 0, body)


def test_handed_over_bodies_are_readable_once_their_key_is_adopted(
    vault: Vault, tmp_path: Path, now: Instant, entropy: Entropy
) -> None:
    session = entropy(32)
    body = seal_body(state_key(session, ONE), ONE, 5, ROWS, entropy)
    name = key_id(state_key(session, ONE))
    target = Vault(entropy(32), FileShelf(tmp_path / "target.db"), entropy)
    with pytest.raises(KeyUnavailable):
        target.decrypt(ONE, name, 5, body)
    assert target.adopt(ONE, state_key(session, ONE), now) == name
    assert target.decrypt(ONE, name, 5, body) == ROWS


def test_adopting_again_changes_nothing(vault: Vault, shelf: FileShelf, now: Instant) -> None:
    key = state_key(bytes(32), ONE)
    assert vault.adopt(ONE, key, now) == vault.adopt(ONE, key, now)
    assert len(shelf.of_stream(ONE)) == 1


def test_a_node_never_writes_under_a_key_that_was_handed_to_it(
    vault: Vault, shelf: FileShelf, now: Instant, entropy: Entropy
) -> None:
    adopted = vault.adopt(ONE, state_key(bytes(32), ONE), Instant(0, 0))
    own, _ = vault.encrypt(ONE, 0, ROWS, now)
    assert own != adopted
    restarted = Vault(NODE_KEY, shelf, entropy)
    assert restarted.encrypt(ONE, 1, ROWS, now)[0] == own


def test_state_keys_differ_by_session_and_by_stream() -> None:
    keys = {state_key(session, stream) for session in (bytes(32), bytes(31) + b"\x01") for stream in (ONE, TWO)}
    assert len(keys) == 4


def test_a_body_is_nonce_ciphertext_and_tag_bound_to_its_place(entropy: Entropy) -> None:
    body = seal_body(NODE_KEY, ONE, 258, ROWS, entropy)
    place = b"ds1" + ONE.encode() + bytes([0, 0, 0, 0, 0, 0, 1, 2])
    assert AESGCM(NODE_KEY).decrypt(body[:12], body[12:], place) == ROWS
    assert open_body(NODE_KEY, ONE, 258, body) == ROWS
    with pytest.raises(Undecipherable):
        open_body(NODE_KEY, ONE, 259, body)


def test_nonces_do_not_repeat(vault: Vault, now: Instant) -> None:
    bodies = [vault.encrypt(ONE, 0, ROWS, now)[1] for _ in range(200)]
    assert len({body[:12] for body in bodies}) == len(bodies)


def test_small_secrets_are_wrapped_with_their_label(vault: Vault, shelf: FileShelf, entropy: Entropy) -> None:
    wrapped = vault.wrap(b"session key", "attachment/watch-7")
    assert b"session key" not in wrapped
    assert Vault(NODE_KEY, shelf, entropy).unwrap(wrapped, "attachment/watch-7") == b"session key"
    with pytest.raises(KeyUnavailable):
        vault.unwrap(wrapped, "attachment/watch-8")
    for damaged in (b"", wrapped[:20], wrapped[:-1], wrapped + b"\x00"):
        with pytest.raises(KeyUnavailable):
            vault.unwrap(damaged, "attachment/watch-7")


def test_the_memory_of_keys_is_bounded_and_what_is_forgotten_is_read_again(vault: Vault, now: Instant) -> None:
    name, body = vault.encrypt(ONE, 0, ROWS, now)
    for number in range(KEYS_CACHED_MAX + 1):
        vault._opening.put((TWO, str(number)), AESGCM(NODE_KEY))
        vault._current.put(StreamId(str(number)), ("", AESGCM(NODE_KEY)))
    assert len(vault._opening) == len(vault._current) == KEYS_CACHED_MAX
    assert vault.decrypt(ONE, name, 0, body) == ROWS
    assert vault.encrypt(ONE, 1, ROWS, now)[0] == name


def test_a_reader_cannot_bring_back_a_key_that_is_being_destroyed(
    tmp_path: Path, now: Instant, entropy: Entropy
) -> None:
    reading, destroyed = threading.Event(), threading.Event()

    class Slow(FileShelf):
        def get(self, key_id: str) -> bytes | None:
            wrapped = super().get(key_id)
            reading.set()
            destroyed.wait(0.1)  # the reader holds the wrapped key while the other thread tries to destroy it
            return wrapped

    shelf = Slow(tmp_path / "keys.db")
    name, body = Vault(NODE_KEY, shelf, entropy).encrypt(ONE, 0, ROWS, now)
    vault = Vault(NODE_KEY, shelf, entropy)

    def destroy() -> None:
        reading.wait()
        vault.destroy([ONE])
        destroyed.set()

    with ThreadPoolExecutor(2) as threads:
        read, done = threads.submit(vault.decrypt, ONE, name, 0, body), threads.submit(destroy)
        assert read.result() == ROWS
        done.result()
    with pytest.raises(KeyUnavailable):
        vault.decrypt(ONE, name, 0, body)


def test_a_node_key_is_drawn_once_and_kept_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "node" / "vault.key"
    drawn = load_or_create_node_key(path, random.Random(3).randbytes)
    assert len(drawn) == 32
    assert load_or_create_node_key(path, random.Random(4).randbytes) == drawn
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_node_key(path, random.Random(4).randbytes)


def test_a_crash_while_the_node_key_was_written_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "node" / "vault.key"
    path.parent.mkdir()
    (path.parent / ".vault.key.draft").write_bytes(b"half of a k")
    assert len(load_or_create_node_key(path, random.Random(3).randbytes)) == 32
    assert [file.name for file in path.parent.iterdir()] == ["vault.key"]


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 33, "zz" * 32])
def test_a_malformed_node_key_is_a_configuration_error(tmp_path: Path, content: str) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "vault.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"vault\.key"):
        load_or_create_node_key(path, random.Random(4).randbytes)
