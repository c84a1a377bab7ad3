"""Retention: what each place keeps no longer, and what stays however old it is."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from datasync.domain.clock import HybridTime
from datasync.domain.ids import NodeName
from datasync.domain.tiers import Tier
from datasync.handover.states import EdgeState
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import Activate, Arrival, Effects, LinkChange, Move, Record, Turn
from datasync.nodes.retention import INTERVAL_MS, PAGE_SEGMENTS, Retention
from datasync.policy.decide import worker
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from datasync.protocol import topics
from datasync.protocol.messages import Ack
from datasync.store import segments, streams
from datasync.store.segments import NewSegment, State
from datasync.store.streams import Stream
from datasync.views.plan import plan
from datasync.views.read import read
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, POLICY, WATCH, Wire

DAY_MS = 86_400_000
LIMITS = b"{device: 10d, edge: 20d, cloud: 30d}"
DOCUMENTS = b"""
  likes:
    kind: document
    subject: who
    key: name
    retain: {edge: 20d}
    fields:
      who: {type: string, tier: user-private, up: {edge: [pid]}}
      name: {type: string, tier: edge-private}
      seen: {type: int64, tier: edge-private, merge: counter}
      tint: {type: string, tier: public}
workers:"""


def limited(limits: bytes = LIMITS, revision: int = 2) -> bytes:
    """Return the wire's policy with limits, and with documents that an edge keeps for 20 days."""
    source = POLICY.replace(b"    subject: who\n", b"    subject: who\n    retain: " + limits + b"\n", 1)
    return source.replace(b"revision: 1\n", b"revision: %d\n" % revision).replace(b"\nworkers:", DOCUMENTS, 1)


@pytest.fixture
def net(net: Wire) -> Wire:
    """Nodes under a policy that says how long each place keeps steps."""
    net.give(CLOUD, Activate(2, limited()))
    net.wait(500)
    return net


def later(net: Wire, days: float) -> None:
    """Let days pass at once, and then long enough for every node to look twice."""
    net.now_ms += int(days * DAY_MS)
    net.wait(2 * INTERVAL_MS, step_ms=INTERVAL_MS)
    net.wait(2_000)


def change(net: Wire, **values: object) -> None:
    """Change a document."""
    collection = load(limited()).collection("likes")
    net.give(WATCH, Record(1, "likes", to_batch(collection, [{"who": "ann", "name": "walk", **values}])))
    net.wait(1_000)


def rows(net: Wire, name: NodeName, collection: str) -> int:
    return sum(each.rows for each in net.nodes[name].segments() if each.collection == collection)


def own(net: Wire) -> list[Stream]:
    """The device's streams, as it knows them."""
    with net.nodes[WATCH].database.read() as tx:
        return streams.of_device(tx, WATCH)


def claimed(net: Wire, name: NodeName) -> list[int]:
    """How many numbers of each of the device's streams a place says that it has, or had."""
    with net.nodes[name].database.read() as tx:
        return [len(each.have) for each in streams.get(tx, [each.stream for each in own(net)]).values()]


def test_each_place_keeps_rows_for_as_long_as_it_retains_them_and_no_longer(net: Wire) -> None:
    net.record(1, 2, 3)
    kept = []
    for _ in range(4):
        later(net, 9)
        kept.append([name for name in (WATCH, CBD, CLOUD) if net.nodes[name].rows()])
    assert kept == [[WATCH, CBD, CLOUD], [CBD, CLOUD], [CLOUD], []]


def test_rows_that_are_younger_stay(net: Wire) -> None:
    net.record(1, 2)
    later(net, 15)
    net.record(3)
    later(net, 6)
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}
    assert net.nodes[CLOUD].rows() == {"public": 3}


def test_age_is_that_of_the_capture_and_not_of_what_is_told(net: Wire) -> None:
    later(net, 100)
    net.record(1)
    later(net, 9)
    assert net.nodes[WATCH].rows() == {"public": 1, "edge-private": 1, "user-private": 1}


@pytest.mark.parametrize("limits", [b"{device: 1d}", b"{cloud: 1d}"])
def test_a_place_that_is_not_named_keeps_everything(net: Wire, limits: bytes) -> None:
    net.record(1)
    net.give(CLOUD, Activate(3, limited(limits, revision=3)))
    later(net, 100)
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}


def test_a_policy_that_keeps_less_counts_from_the_next_look(net: Wire) -> None:
    net.record(1)
    later(net, 5)
    assert net.nodes[CBD].rows() != {}
    net.give(CLOUD, Activate(3, limited(b"{edge: 4d}", revision=3)))
    net.wait(INTERVAL_MS, step_ms=INTERVAL_MS)
    assert net.nodes[CBD].rows() == {}
    assert net.nodes[WATCH].rows() != {}


