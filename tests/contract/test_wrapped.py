"""The contract of what the node's key wraps, on SQLite and on PostgreSQL."""

import random

from datasync.domain.clock import Instant
from datasync.domain.ids import StreamId
from datasync.security.vault import Vault
from datasync.security.wrapping import Wrapping, session_label
from datasync.store import attachments, wrapped
from datasync.store.attachments import Attachment
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.wrapped import DATA_KEYS, SESSION_KEYS, NodeKey, Rotation

OLD, NEW = Wrapping(bytes(32)), Wrapping(bytes(range(32)))
ENTROPY = random.Random(3).randbytes
STREAMS = [StreamId(f"{number:032x}") for number in range(5)]


def filled(database: Database, now: Instant) -> None:
    vault = Vault(bytes(32), SqlKeyShelf(database), ENTROPY)
    for stream in STREAMS:
        vault.encrypt(stream, 0, b"rows", now)


def test_every_data_key_is_on_one_page_and_is_replaced_alone(database: Database, now: Instant) -> None:
    filled(database, now)
    pages = list(DATA_KEYS.pages(database, 2))
    found = [each for page in pages for each in page]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert len({each.id for each in found}) == 5
    first, secret = found[0], found[0].unwrap(OLD)
    assert secret is not None
    with database.write() as tx:
        DATA_KEYS.replace(tx, {first.id: NEW.wrap(*secret, ENTROPY)})
        DATA_KEYS.replace(tx, {})
    again = {each.id: each for page in DATA_KEYS.pages(database, 5) for each in page}
    assert again[first.id].unwrap(NEW) == secret
    assert again[first.id].unwrap(OLD) is None
    assert [each for each in found if again[each.id].unwrap(OLD) is None] == [first]


def test_a_place_without_secrets_has_no_page_to_do(database: Database) -> None:
    assert [each for page in SESSION_KEYS.pages(database, 2) for each in page] == []


def test_session_keys_are_found_where_there_are_any(database: Database) -> None:
    kept = {"state": "active", "incarnation": 1, "epoch": 1, "since_ms": 0, "updated_ms": 0}
    with database.write() as tx:
        for device, secret in (("watch-1", b"its keys"), ("watch-2", None)):
            session = None if secret is None else OLD.wrap(secret, session_label(device), ENTROPY)
            attachments.put(tx, Attachment(device=device, session_key=session, **kept))
    found = [each for page in SESSION_KEYS.pages(database, 2) for each in page]
    assert [(each.id, each.unwrap(OLD)) for each in found] == [("watch-1", (b"its keys", "session/watch-1"))]
    with database.write() as tx:
        SESSION_KEYS.replace(tx, {"watch-1": NEW.wrap(b"its keys", "session/watch-1", ENTROPY)})
        kept_key = attachments.get(tx, "watch-1")
        assert kept_key is not None
        assert NEW.unwrap(kept_key.session_key or b"", "session/watch-1") == b"its keys"


def test_the_register_says_which_node_key_it_is(database: Database, now: Instant) -> None:
    with database.read() as tx:
        assert wrapped.is_unused(tx)
        assert wrapped.node_key(tx) is None
    filled(database, now)
    with database.write() as tx:
        assert not wrapped.is_unused(tx)
        assert (wrapped.is_key_of(tx, OLD), wrapped.is_key_of(tx, NEW)) == (True, False)
        rotation = Rotation(former="file:/old", address="file:/new", name=NEW.name, in_place=True)
        for key in (NodeKey(OLD.name, None, rotation), NodeKey(NEW.name, "file:/new")):
            wrapped.put_node_key(tx, key)
            assert wrapped.node_key(tx) == key
        assert (wrapped.is_key_of(tx, OLD), wrapped.is_key_of(tx, NEW)) == (False, True)
