"""Every query on the way of a message uses an index: its cost does not grow with what else is stored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, event

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.protocol import checkpoint
from datasync.store import (
    ageing,
    attachments,
    checkpoints,
    consents,
    handovers,
    peers,
    segments,
    streams,
    tables,
    workers,
)
from datasync.store.ageing import Aged
from datasync.store.checkpoints import Standing
from datasync.store.database import Database
from datasync.store.segments import NewSegment, Settled, State, StoredSegment
from datasync.views.withdrawals import withdrawn

A, B = StreamId("a" * 32), StreamId("b" * 32)
RANGES = RangeSet.of([(0, 99), (200, 299)])
LAYER = ("trips", Tier.EDGE_PRIVATE)
SHARED = {each.name for each in fields(StoredSegment)} - {"id", "position"}
BASE = StoredSegment(
    id=1,
    position=1,
    stream=A,
    collection="trips",
    tier=Tier.PUBLIC,
    seq_first=0,
    seq_last=9,
    rows=10,
    bytes=1,
    captured=HybridTime(0, 0),
    time_min_ms=None,
    time_max_ms=None,
    policy_digest="",
    meta={},
    hash="",
    key_id="",
    state=State.WAITING,
    checkpoint=1,
)
AGED = [Aged(1, A, "watch-1", 10, 0, HybridTime(0, 0)), Aged(2, B, None, 10, 0, HybridTime(0, 0))]
HIDDEN = NewSegment(body=b"body", visible=False, **{name: getattr(BASE, name) for name in SHARED})


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    opened = Database.open(sqlite_url)
    yield opened
    opened.close()


@contextmanager
def plan_of(tx: Connection) -> Iterator[list[str]]:
    """Collect SQLite's plan of each statement that runs in the block."""
    plan: list[str] = []

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        explained = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters[0] if many else parameters)
        plan.extend(row[3] for row in explained)

    event.listen(tx, "before_cursor_execute", explain)
    yield plan
    event.remove(tx, "before_cursor_execute", explain)


CHECKPOINT = checkpoint.sign([checkpoint.Entry(0, 3, "e" * 64)], Ed25519PrivateKey.from_private_bytes(bytes(32)))

