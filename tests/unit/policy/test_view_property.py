"""Views and decisions of generated policies, compared with the naive evaluator; and rules that allow nothing.

1,500 policies whose four workers each see up to 12 rows; 1,000 policies of which every question is asked, about 400
each; 500 policies with rules that are refused as void.
"""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied
from datasync.policy.decide import decide, view_rules
from datasync.policy.projection import split, to_batch
from tests.unit.policy import oracle
from tests.unit.policy.compared import cells_of, joined, layer_cells, same_cells, subject_key, thorough
from tests.unit.policy.generated import (
    METAS,
    NOW_MS,
    WORKERS,
    as_given,
    compiled,
    documents,
    drafts,
    rows_of,
    void_rules,
    without,
)

NOW = Instant(NOW_MS, 0)
ASKED = [
    (None, None),
    (None, "borealis"),
    ({}, "acme"),
    ({"p": True, "q": False}, None),
    ({"p": False, "q": True}, "acme"),
]
"""What the subject said, and whose node holds the data."""


@thorough(1_500)
@given(st.data())
def test_a_view_shows_what_the_naive_evaluator_says_and_nothing_else(data):
    document = data.draw(documents())
    rows, meta = data.draw(rows_of(document)), data.draw(st.sampled_from(METAS))
    policy = compiled(document)
    batch = to_batch(policy.collections["c"], as_given(document, rows))
    layers = split(policy, "c", batch, subject_key=subject_key, now=NOW)
    held = {layer.tier: layer_cells(layer, len(rows)) for layer in layers}

    for worker_id in WORKERS:
        columns, expected = oracle.view(document, worker_id, "c", rows, meta, subject_key, NOW_MS)
        try:
            rules = view_rules(policy, policy.workers[worker_id], "c", "p")
        except AccessDenied:
            assert not columns
            continue
        seen, positions = joined(rules, held)
        assert rules.schema.names == columns
        assert rules.mask(seen, meta, NOW).to_pylist() == [index in expected for index in positions]
        visible = [index for index in positions if index in expected]
        same_cells(dict(zip(visible, cells_of(rules.apply(seen, meta, NOW)), strict=True)), expected)


@thorough(1_000)
@given(documents())
def test_every_decision_is_the_naive_evaluator_s(document):
    policy = compiled(document)
    fields = [None, *document["collections"]["c"]["fields"]]
    answers = {}

    for worker, field, purpose in itertools.product(WORKERS, fields, ["p", "q", "elsewhere"]):
        for number, (consent, operator) in enumerate(ASKED):
            question = policy.workers[worker], "c", field, purpose
            found = decide(policy, *question, consent=consent, operator=operator)
            expected = oracle.decide(document, worker, "c", field, purpose, consent, operator)
            assert facts(found) == expected, (worker, field, purpose, consent, operator)
            assert found.allowed == (found.code == "ALLOW")
            assert found.detail
            answers[worker, field, purpose, number] = found
    for (worker, field, purpose, number), found in answers.items():
        consent, operator = ASKED[number]
        assert decide(policy, policy.workers[worker], "c", field, purpose, consent=consent, operator=operator) == found


def facts(decision):
    tier = decision.tier.label if decision.tier is not None else None
    return decision.code, set(decision.rules), tier, list(decision.chain)


@thorough(500)
@given(st.data())
def test_a_rule_that_is_refused_as_void_shows_nobody_anything(data):
    draft = data.draw(drafts())
    rows, meta = data.draw(rows_of(draft)), data.draw(st.sampled_from(METAS))

    void = void_rules(draft)

    for worker_id in WORKERS:
        with_them = oracle.view(draft, worker_id, "c", rows, meta, subject_key, NOW_MS)[1]
        without_them = oracle.view(without(draft, void), worker_id, "c", rows, meta, subject_key, NOW_MS)[1]
        assert shown(with_them) == shown(without_them)


def shown(view):
    """Return the cells with a value, as text: a void rule may add a column, in which there is nothing."""
    return {
        index: {name: repr(cell) for name, cell in cells.items() if cell is not None} for index, cells in view.items()
    }
