"""Layers: a join by sequence number equals what a loop over plain rows would give."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import HybridTime
from datasync.domain.ids import stream_id
from datasync.domain.tiers import Tier
from datasync.protocol.segment import Header
from datasync.store.opening import Layer
from datasync.views.layers import join

FIRST = 100
FIELDS = pa.schema(
    [("secret", pa.string()), ("speed", pa.int64()), ("tags", pa.list_(pa.string())), ("mode", pa.string())]
)
OWN = {"secret": Tier.USER_PRIVATE, "speed": Tier.EDGE_PRIVATE, "tags": Tier.PUBLIC, "mode": Tier.PUBLIC}
SOURCES = {name: tuple(tier for tier in Tier if tier >= own) for name, own in OWN.items()}


def layer(tier: Tier, rows: Mapping[int, Mapping[str, Any]], names: list[str]) -> Layer:
    schema = pa.schema([FIELDS.field(name) for name in names])
    batch = pa.RecordBatch.from_pylist([dict(row) for row in rows.values()], schema)
    key = bytes(31) + bytes([tier])
    header = Header(
        stream=stream_id(key),
        public_key=key,
        collection="c",
        tier=tier,
        seq_first=FIRST,
        seq_last=FIRST + 99,
        rows=len(rows),
        captured=HybridTime(0, 0),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest="0" * 64,
        meta={},
        previous="",
    )
    return Layer(header, batch, np.array(list(rows), dtype=np.int64))


values = st.fixed_dictionaries(
    {
        "secret": st.none() | st.text(max_size=2),
        "speed": st.none() | st.integers(0, 9),
        "tags": st.none() | st.lists(st.none() | st.text(max_size=1), max_size=2),
        "mode": st.none() | st.text(max_size=2),
    }
)
batches = st.lists(st.tuples(values, st.sampled_from(Tier)), max_size=12)


def naive_layers(batch: list[tuple[dict[str, Any], Tier]]) -> dict[Tier, Layer]:
    """Split rows, each raised to a tier, the way a device does."""
    layers = {}
    for tier in Tier:
        rows = {}
        for offset, (row, raised) in enumerate(batch):
            if raised <= tier:
                lifted = {name for name in OWN if OWN[name] < tier} if raised == tier else set()
                rows[FIRST + offset] = {name: row[name] for name in OWN if OWN[name] == tier or name in lifted}
        any_lifted = any(raised == tier for _, raised in batch) and tier > Tier.PUBLIC
        names = [name for name in OWN if OWN[name] == tier or (any_lifted and OWN[name] < tier)]
        layers[tier] = layer(tier, rows, names)
    return layers


@given(batches)
def test_a_reader_of_all_layers_gets_every_row_back_whole(batch):
    joined = join(FIELDS, SOURCES, naive_layers(batch))
    assert joined.to_pylist() == [row for row, _ in batch]


@given(batches)
def test_a_reader_of_two_layers_gets_the_rows_that_were_not_raised_above_them(batch):
    layers = naive_layers(batch)
    del layers[Tier.USER_PRIVATE]
    seen = [{**row, "secret": None} for row, raised in batch if raised <= Tier.EDGE_PRIVATE]
    assert join(FIELDS, SOURCES, layers).to_pylist() == seen


def test_a_column_of_another_type_is_no_source():
    layers = {Tier.PUBLIC: layer(Tier.PUBLIC, {FIRST: {"mode": "bike"}}, ["mode"])}
    wanted = [pa.field("mode", pa.int64())]
    assert join(wanted, SOURCES, layers).to_pylist() == [{"mode": None}]


def test_a_column_that_no_source_is_listed_for_is_not_shown_though_a_layer_has_it():
    layers = {Tier.PUBLIC: layer(Tier.PUBLIC, {FIRST: {"mode": "bike"}}, ["mode"])}
    assert join(FIELDS, {"mode": (Tier.EDGE_PRIVATE,)}, layers).column("mode").to_pylist() == [None]


def test_layers_of_equal_length_are_still_joined_by_number():
    layers = {
        Tier.EDGE_PRIVATE: layer(Tier.EDGE_PRIVATE, {FIRST: {"speed": 1}, FIRST + 1: {"speed": 2}}, ["speed"]),
        Tier.PUBLIC: layer(Tier.PUBLIC, {FIRST + 1: {"mode": "b"}, FIRST + 2: {"mode": "c"}}, ["mode"]),
    }
    assert join(FIELDS, SOURCES, layers).column("mode").to_pylist() == [None, "b"]


def test_rows_that_only_a_lower_layer_has_are_not_shown():
    layers = {
        Tier.EDGE_PRIVATE: layer(Tier.EDGE_PRIVATE, {FIRST + 1: {"speed": 1}}, ["speed"]),
        Tier.PUBLIC: layer(Tier.PUBLIC, {FIRST: {"mode": "a"}, FIRST + 1: {"mode": "b"}}, ["mode"]),
    }
    assert join(FIELDS, SOURCES, layers).select(["speed", "mode"]).to_pylist() == [{"speed": 1, "mode": "b"}]