QUERIES: dict[str, Callable[[Connection], object]] = {
    "visible": lambda tx: segments.visible(tx, *LAYER, after=5, limit=10),
    "visible with conditions": lambda tx: segments.visible(
        tx, *LAYER, after=5, limit=10, extra=[tables.segments.c.time_max_ms > 3]
    ),
    "waiting": lambda tx: segments.waiting(tx, after_id=5, limit=10),
    "waiting, newest": lambda tx: segments.waiting(tx, after_id=5, limit=10, newest=True),
    "of_stream": lambda tx: segments.of_stream(tx, A),
    "of_stream within": lambda tx: segments.of_stream(tx, A, RANGES),
    "bodies": lambda tx: segments.bodies(tx, [1, 2, 3]),
    "mark": lambda tx: segments.mark(tx, A, RANGES, State.SAFE, from_states=[State.WAITING]),
    "mark_these": lambda tx: segments.mark_these(tx, [1, 2], State.SAFE, from_states=[State.WAITING]),
    "unsigned": lambda tx: segments.unsigned(tx, [A, B], RANGES),
    "unsigned_at": lambda tx: segments.unsigned_at(tx, [(A, 1), (B, 2)]),
    "sign": lambda tx: segments.sign(tx, {1: 1, 2: 1}),
    "settle": lambda tx: segments.settle(tx, [Settled(1, 1, True, State.LOCAL)]),
    "attachments.states": lambda tx: attachments.states(tx, ["watch-1", "watch-2"]),
    "checkpoints in a standing": lambda tx: checkpoints.in_standing(tx, Standing.PENDING, limit=10),
    "checkpoints of segments": lambda tx: checkpoints.of_segments(tx, [1, 2]),
    "checkpoints.add": lambda tx: checkpoints.add(tx, [CHECKPOINT], Standing.KNOWN),
    "checkpoints owed": lambda tx: checkpoints.owed_of_sent(tx, limit=10),
    "checkpoints acknowledged": lambda tx: checkpoints.acknowledge(tx, {A: RANGES}),
    "checkpoints again": lambda tx: checkpoints.again(tx, A, RANGES, Standing.PENDING),
    "checkpoints pending": lambda tx: checkpoints.pending_of(tx, [A, B]),
    "checkpoints idle": lambda tx: checkpoints.delete_idle(tx, A, 3, 9),
    "checkpoints.delete": lambda tx: checkpoints.delete(tx, [A, B]),
    "partners": lambda tx: segments.partners(tx, [BASE], [Tier.EDGE_PRIVATE, Tier.USER_PRIVATE]),
    "count": lambda tx: segments.count(tx, [State.WAITING, State.DURABLE]),
    "conceal": lambda tx: segments.conceal(tx, [A, B]),
    "delete": lambda tx: segments.delete(tx, [A, B]),
    "captured_before": lambda tx: ageing.captured_before(tx, "trips", HybridTime(9, 0), after=None, limit=10),
    "captured_before, resumed": lambda tx: ageing.captured_before(
        tx, "trips", HybridTime(9, 0), after=AGED[0], limit=10
    ),
    "streams_after": lambda tx: ageing.streams_after(tx, A, 10),
    "withdrawn": lambda tx: withdrawn(tx, [A, B], {"research": "opt_in", "routing": "opt_out"}, HybridTime(9, 0)),
    "of_stream by number": lambda tx: ageing.of_stream(tx, A, after_seq=5, limit=10),
    "whole_batches": lambda tx: ageing.whole_batches(tx, AGED),
    "owed_streams": lambda tx: ageing.owed_streams(tx, [A, B]),
    "living": lambda tx: ageing.living(tx, AGED, HybridTime(5, 0)),
    "layers": lambda tx: ageing.layers(tx, A),
    "size": lambda tx: ageing.size(tx, [A, B]),
    "ageing.delete": lambda tx: ageing.delete(tx, AGED),
    "streams.get": lambda tx: streams.get(tx, [A, B]),
    "streams.of_device": lambda tx: streams.of_device(tx, "watch-1"),
    "streams.put_have": lambda tx: streams.put_have(tx, {A: RANGES, B: RANGES}),
    "streams.delete": lambda tx: streams.delete(tx, [A, B]),
    "attachments.get": lambda tx: attachments.get(tx, "watch-1"),
    "attachments.all": lambda tx: attachments.all(tx, ["attached", "frozen"]),
    "handovers.get": lambda tx: handovers.get(tx, "d" * 32),
    "handovers of a device": lambda tx: handovers.all(tx, device="watch-1", limit=5),
    "consents": lambda tx: consents.of_streams(tx, [A, B], "research"),
    "consents.waiting": lambda tx: consents.waiting(tx, limit=10),
    "peers": lambda tx: peers.all(tx, "edge"),
    "workers.by_token": lambda tx: workers.by_token(tx, "f" * 64, Instant(0, 0)),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_searches_an_index_and_scans_no_table(database: Database, name: str) -> None:
    with database.write() as tx, plan_of(tx) as plan:
        QUERIES[name](tx)
    assert [step for step in plan if step.startswith("SEARCH")] != []
    assert [step for step in plan if step.startswith("SCAN")] == []


@pytest.mark.parametrize(
    "name",
    [
        "visible",
        "visible with conditions",
        "waiting",
        "waiting, newest",
        "of_stream",
        "captured_before",
        "captured_before, resumed",
        "of_stream by number",
    ],
)
def test_a_page_is_read_in_the_order_of_an_index_and_not_sorted(database: Database, name: str) -> None:
    with database.write() as tx, plan_of(tx) as plan:
        QUERIES[name](tx)
    assert [step for step in plan if "TEMP B-TREE" in step] == []


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("visible", "ix_segments_collection_tier_position (collection=? AND tier=? AND position>?)"),
        ("waiting", "ix_segments_state_id (state=? AND id>?)"),
        ("mark", "(stream_id=? AND seq_first>? AND seq_first<?)"),
    ],
)
def test_a_page_starts_where_the_cursor_is(database: Database, name: str, index: str) -> None:
    with database.write() as tx, plan_of(tx) as plan:
        QUERIES[name](tx)
    assert index in plan[0]


def test_revealing_looks_at_the_streams_segments_alone(database: Database) -> None:
    with database.write() as tx:
        segments.append(tx, [HIDDEN])
        with plan_of(tx) as plan:
            assert segments.reveal(tx, [A, B]) == 1
    assert "SCAN segments" not in {step[: len("SCAN segments")] for step in plan}


def test_the_plan_of_a_scan_is_recognised(database: Database) -> None:
    with database.write() as tx, plan_of(tx) as plan:
        segments.counts(tx)
    assert any(step.startswith("SCAN") for step in plan)
