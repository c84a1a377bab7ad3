"""What handovers are tested with: a database, a vault, and names."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.security.vault import Vault
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf


@pytest.fixture
def now() -> Instant:
    return Instant(1_800_000_000_000, 0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path}/node.db")
    yield opened
    opened.close()


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    keys = Database.open(f"sqlite:///{tmp_path}/keys.db")
    yield Vault(secrets.token_bytes(32), SqlKeyShelf(keys), secrets.token_bytes)
    keys.close()


@pytest.fixture
def tx(database: Database) -> Iterator[Connection]:
    """One transaction of the database, for a whole test."""
    with database.write() as opened:
        yield opened
