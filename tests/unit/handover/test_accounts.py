"""Accounts in the store, with their secrets."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from datasync.domain.errors import KeyUnavailable
from datasync.domain.ids import HandoverId, NodeName, node_name
from datasync.handover import accounts
from datasync.handover.machine import Account
from datasync.handover.states import EdgeState
from datasync.protocol.parts import SessionKeys
from datasync.security.vault import Vault
from datasync.store.database import Database

WATCH, OTHER = node_name("watch-1"), node_name("watch-2")
CBD, DOCKS = node_name("acme/cbd"), node_name("acme/docks")
KEYS = SessionKeys(session=b"s" * 32, previous={DOCKS: [b"p" * 32, b"q" * 32]})
FULL = Account(
    WATCH,
    EdgeState.FROZEN,
    known=(1, 9),
    served=(1, 8),
    operator="acme",
    token=b"signed",
    nonce=b"n" * 16,
    handover=HandoverId("a" * 32),
    target=DOCKS,
    cold=(DOCKS,),
    pending=(DOCKS, CBD),
    unreleased=(CBD, DOCKS),
    registered=True,
    since_ms=7,
)


def test_a_device_never_heard_of_is_unknown(tx: Connection) -> None:
    assert accounts.load(tx, WATCH) == Account(WATCH)


@pytest.mark.parametrize("account", [Account(WATCH), FULL, replace(FULL, target=None, handover=None, nonce=b"")])
def test_an_account_comes_back_as_it_was(tx: Connection, account: Account) -> None:
    accounts.save(tx, account, CBD, 5)
    assert accounts.load(tx, WATCH) == account


def test_accounts_are_found_by_state_and_by_what_they_owe(tx: Connection) -> None:
    idle = Account(OTHER, EdgeState.ACTIVE, registered=True)
    for account in (FULL, idle):
        accounts.save(tx, account, CBD, 5)
    assert accounts.load_all(tx, [EdgeState.FROZEN]) == [FULL]
    assert accounts.load_all(tx, EdgeState) == [FULL, idle]
    assert accounts.load_owing(tx) == [FULL]
    accounts.save(tx, replace(FULL, pending=(), unreleased=()), CBD, 6)
    assert accounts.load_owing(tx) == []


def test_the_keys_stay_while_the_account_changes_until_they_are_forgotten(tx: Connection, vault: Vault) -> None:
    accounts.save(tx, FULL, CBD, 5)
    assert accounts.load_keys(tx, vault, WATCH) is None
    accounts.save_keys(tx, vault, WATCH, KEYS)
    accounts.save(tx, replace(FULL, state=EdgeState.HELD), CBD, 6)
    assert accounts.load_keys(tx, vault, WATCH) == KEYS
    accounts.save_keys(tx, vault, WATCH, None)
    assert accounts.load_keys(tx, vault, WATCH) is None
    assert accounts.load(tx, WATCH).state is EdgeState.HELD


def test_an_unknown_device_has_no_keys(tx: Connection, vault: Vault) -> None:
    assert accounts.load_keys(tx, vault, NodeName("nobody")) is None


def test_the_keys_are_in_no_file_in_the_clear_and_open_for_their_own_device_alone(
    database: Database, vault: Vault, tmp_path: Path
) -> None:
    with database.write() as tx:
        accounts.save(tx, FULL, CBD, 5)
        accounts.save(tx, replace(FULL, device=OTHER), CBD, 5)
        accounts.save_keys(tx, vault, WATCH, KEYS)
    contents = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert FULL.token in contents
    assert KEYS.session not in contents
    with database.write() as tx:
        tx.exec_driver_sql(
            "UPDATE attachments SET session_key = (SELECT session_key FROM attachments WHERE device = 'watch-1') "
            "WHERE device = 'watch-2'"
        )
        with pytest.raises(KeyUnavailable):
            accounts.load_keys(tx, vault, OTHER)
