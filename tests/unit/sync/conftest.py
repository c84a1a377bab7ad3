"""What sync is tested with: a database, a vault, a policy with three tiers, and a device's keys."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.ids import node_name
from datasync.policy.compiled import Policy
from datasync.policy.loading import load
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority
from datasync.security.vault import Vault
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf

POLICY = b"""
schema: datasync.policy/v1
id: sync
revision: 1
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme]
purposes: [test.run]
transforms:
  pid: {op: hmac, key: subject, rotate: 30d, from: user-private, to: edge-private}
  hour: {op: truncate, unit: 1h, from: edge-private, to: public}
collections:
  steps:
    kind: stream
    subject: who
    time: at
    meta: {region: public, model: edge-private}
    fields:
      who: {type: string, tier: user-private, up: {edge: [pid]}}
      at: {type: timestamp, tier: edge-private, up: {cloud: [hour]}}
      number: {type: int64, tier: edge-private}
      label: {type: string, tier: public}
      secret: {type: string}
    raise:
      - {to: edge-private, where: [[label, eq, hush]]}
  other:
    kind: stream
    subject: who
    fields:
      who: {type: string, tier: user-private}
      label: {type: string, tier: public}
workers:
  coach: {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [test.run]}
rules:
  - {id: R1, effect: allow, to: {worker: coach}, data: steps, fields: [number, label]}
consent:
  basis: {test.run: contract}
"""


@pytest.fixture
def now() -> Instant:
    return Instant(1_800_000_000_000, 0)


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load(POLICY)


@pytest.fixture(scope="session")
def watch() -> Identity:
    """A device, with the keys of its streams."""
    start = Instant(1_800_000_000_000, 0)
    return Authority.create("acme", start).enrol(node_name("watch-1"), Role.DEVICE, now=start)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path}/node.db")
    yield opened
    opened.close()


@pytest.fixture
def tx(database: Database) -> Iterator[Connection]:
    """One transaction of the database, for a whole test."""
    with database.write() as opened:
        yield opened


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    keys = Database.open(f"sqlite:///{tmp_path}/keys.db")
    yield Vault(secrets.token_bytes(32), SqlKeyShelf(keys), secrets.token_bytes)
    keys.close()
