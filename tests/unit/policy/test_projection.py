"""The split of the city's trips: who gets which columns and which rows."""

import hashlib
import hmac

import numpy as np
import pyarrow as pa
import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import CollectionUnknown, RecordError
from datasync.domain.tiers import Tier
from datasync.policy.projection import split, to_batch
from tests.unit.policy.city import city, untested

NOW = Instant(1_700_000_000_000, 0)
KEY = b"k" * 32
TRIP = {
    "user_id": "ann",
    "gps": {"lat": -37.8136, "lon": 144.9631},
    "started": "2024-05-01T13:30:00Z",
    "speed": 12.5,
    "mode": "bike",
    "note": "to the doctor",
}


def layers_of(policy, rows):
    batch = to_batch(policy.collections["trips"], rows)
    layers = split(policy, "trips", batch, subject_key=lambda name, period: KEY, now=NOW)
    return {layer.tier: layer for layer in layers}


def test_a_trip_becomes_three_layers_with_the_forms_of_their_tiers():
    layers = layers_of(city(), [TRIP])
    shown = {tier.label: layer.batch.to_pylist()[0] for tier, layer in layers.items()}
    times = {label: str(cells.pop("started")) for label, cells in shown.items()}

    assert shown == {
        "user-private": {"user_id": "ann", "gps": TRIP["gps"], "note": "to the doctor"},
        "edge-private": {
            "user_id": hmac.new(KEY, b"ann", hashlib.sha256).hexdigest()[:32],
            "gps": "r1r0f",
            "speed": 12.5,
        },
        "public": {"gps": "r1r", "speed": "10-30", "mode": "bike"},
    }
    assert times == {
        "user-private": "2024-05-01 13:30:00+00:00",
        "edge-private": "2024-05-01 13:00:00+00:00",
        "public": "2024-05-01 00:00:00+00:00",
    }


def test_layers_come_low_to_high_in_their_schemas_without_positions_when_no_row_is_lifted():
    policy = city()
    layers = layers_of(policy, [TRIP, TRIP])

    assert list(layers) == [Tier.PUBLIC, Tier.EDGE_PRIVATE, Tier.USER_PRIVATE]
    for tier, layer in layers.items():
        assert layer.positions is None
        assert layer.batch.schema == policy.collections["trips"].layer_schema(tier)


def test_a_lifted_row_is_whole_in_its_layer_and_absent_below():
    rows = [TRIP, {**TRIP, "mode": "private_road"}, TRIP]
    layers = layers_of(city(), rows)

    assert layers[Tier.USER_PRIVATE].positions is None
    for tier in (Tier.PUBLIC, Tier.EDGE_PRIVATE):
        assert layers[tier].positions.tolist() == [0, 2]
        assert layers[tier].batch.num_rows == 2
        assert layers[tier].positions.dtype == np.int64
    assert layers[Tier.USER_PRIVATE].batch.column("mode").to_pylist() == [None, "private_road", None]
    assert layers[Tier.USER_PRIVATE].batch.column("speed").to_pylist() == [None, 12.5, None]


def test_a_row_of_which_it_is_unknown_whether_it_is_more_private_is_lifted():
    layers = layers_of(city(), [{**TRIP, "mode": None}])

    assert layers[Tier.PUBLIC].batch.num_rows == 0
    assert layers[Tier.PUBLIC].positions.tolist() == []


def test_exists_takes_the_unknown_out_of_a_raise():
    policy = city(("where: [[mode, eq, private_road]]", "where: [[mode, exists, true], [mode, eq, private_road]]"))

    assert layers_of(policy, [{**TRIP, "mode": None}])[Tier.PUBLIC].positions is None


def test_a_row_lifted_to_the_edge_brings_its_public_columns_there():
    layers = layers_of(
        city(("{to: user-private, where", "{to: edge-private, where")), [{**TRIP, "mode": "private_road"}]
    )

    assert layers[Tier.PUBLIC].batch.num_rows == 0
    assert layers[Tier.EDGE_PRIVATE].batch.column("mode").to_pylist() == ["private_road"]
    assert "speed" in layers[Tier.EDGE_PRIVATE].batch.schema.names
    assert "mode" not in layers[Tier.USER_PRIVATE].batch.schema.names


def test_the_highest_of_several_raises_wins_in_any_order():
    one = "- {to: user-private, where: [[mode, eq, private_road]]}"
    other = "- {to: edge-private, where: [[mode, exists, true]]}"
    for first, second in ((one, other), (other, one)):
        policy = city((one, f"{first}\n      {second}"))
        layers = layers_of(policy, [TRIP, {**TRIP, "mode": "private_road"}])
        assert layers[Tier.PUBLIC].positions.tolist() == []
        assert layers[Tier.EDGE_PRIVATE].positions.tolist() == [0]


