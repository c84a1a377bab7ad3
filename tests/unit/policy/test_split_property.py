"""Generated rows under generated policies, compared cell by cell with the naive evaluator."""

import math
from datetime import timedelta

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied
from datasync.domain.tiers import Tier
from datasync.policy.decide import view_rules
from datasync.policy.projection import split, to_batch
from datasync.policy.types import TIMESTAMP
from tests.unit.policy import oracle
from tests.unit.policy.generated import EPOCH, NOW_MS, WORKERS, compiled, documents, rows_of

NOW = Instant(NOW_MS, 0)
THOROUGH = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def subject_key(transform, period):
    return f"{transform}/{period}".encode().ljust(32, b".")


@st.composite
def captures(draw):
    document = draw(documents())
    return document, draw(rows_of(document))


@THOROUGH
@given(captures())
def test_each_layer_holds_what_the_naive_evaluator_says_and_nothing_else(capture):
    document, rows = capture
    policy = compiled(document)
    expected = oracle.layers(document, "c", rows, subject_key, NOW_MS)

    layers = split(policy, "c", captured(policy, document, rows), subject_key=subject_key, now=NOW)

    assert [layer.tier for layer in layers] == list(policy.collections["c"].tiers())
    for layer in layers:
        cells = expected[layer.tier.label]
        own = set(policy.collections["c"].layer_schema(layer.tier).names)
        assert set(layer.batch.schema.names) == own.union(*cells.values()) or not own
        same_cells(layer_cells(layer, len(rows)), with_lifted_columns(cells, layer))
    for tier in set(Tier) - {layer.tier for layer in layers}:
        assert not any(cells for cells in expected[tier.label].values()), "a layer is missing"


@THOROUGH
@given(captures())
def test_no_layer_holds_a_value_that_its_place_is_denied(capture):
    """Not by what a cell shows only: the bytes of a layer contain no text of a field that the place may not hold."""
    document, rows = capture
    policy = compiled(document)
    fields = document["collections"]["c"]["fields"]
    marked = [
        {
            name: f"<{name}/{index}>" if value is not None and fields[name]["type"] == "string" else value
            for name, value in row.items()
        }
        for index, row in enumerate(rows)
    ]

    layers = split(policy, "c", captured(policy, document, marked), subject_key=subject_key, now=NOW)

    for layer in layers:
        data = serialized(layer.batch)
        for index, row in enumerate(marked):
            lifted = oracle.lifted_to(document, "c", row, NOW_MS)
            for name, value in row.items():
                own = fields[name].get("tier", "user-private")
                private = max(own, lifted, key=oracle.rank)
                if fields[name]["type"] == "string" and value and oracle.rank(private) > layer.tier:
                    assert f"<{name}/{index}>".encode() not in data


@THOROUGH
@given(captures(), st.sampled_from(sorted(WORKERS)), st.sampled_from([{}, {"region": "north"}, {"region": "south"}]))
def test_a_view_shows_what_the_naive_evaluator_says_and_nothing_else(capture, worker_id, meta):
    document, rows = capture
    policy = compiled(document)
    columns, expected = oracle.view(document, worker_id, "c", rows, meta, subject_key, NOW_MS)
    layers = split(policy, "c", captured(policy, document, rows), subject_key=subject_key, now=NOW)
    try:
        rules = view_rules(policy, policy.workers[worker_id], "c", "p")
    except AccessDenied:
        assert not columns
        return

    batch, positions = joined(rules, {layer.tier: layer_cells(layer, len(rows)) for layer in layers})
    shown = rules.apply(batch, meta, NOW)

    assert rules.schema.names == columns
    assert rules.mask(batch, meta, NOW).to_pylist() == [index in expected for index in positions]
    visible = [index for index in positions if index in expected]
    same_cells(dict(zip(visible, cells_of(shown), strict=True)), expected)


def captured(policy, document, rows):
    """Return the rows as a device's program would give them: times as datetimes."""
    fields = document["collections"]["c"]["fields"]
    given_rows = [
        {
            name: EPOCH + timedelta(microseconds=value)
            if fields[name]["type"] == "timestamp" and value is not None
            else value
            for name, value in row.items()
        }
        for row in rows
    ]
    return to_batch(policy.collections["c"], given_rows)


def joined(rules, layers):
    """Return the columns of a view for the rows of its highest layer, cell by cell, and the rows' positions."""
    positions = sorted(layers[rules.tiers[0]])
    forms = (*rules.columns, *rules.needed)
    columns = []
    for form in forms:
        cells = []
        for index in positions:
            holders = [layers[tier][index] for tier in sorted(rules.tiers) if index in layers[tier]]
            values = [cells[form.field] for cells in holders if form.field in cells]
            own = layers[form.tier].get(index, {})
            cells.append(own[form.field] if form.field in own else next((v for v in values if v is not None), None))
        columns.append(
            pa.array(cells, pa.int64()).view(TIMESTAMP) if form.type == TIMESTAMP else pa.array(cells, form.type)
        )
    schema = pa.schema([(form.field, form.type) for form in forms])
    return pa.RecordBatch.from_arrays(columns, schema=schema), positions


def layer_cells(layer, count):
    positions = range(count) if layer.positions is None else layer.positions.tolist()
    assert list(positions) == sorted(set(positions))
    return dict(zip(positions, cells_of(layer.batch), strict=True))


def cells_of(batch):
    batch.validate(full=True)
    columns = {
        field.name: (column.view(pa.int64()) if field.type == TIMESTAMP else column).to_pylist()
        for field, column in zip(batch.schema, batch.columns, strict=True)
    }
    return [{name: values[index] for name, values in columns.items()} for index in range(batch.num_rows)]


def with_lifted_columns(expected, layer):
    """A layer has the columns of lifted rows for all of its rows: null for those that are not lifted."""
    names = layer.batch.schema.names
    return {index: {name: cells.get(name) for name in (*names, *cells)} for index, cells in expected.items()}


def same_cells(found, expected):
    assert found.keys() == expected.keys()
    for index, cells in expected.items():
        assert found[index].keys() == cells.keys()
        for name, value in cells.items():
            assert same(found[index][name], value), (index, name, found[index][name], value)


def same(found, expected):
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, float) and isinstance(found, float):  # minus zero is not zero here, and NaN is NaN
        return (math.isnan(found) and math.isnan(expected)) or str(found) == str(expected)
    return found == expected and type(found) is type(expected)


def serialized(batch):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()
