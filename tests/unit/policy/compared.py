"""What the product made, as plain cells, so that it can be compared with what the naive evaluator says."""

import math

import pyarrow as pa
from hypothesis import HealthCheck, settings

from datasync.policy.types import TIMESTAMP


def thorough(examples):
    """Return the settings of a comparison; the same examples in every run."""
    unkind = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=unkind)


def subject_key(transform, period):
    return f"{transform}/{period}".encode().ljust(32, b".")


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


def same_cells(found, expected):
    assert found.keys() == expected.keys()
    for index, cells in expected.items():
        assert found[index].keys() == cells.keys()
        for name, value in cells.items():
            assert same(found[index][name], value), (index, name, found[index][name], value)


def same(found, expected):
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float) and isinstance(found, float):  # minus zero is not zero here, and NaN is NaN
        return (math.isnan(found) and math.isnan(expected)) or str(found) == str(expected)
    return found == expected and type(found) is type(expected)
