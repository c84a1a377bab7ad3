"""Reading: every reader sees what a naive reading of the rows says, whole, once, and nothing that cannot be trusted."""

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasync.domain.tiers import Place, Tier
from datasync.protocol import segment as codec
from datasync.store import segments, streams
from datasync.views.read import CHUNK_BYTES_MAX, PAGE_SEGMENTS_MIN, reader

MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 3), timezones=st.just(UTC))  # noqa: DTZ001
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["u", "v", None]),
            "started": st.none() | MOMENTS,
            "speed": st.none() | st.integers(-5, 50).map(float),
            "mode": st.sampled_from(["bike", "school_bus", "private_road", None]),
            "note": st.none() | st.text(max_size=3),
        }
    ),
    min_size=1,
    max_size=12,
)
GENEROUS = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def raised_to(row):
    """The tier that the policy's `raise` lifts a row to; of a row without a mode it takes the worst."""
    return {None: Tier.USER_PRIVATE, "private_road": Tier.USER_PRIVATE, "school_bus": Tier.EDGE_PRIVATE}.get(
        row["mode"], Tier.PUBLIC
    )


def hour(row):
    return row["started"] and row["started"].replace(minute=0, second=0, microsecond=0)


def day(row):
    return row["started"] and row["started"].replace(hour=0, minute=0, second=0, microsecond=0)


def band(row):
    limits = {0: "<0", 10: "0-10", 30: "10-30"}
    speed = row["speed"]
    return None if speed is None else next((text for limit, text in limits.items() if speed < limit), ">=30")


def at_device(row):
    return row


def at_edge(row):
    return {"started": hour(row), "speed": row["speed"], "mode": row["mode"]}


def in_public(row):
    return {"started": day(row), "speed": band(row), "mode": row["mode"]}


def mode_alone(row):
    return {"mode": row["mode"]}


@pytest.mark.parametrize(
    ("place", "worker", "highest", "seen"),
    [
        (Place.DEVICE, "coach", Tier.USER_PRIVATE, at_device),
        (Place.EDGE, "router", Tier.EDGE_PRIVATE, at_edge),
        (Place.EDGE, "counter", Tier.EDGE_PRIVATE, mode_alone),
        (Place.EDGE, "tourist", Tier.PUBLIC, in_public),
    ],
    ids=["device", "edge", "one column that raised rows have elsewhere", "public clearance"],
)
def test_a_reader_sees_what_a_loop_over_the_rows_would_show(make_site, place, worker, highest, seen):
    site = make_site(place)
    cursor = 0

    @GENEROUS
    @given(st.lists(ROWS, max_size=3))
    def check(batches):
        nonlocal cursor
        for rows in batches:
            site.capture("watch-1", rows)
        chunks = site.chunks(worker, after=cursor, chunk_rows=10)
        shown = [row for chunk in chunks for row in chunk.batch.to_pylist()]
        assert shown == [seen(row) for rows in batches for row in rows if raised_to(row) <= highest]
        assert not any(chunk.withheld for chunk in chunks)
        cursor = chunks[-1].cursor if chunks else cursor

    check()


def test_the_cloud_sees_the_public_layer_without_knowing_whose_it_is(edge, cloud, trip):
    edge.capture("watch-1", [trip(speed=5.0), trip("school_bus"), trip(speed=20.0)])
    edge.forward_public(cloud)
    assert [row["speed"] for row in cloud.rows("trainer", "research.stats")] == ["0-10", "10-30"]


@pytest.mark.parametrize("chunk_rows", [1, 3, 4, 7, 1000])
def test_chunks_hold_whole_batches_within_their_limit_and_every_cursor_is_a_place_to_resume(edge, trip, chunk_rows):
    for number in range(6):
        edge.capture(f"watch-{number % 3}", [trip(speed=float(3 * number + offset)) for offset in range(3)])
    everything = [float(number) for number in range(18)]
    chunks = edge.chunks("router", chunk_rows=chunk_rows)
    assert all(chunk.batch.num_rows <= max(chunk_rows, 3) for chunk in chunks)
    assert [row["speed"] for chunk in chunks for row in chunk.batch.to_pylist()] == everything
    read_so_far = 0
    for chunk in chunks:
        read_so_far += chunk.batch.num_rows
        rest = edge.rows("router", after=chunk.cursor)
        assert [row["speed"] for row in rest] == everything[read_so_far:]