def test_what_the_cloud_lacks_stays_at_the_edge_and_on_the_device_with_all_layers(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.cloud_in(CBD)
    net.record(1, 2)
    later(net, 100)
    assert net.nodes[CBD].rows() == {"public": 2, "edge-private": 2}
    assert net.nodes[WATCH].rows() == {"public": 2, "edge-private": 2, "user-private": 2}
    net.lose = lambda _: False
    net.wait(120_000, step_ms=5_000)
    later(net, 0)
    assert net.nodes[CBD].rows() == net.nodes[WATCH].rows() == {}
    assert claimed(net, CLOUD) == [2]


def test_what_never_left_the_device_stays_on_it(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.device_segments(WATCH)
    net.record(1)
    later(net, 100)
    assert net.nodes[WATCH].rows() == {"public": 1, "edge-private": 1, "user-private": 1}


def test_rows_that_were_deleted_are_acknowledged_and_not_taken_a_second_time(net: Wire) -> None:
    net.record(1, 2)
    upload = next(each for each in net.sent if each.topic == topics.device_segments(WATCH))
    forwarded = [each for each in net.sent if each.topic == topics.cloud_in(CBD)]
    later(net, 50)
    again = net.give(CBD, Arrival(DEVICES, upload.topic, upload.payload), deliver=False)
    (ack,) = net.said(Ack, again)
    assert [len(ranges) for ranges in ack.durable.values()] == [2, 2]
    for each in forwarded:
        net.give(CLOUD, Arrival(BACKBONE, each.topic, each.payload), deliver=False)
    assert net.nodes[CBD].rows() == net.nodes[CLOUD].rows() == {}
    assert net.count("stored", "duplicates") == 3
    assert (claimed(net, CBD), claimed(net, CLOUD)) == ([2, 2], [2])
    net.record(3)
    assert net.nodes[CLOUD].rows() == {"public": 1}


def test_a_handover_keeps_what_the_source_owes_and_the_target_deletes_it_in_its_turn(net: Wire) -> None:
    net.record(1, 2)
    net.lose = lambda each: each.topic == topics.edge_in(CBD, DOCKS)  # the fence
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(1_000)
    net.lose = lambda each: each.topic == topics.edge_in(DOCKS, CBD)  # what it gives
    net.wait(5_000)
    assert net.state(CBD) is EdgeState.FROZEN
    later(net, 100)
    assert net.nodes[CBD].rows() == {"public": 2, "edge-private": 2}
    net.lose = lambda _: False
    net.wait(60_000, step_ms=1_000)
    assert net.account(DOCKS).mode == "full"
    later(net, 0)
    assert net.nodes[DOCKS].rows() == net.nodes[CBD].rows() == {}


def test_an_edge_deletes_nothing_of_a_device_whose_state_it_still_awaits(net: Wire) -> None:
    change(net, seen=1)
    net.lose = lambda each: each.topic == topics.edge_in(DOCKS, CBD)
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(6_000)
    net.record(1)
    assert net.account(DOCKS).mode == "degraded"
    later(net, 100)
    assert rows(net, DOCKS, "steps") == 2
    net.lose = lambda _: False
    net.wait(60_000, step_ms=1_000)
    later(net, 0)
    assert net.nodes[DOCKS].rows() == {}


def test_a_documents_changes_stay_while_it_lives_and_go_together(net: Wire) -> None:
    change(net, seen=1, tint="red")
    later(net, 15)
    change(net, seen=2)
    later(net, 15)
    assert rows(net, CBD, "likes") == 2 * 2
    later(net, 6)
    assert rows(net, CBD, "likes") == 0
    assert rows(net, WATCH, "likes") == 3 * 2
    assert rows(net, CLOUD, "likes") == 2


def test_a_document_of_which_a_change_is_owed_stays_whole(net: Wire) -> None:
    change(net, seen=1)
    net.lose = lambda each: each.topic == topics.cloud_in(CBD)
    change(net, seen=2)
    later(net, 100)
    assert rows(net, CBD, "likes") == 2 * 2


def test_what_was_deleted_is_counted_by_collection_and_noted_once(net: Wire) -> None:
    net.record(1, 2)
    net.record(3)
    net.now_ms += 25 * DAY_MS
    looked = list(looks(net, CBD))
    assert sum(each.counts["retention segments", "steps"] for each in looked) == 4
    assert sum(each.counts["retention rows", "steps"] for each in looked) == 6
    assert [note for each in looked for note in each.notes] == [
        "retention: deleted 6 rows of steps, which were too old"
    ]
    assert [note for each in looks(net, CBD) for note in each.notes] == []


def test_a_view_that_was_being_read_goes_on_without_what_was_deleted(net: Wire) -> None:
    net.record(1, 2)
    later(net, 15)
    net.record(3)
    edge, policy = net.nodes[CBD], load(limited())
    coach = plan(policy, worker(policy, "coach"), "steps", "test.run")
    with edge.database.read() as tx:
        (shown,) = read(tx, edge.kit.vault, coach, net.now, chunk_rows=10)
    assert shown.batch["number"].to_pylist() == [1, 2, 3]
    with edge.database.read() as tx:
        first = next(read(tx, edge.kit.vault, coach, net.now, chunk_rows=2))
    later(net, 25)
    with edge.database.read() as tx:
        rest = list(read(tx, edge.kit.vault, coach, net.now, after=first.cursor, until=shown.cursor))
    assert first.batch["number"].to_pylist() == [1, 2]
    assert [row for chunk in rest for row in chunk.batch.to_pylist()] == []
    assert not any(chunk.withheld for chunk in rest)


def test_what_is_deleted_is_not_left_in_the_database_file(net: Wire) -> None:
    net.record(1)
    edge = net.nodes[CBD]
    with edge.database.read() as tx:
        bodies = segments.bodies(tx, [each.id for each in edge.segments()]).values()
    written = checkpointed(net, CBD)
    assert all(body[:256] in written for body in bodies)
    later(net, 25)
    written = checkpointed(net, CBD)
    assert not any(body[:256] in written for body in bodies)


def checkpointed(net: Wire, name: NodeName) -> bytes:
    """Return the bytes of a node's database file once the log is in it."""
    with net.nodes[name].database.read() as tx:
        path = tx.exec_driver_sql("PRAGMA database_list").one()[2]
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return Path(path).read_bytes()


# --- many segments, made by hand


def looks(net: Wire, name: NodeName) -> Iterator[Effects]:
    """Let a new node's retention look, a transaction at a time, until it wants to come later."""
    retention = Retention(net.nodes[name].node)
    while True:
        with net.nodes[name].database.write() as tx:
            turn = Turn(tx, net.now)
            retention.duties(turn)
        yield turn.effects
        if turn.effects.wake_ms != net.now.steady_ms:
            assert turn.effects.wake_ms == net.now.steady_ms + INTERVAL_MS
            return


def made(net: Wire, stream: Stream, number: int, age_days: float, state: State) -> NewSegment:
    return NewSegment(
        body=b"body",
        visible=True,
        stream=stream.stream,
        collection="steps",
        tier=stream.tier,
        seq_first=number,
        seq_last=number,
        rows=1,
        bytes=4,
        captured=HybridTime(net.now.wall_ms - int(age_days * DAY_MS), 0),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest="",
        meta={},
        hash="",
        key_id="",
        state=state,
        checkpoint=1,
    )


def add(net: Wire, name: NodeName, held: list[NewSegment]) -> None:
    with net.nodes[name].database.write() as tx:
        segments.append(tx, held)


def test_a_transaction_looks_at_a_page_and_the_next_goes_on_at_once(net: Wire) -> None:
    net.record(1)
    public = next(each for each in own(net) if each.tier is Tier.PUBLIC)
    count = 2 * PAGE_SEGMENTS + 1
    add(net, CLOUD, [made(net, public, 10 + number, 40, State.LOCAL) for number in range(count)])
    deleted = [each.counts["retention segments", "steps"] for each in looks(net, CLOUD)]
    assert [number for number in deleted if number] == [PAGE_SEGMENTS, PAGE_SEGMENTS, 1]


def test_what_is_owed_does_not_keep_a_look_from_going_on(net: Wire) -> None:
    net.record(1)
    public = next(each for each in own(net) if each.tier is Tier.PUBLIC)
    owed = [made(net, public, 10 + number, 50, State.WAITING) for number in range(PAGE_SEGMENTS)]
    add(net, CLOUD, [*owed, made(net, public, 5_000, 40, State.LOCAL)])
    assert sum(each.counts["retention segments", "steps"] for each in looks(net, CLOUD)) == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [WATCH, CBD])
def test_exactly_the_batches_go_that_are_old_and_of_which_no_layer_is_owed(
    net: Wire, name: NodeName, seed: int
) -> None:
    net.record(1)
    net.give(WATCH, LinkChange(CBD, up=False))
    drawn, limit = random.Random(seed), {WATCH: 10, CBD: 20}[name]
    with net.nodes[name].database.read() as tx:
        layers = streams.of_device(tx, WATCH)
    expected, held = {0}, []
    for number in range(10, 120):
        age = drawn.choice([0.0, limit - 0.001, limit + 0.001, 3.0 * limit])
        chosen = drawn.sample(layers, drawn.randint(1, len(layers)))
        batch = [made(net, each, number, age, drawn.choice(list(State))) for each in chosen]
        held += [replace(each, rows=1) for each in batch]
        if age < limit or any(each.state in (State.WAITING, State.DURABLE) for each in batch):
            expected.add(number)
    drawn.shuffle(held)
    add(net, name, held)
    for _ in looks(net, name):
        pass
    left = net.nodes[name].segments()
    assert {each.seq_first for each in left} == expected
    assert len([each for each in left if each.seq_first]) == len([each for each in held if each.seq_first in expected])