def test_a_target_of_raise_without_forms_of_its_own_has_a_layer_with_all_rows():
    public = city(
        ("tier: edge-private, up: {cloud: [band]}", "tier: public"),
        ("user_id: {type: string,    tier: user-private, up: {edge: [pid]}}", "user_id: {type: string}"),
        ("up: {edge: [cell], cloud: [cell, area]}", "up: {cloud: [cell, area]}"),
        ("up: {edge: [hour], cloud: [hour, day]}", "up: {cloud: [hour, day]}"),
        ("{to: user-private, where", "{to: edge-private, where"),
        ("expect: {allow: [cell], by: [R1]}", "expect: {allow: [cell, area], by: [R1]}"),
    )
    layer = layers_of(public, [TRIP, {**TRIP, "mode": "private_road"}])[Tier.EDGE_PRIVATE]
    plain = layers_of(public, [TRIP, TRIP])[Tier.EDGE_PRIVATE]

    assert public.collections["trips"].layer_schema(Tier.EDGE_PRIVATE).names == []
    assert layer.batch.column("mode").to_pylist() == [None, "private_road"]
    assert plain.positions is None
    assert plain.batch.num_rows == 2
    assert plain.batch.column("mode").null_count == 2


def test_an_empty_batch_gives_empty_layers():
    for layer in layers_of(city(), []).values():
        assert layer.batch.num_rows == 0
        assert layer.positions is None


def test_a_slice_of_a_batch_gives_the_rows_of_the_slice():
    policy = city()
    batch = to_batch(policy.collections["trips"], [{**TRIP, "user_id": name} for name in ("ann", "bob", "eve")])
    layers = split(policy, "trips", batch.slice(1, 1), subject_key=lambda name, period: KEY, now=NOW)

    assert layers[-1].batch.column("user_id").to_pylist() == ["bob"]
    assert layers[-1].batch.column("gps").to_pylist() == [TRIP["gps"]]
    assert layers[1].batch.column("gps").to_pylist() == ["r1r0f"]


def test_what_is_underneath_a_null_is_in_no_layer():
    policy = city(("where: [[mode, eq, private_road]]", "where: [[mode, exists, true], [mode, eq, private_road]]"))
    batch = to_batch(policy.collections["trips"], [TRIP])
    source = pa.array(["secret"])
    hidden = pa.StringArray.from_buffers(1, source.buffers()[1], source.buffers()[2], pa.py_buffer(b"\x00"))
    mode = batch.schema.get_field_index("mode")
    batch = batch.set_column(mode, batch.schema.field(mode), hidden)
    layers = split(policy, "trips", batch, subject_key=lambda name, period: KEY, now=NOW)

    assert layers[0].batch.column("mode").to_pylist() == [None]
    for layer in layers:
        for column in layer.batch.columns:
            assert not any(b"secret" in each.to_pybytes() for each in column.buffers() if each is not None)


def test_a_target_of_raise_that_would_have_no_columns_has_no_layer():
    policy = untested(
        ("user_id: {type: string,    tier: user-private, up: {edge: [pid]}}", "user_id: {type: string}"),
        (
            "gps:     {type: point,     tier: user-private, up: {edge: [cell], cloud: [cell, area]}}",
            "gps: {type: point}",
        ),
        ("type: timestamp, tier: user-private, up: {edge: [hour], cloud: [hour, day]}", "type: timestamp"),
        ("type: float32,   tier: edge-private, up: {cloud: [band]}", "type: float32"),
        ("type: string,    tier: public", "type: string"),
        ("{to: user-private, where", "{to: edge-private, where"),
        (", where: [[mode, eq, school_bus]]", ""),
        (", [started, ge, now-7d]]", "]"),
        ("{worker: edge-router}, data", "{kind: infer}, data"),
        ("$worker.region", "cbd"),
        ("{worker: cloud-trainer}, data", "{kind: infer}, data"),
    )

    assert list(layers_of(policy, [TRIP])) == [Tier.USER_PRIVATE]


def test_a_batch_in_another_schema_and_an_unknown_collection_are_errors():
    with pytest.raises(RecordError, match="not in the schema of trips"):
        split(city(), "trips", pa.record_batch({"mode": ["bike"]}), subject_key=lambda n, p: KEY, now=NOW)
    with pytest.raises(CollectionUnknown, match="no collection trip"):
        split(city(), "trip", pa.record_batch({"mode": ["bike"]}), subject_key=lambda n, p: KEY, now=NOW)
