"""Generated rows under generated policies, split, and compared cell by cell with the naive evaluator.

2,000 policies, a third of them of documents, with up to 12 rows each: 1,500 of them compared layer by layer, 500
searched for what must not be there.
The other comparisons with the naive evaluator are in ``test_view_property`` (3,000) and ``views/test_read_property``
(400): together they have 5,400 examples.
"""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import Instant
from datasync.domain.tiers import Tier
from datasync.policy.projection import split, to_batch
from tests.unit.policy import oracle
from tests.unit.policy.compared import layer_cells, same_cells, subject_key, thorough
from tests.unit.policy.generated import NOW_MS, as_given, compiled, documents, keepers, rows_of

NOW = Instant(NOW_MS, 0)


@st.composite
def captures(draw):
    document = draw(st.one_of(documents(), documents(), keepers()))
    return document, draw(rows_of(document))


@thorough(1_500)
@given(captures())
def test_each_layer_holds_what_the_naive_evaluator_says_and_nothing_else(capture):
    document, rows = capture
    policy = compiled(document)
    expected = oracle.layers(document, "c", rows, subject_key, NOW_MS)

    layers = layers_of(policy, document, rows)
    identity = {"_doc"} if policy.collections["c"].kind == "document" else set()

    assert [layer.tier for layer in layers] == list(policy.collections["c"].tiers())
    for layer in layers:
        cells = expected[layer.tier.label]
        own = set(policy.collections["c"].layer_schema(layer.tier).names)
        assert set(layer.batch.schema.names) == own.union(identity, *cells.values()) or not own
        same_cells(layer_cells(layer, len(rows)), with_lifted_columns(cells, layer))
    for tier in set(Tier) - {layer.tier for layer in layers}:
        assert not any(cells for cells in expected[tier.label].values()), "a layer is missing"


@thorough(500)
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

    layers = layers_of(policy, document, marked)

    for layer in layers:
        data = serialized(layer.batch)
        for index, row in enumerate(marked):
            lifted = oracle.lifted_to(document, "c", row, NOW_MS)
            for name, value in row.items():
                own = fields[name].get("tier", "user-private")
                private = max(own, lifted, key=oracle.rank)
                if fields[name]["type"] == "string" and value and oracle.rank(private) > layer.tier:
                    assert f"<{name}/{index}>".encode() not in data


def layers_of(policy, document, rows):
    batch = to_batch(policy.collections["c"], as_given(document, rows))
    return split(policy, "c", batch, subject_key=subject_key, now=NOW)


def with_lifted_columns(expected, layer):
    """A layer has the columns of lifted rows for all of its rows: null for those that are not lifted."""
    names = layer.batch.schema.names
    return {index: {name: cells.get(name) for name in (*names, *cells)} for index, cells in expected.items()}


def serialized(batch):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()