def test_a_reader_that_resumes_loses_and_repeats_nothing_while_batches_arrive_leave_and_return(edge, trip):
    seen, cursor, number = [], 0, 0.0
    for step in range(8):
        for device in ("watch-1", "watch-2"):
            edge.capture(device, [trip(speed=number), trip(speed=number + 1)])
            number += 2
        if step == 3:  # a device that moved away takes its rows along, the newest positions included
            gone = [edge.stream("watch-2", tier) for tier in (Tier.PUBLIC, Tier.EDGE_PRIVATE)]
            with edge.database.write() as tx:
                segments.conceal(tx, gone)
        for chunk in edge.chunks("router", after=cursor, chunk_rows=3):
            seen += [row["speed"] for row in chunk.batch.to_pylist()]
            cursor = chunk.cursor
    lost = {14.0, 15.0}  # what watch-2 brought in step 3 was gone before it was read
    assert seen == [value for value in map(float, range(int(number))) if value not in lost]


def test_nothing_is_read_beyond_the_end_that_was_set(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    until = edge.chunks("router")[-1].cursor
    edge.capture("watch-1", [trip(speed=2.0)])
    assert [row["speed"] for row in edge.rows("router", until=until)] == [1.0]


def test_when_there_is_nothing_new_nothing_is_given(edge, trip):
    assert edge.chunks("router") == []
    edge.capture("watch-1", [trip()])
    assert edge.chunks("router", after=edge.chunks("router")[-1].cursor) == []


def test_large_columns_are_spread_over_chunks(make_site, trip):
    device = make_site(Place.DEVICE)
    note = "x" * (CHUNK_BYTES_MAX // 2 + 1)
    for _ in range(3):
        device.capture("watch-1", [trip(note=note)])
    assert [chunk.batch.num_rows for chunk in device.chunks("coach")] == [2, 1]


def test_columns_that_are_not_shown_count_for_the_memory_of_a_chunk(make_site, trip):
    device = make_site(Place.DEVICE)
    source = device.policy.source.decode().replace("revision: 1", "revision: 2")
    device.activate(
        source.replace(
            "to: {worker: coach}, data: trips, fields: '*'", "to: {worker: coach}, data: trips, fields: [user_id]"
        )
    )
    note = "x" * (CHUNK_BYTES_MAX // 2 + 1)
    for _ in range(3):
        device.capture("watch-1", [trip(note=note)])
    assert [chunk.batch.to_pylist() for chunk in device.chunks("coach")] == [[{"user_id": "u"}] * 2, [{"user_id": "u"}]]


def test_more_segments_than_one_page_of_metadata_are_all_read(edge, cloud, trip):
    for number in range(PAGE_SEGMENTS_MIN + 10):
        edge.capture("watch-1", [trip(note=str(number), hour=24 * number)])
    edge.forward_public(cloud)
    days = [row["started"] for row in cloud.rows("trainer", "research.stats")]
    assert len(days) == len(set(days)) == PAGE_SEGMENTS_MIN + 10


def test_bodies_are_fetched_in_lots(edge, trip, monkeypatch):
    monkeypatch.setattr("datasync.views.batches.LOT_BYTES_MAX", 1)
    for number in range(4):
        edge.capture("watch-1", [trip(speed=float(number))])
    assert [row["speed"] for row in edge.rows("router")] == [0.0, 1.0, 2.0, 3.0]


def test_an_arrow_reader_reads_the_same(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0), trip(speed=2.0)])
    with edge.database.read() as tx, reader(tx, edge.vault, edge.plan("router"), edge.now) as stream:
        assert stream.schema.names == ["started", "speed", "mode"]
        assert stream.read_all().column("speed").to_pylist() == [1.0, 2.0]


def test_batches_of_many_devices_come_in_the_order_in_which_they_became_visible(edge, trip):
    for number in range(20):
        edge.capture(f"watch-{number % 7}", [trip(speed=float(number))], region=f"r{number % 2}")
    assert [row["speed"] for row in edge.rows("router")] == [float(number) for number in range(20)]


def test_rows_of_devices_whose_constants_python_calls_equal_are_still_judged_apart(edge, trip):
    rule = "{id: R2, effect: allow, to: {worker: router}, data: trips, fields: [started, speed, mode]}"
    split = (
        "{id: R2, effect: allow, to: {worker: router}, data: trips, fields: [mode]}\n"
        "  - {id: R9, effect: allow, to: {worker: router}, data: trips, fields: [speed], where: [[region, eq, true]]}"
    )
    edge.activate(edge.policy.source.decode().replace("revision: 1", "revision: 2").replace(rule, split))
    for number, constant in enumerate((True, 1, 1.0, True)):
        edge.capture(f"watch-{number}", [trip(speed=float(number))], region=constant)
    assert [row["speed"] for row in edge.rows("router")] == [0.0, None, None, 3.0]


def replace_body(site, stored, data, **changes):
    """Store other content in a segment's place."""
    with site.database.write() as tx:
        before = segments.of_stream(tx, stored.stream)
        bodies = segments.bodies(tx, [each.id for each in before])
        segments.delete(tx, [stored.stream])
        kept = [
            site.sealed(each, site.vault.decrypt(each.stream, each.key_id, each.seq_first, bodies[each.id]))
            for each in before
            if each.id != stored.id
        ]
        segments.append(tx, [*kept, site.sealed(stored, data, **changes)])


def content(site, stored):
    with site.database.read() as tx:
        body = segments.bodies(tx, [stored.id])[stored.id]
    return site.vault.decrypt(stored.stream, stored.key_id, stored.seq_first, body)


@pytest.mark.parametrize("position", [-1, -40, 200])
def test_a_segment_that_is_not_the_one_announced_is_not_shown_but_counted(edge, trip, position):
    edge.capture("watch-1", [trip(speed=1.0)])
    edge.capture("watch-2", [trip(speed=2.0)])
    stored = edge.stored(Tier.EDGE_PRIVATE)[0]
    changed = bytearray(content(edge, stored))
    changed[position] ^= 1
    replace_body(edge, stored, bytes(changed))
    assert [row["speed"] for row in edge.rows("router")] == [2.0]
    assert edge.withheld("router") == {"SEGMENT_INVALID": 1}


def test_a_genuine_segment_in_the_place_of_another_is_not_shown(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    edge.capture("watch-1", [trip(speed=2.0)])
    first, second = edge.stored(Tier.EDGE_PRIVATE)
    replace_body(edge, first, content(edge, second))
    assert [row["speed"] for row in edge.rows("router")] == [2.0]
    assert edge.withheld("router") == {"SEGMENT_INVALID": 1}


def test_a_batch_whose_other_layer_was_erased_is_passed_over_and_counted(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    edge.capture("watch-2", [trip(speed=2.0)])
    with edge.database.write() as tx:
        segments.delete(tx, [edge.stream("watch-1", Tier.PUBLIC)])
    assert [row["speed"] for row in edge.rows("router")] == [2.0]
    assert edge.withheld("router") == {"PARTNER_MISSING": 1}


def test_a_batch_whose_other_layer_may_not_be_seen_is_not_shown(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    with edge.database.write() as tx:
        segments.conceal(tx, [edge.stream("watch-1", Tier.PUBLIC)])
    assert edge.rows("router") == []


def test_a_layer_alone_is_enough_for_a_reader_that_needs_no_other(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    with edge.database.write() as tx:
        segments.delete(tx, [edge.stream("watch-1", Tier.EDGE_PRIVATE)])
    assert [row["speed"] for row in edge.rows("tourist")] == ["0-10"]


@pytest.mark.parametrize("tier", [Tier.PUBLIC, Tier.EDGE_PRIVATE])
def test_a_stream_whose_key_was_destroyed_is_passed_over_and_counted(edge, trip, tier):
    edge.capture("watch-1", [trip(speed=1.0)])
    edge.capture("watch-2", [trip(speed=2.0)])
    edge.vault.destroy([edge.stream("watch-1", tier)])
    assert [row["speed"] for row in edge.rows("router")] == [2.0]
    assert edge.withheld("router") == {"KEY_UNAVAILABLE": 1}


def test_layers_that_different_policies_split_are_not_joined(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    public = edge.stored(Tier.PUBLIC)[0]
    signed = codec.parse(content(edge, public))
    batch, _ = codec.rows(signed)
    other = dataclasses.replace(signed.header, policy_digest="0" * 64)
    key = edge.captor("watch-1").stream_key("trips", Tier.PUBLIC, 0)
    made = codec.encode(other, batch, np.arange(1), codec.salt_of(other, key))
    replace_body(edge, public, made.data, hash=made.hash, policy_digest=other.policy_digest)
    assert edge.rows("router") == []
    assert edge.withheld("router") == {"LAYERS_DISAGREE": 1}


def test_a_stream_of_another_device_is_no_partner_whatever_its_numbers(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    edge.capture("watch-2", [trip("bus", speed=2.0)])
    assert [(row["speed"], row["mode"]) for row in edge.rows("router")] == [(1.0, "bike"), (2.0, "bus")]
    with edge.database.read() as tx:
        assert {stream.have.to_list()[0] for stream in streams.of_device(tx, "watch-1")} == {0}


def test_the_hour_of_a_row_is_what_the_edge_sees(edge, trip):
    edge.capture("watch-1", [trip(hour=5)])
    assert edge.rows("router")[0]["started"] - trip(hour=5)["started"] == timedelta(minutes=-30)
    assert edge.chunks("router")[0].batch.schema.field("started").type == pa.timestamp("us", "UTC")
