"""Compacting: when it is done, what is owed until then, and that what fails is tried again."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import make_url, select

from datasync.domain.clock import Instant
from datasync.nodes import compacting
from datasync.nodes.compacting import GATHER_MS, RETRY_MS, Compacting
from datasync.policy.compiled import Policy
from datasync.policy.loading import load
from datasync.security.vault import Vault
from datasync.store import compaction, engines, tables
from datasync.store.compaction import KEYS, ROWS, State
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from tests.conftest import PostgresCluster
from tests.unit.nodes.wire import POLICY

HOUR_MS = 3_600_000
IN_72_HOURS = load(POLICY + b"\nerasure: {shred: immediately, compact: 72h}\n")


@dataclass(slots=True)
class Bench:
    """A node's databases, the clock that it is told, and its compacting."""

    database: Database
    keys: Database
    now_ms: int = 1_000_000
    registry: CollectorRegistry = field(init=False)
    compacting: Compacting = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.registry = CollectorRegistry()
        vault = Vault(bytes(32), SqlKeyShelf(self.keys), bytes)
        self.compacting = Compacting(self.database, vault, self.clock, self.registry)

    def clock(self) -> Instant:
        return Instant(9_000_000 + self.now_ms, self.now_ms)

    def owe(self, what: str) -> None:
        with self.database.write() as tx:
            compaction.owe(tx, what, 9_000_000 + self.now_ms)
        self.compacting.erased()

    def work(self, policy: Policy | None = IN_72_HOURS) -> None:
        if self.compacting.is_due(policy):
            self.compacting.work()

    def owed(self, what: str) -> bool:
        with self.database.read() as tx:
            return compaction.state(tx, what).owed_ms is not None

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    made = Bench(*(Database.open(f"sqlite:///{tmp_path}/{name}.db") for name in ("data", "keys")))
    yield made
    made.database.close()
    made.keys.close()


def test_keys_are_compacted_at_once_with_any_policy_and_without(bench: Bench) -> None:
    for policy in (None, IN_72_HOURS):
        bench.owe(KEYS)
        bench.work(policy)
        assert not bench.owed(KEYS)
        bench.now_ms += HOUR_MS
    assert bench.metric("datasync_compactions_total", what="keys", outcome="done") == 2


def test_where_there_are_few_rows_they_are_compacted_within_a_minute_or_so(bench: Bench) -> None:
    bench.owe(ROWS)
    bench.work()
    assert bench.owed(ROWS)
    assert bench.metric("datasync_compaction_owed", what="rows") == 1
    assert bench.compacting.due_ms == bench.now_ms + GATHER_MS
    bench.now_ms += GATHER_MS
    bench.work()
    assert not bench.owed(ROWS)
    assert bench.metric("datasync_compaction_owed", what="rows") == 0


def test_many_rows_wait_for_half_of_the_time_that_the_policy_gives(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "SMALL_BYTES", 10)
    bench.owe(ROWS)
    for hours, owed in ((0, True), (35, True), (36, False)):
        bench.now_ms = 1_000_000 + hours * HOUR_MS
        bench.work()
        assert bench.owed(ROWS) == owed, hours


def test_without_a_time_in_the_policy_rows_stay_owed_until_one_says_it(bench: Bench) -> None:
    bench.owe(ROWS)
    bench.work(load(POLICY))
    bench.now_ms += 1_000 * HOUR_MS
    bench.work(load(POLICY))
    assert bench.owed(ROWS)
    bench.work(IN_72_HOURS)
    assert not bench.owed(ROWS)


def test_what_a_reader_prevents_is_tried_again_ever_less_often_and_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(engines._SQLITE_SETTINGS, "busy_timeout", 50)
    bench.work()
    bench.keys.close()  # connections with the shorter wait
    waits = []
    with bench.keys.read() as tx:
        assert tx.execute(select(tables.data_keys)).all() == []
        bench.owe(KEYS)
        for _ in range(3):
            bench.work()
            due_ms = bench.compacting.due_ms
            assert due_ms is not None
            waits.append(due_ms - bench.now_ms)
            bench.now_ms = due_ms
    assert waits == [RETRY_MS, 2 * RETRY_MS, 4 * RETRY_MS]
    assert len([each for each in caplog.records if "owed" in each.message]) == 1
    bench.work()
    assert not bench.owed(KEYS)
    assert bench.metric("datasync_compactions_total", what="keys", outcome="failed") == 3


def test_a_node_that_is_started_again_knows_what_is_owed(bench: Bench) -> None:
    bench.owe(KEYS)
    bench.start()
    bench.work()
    with bench.database.read() as tx:
        assert compaction.state(tx, KEYS) == State(None, 9_000_000 + bench.now_ms)


def test_a_node_rests_after_a_long_rewriting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite = Database.compact

    def slowly(database: Database, of) -> None:
        bench.now_ms += 5_000
        rewrite(database, of)

    monkeypatch.setattr(Database, "compact", slowly)
    bench.owe(KEYS)
    bench.work()
    ended_ms = bench.now_ms
    bench.owe(KEYS)
    bench.work()
    assert bench.owed(KEYS)
    bench.now_ms = ended_ms + 20 * 10_000
    bench.work()
    assert not bench.owed(KEYS)


def test_on_postgresql_former_session_keys_go_with_the_keys(
    tmp_path: Path, postgres_url: str, postgres_cluster: PostgresCluster
) -> None:
    bench = Bench(Database.open(postgres_url), Database.open(f"sqlite:///{tmp_path}/keys.db"))
    former, present = (bytes([number]) * 60 for number in (0xA5, 0x5A))
    zeros = dict.fromkeys(("incarnation", "epoch", "since_ms", "updated_ms"), 0)
    row = {"device": "watch-7", "state": "held", "session_key": former, "owes": False, "detail": "{}", **zeros}
    with bench.database.write() as tx:
        tx.execute(tables.attachments.insert(), row)
    with bench.database.write() as tx:
        tx.execute(tables.attachments.update().values(session_key=present))

    def held(secret: bytes) -> bool:
        name = make_url(postgres_url).database or ""
        return any(secret in contents for contents in postgres_cluster.files(name).values())

    assert (held(former), held(present)) == (True, True)
    bench.owe(KEYS)
    bench.work(None)
    assert (held(former), held(present)) == (False, True)
    bench.database.close()
    bench.keys.close()
