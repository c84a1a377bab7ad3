"""A diff in which nothing widens is a promise; the naive evaluator keeps it or breaks it on generated rows."""

import operator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasync.policy.comparing.diff import diff, may_widen
from datasync.policy.comparing.effects import Effect
from tests.unit.policy import generated, oracle
from tests.unit.policy.generated import NOW_MS, rows_of
from tests.unit.policy.mutated import loadable, mutated, narrowed

THOROUGH = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
METAS = st.sampled_from(generated.METAS)
CONSENTS = [{}, *({purpose: word} for purpose in ("p", "q", "r") for word in (True, False))]
OPPOSITE = {Effect.WIDENS: Effect.NARROWS, Effect.NARROWS: Effect.WIDENS, Effect.CHANGES: Effect.CHANGES}


@THOROUGH
@given(mutated(), METAS, st.data())
def test_where_nothing_widens_nothing_is_seen_or_held_that_was_not_before(pair, meta, data):
    (old, new), policies = zip(*map(loadable, pair), strict=True)

    forth, back = diff(*policies), diff(*reversed(policies))

    opposite = {subject(change): OPPOSITE[change.effect] for change in forth}
    assert {subject(change): change.effect for change in back} == opposite
    for before, after, changes in ((old, new, forth), (new, old, back)):
        if not may_widen(changes):
            check(before, after, data.draw(rows_of(after)), meta)


@THOROUGH
@given(narrowed(), METAS, st.data())
def test_what_can_only_narrow_is_known_to(pair, meta, data):
    (old, new), policies = zip(*map(loadable, pair), strict=True)

    changes = diff(*policies)

    assert not may_widen(changes), [change.to_data() for change in changes if change.effect.may_widen]
    check(old, new, data.draw(rows_of(new)), meta)


def subject(change):
    return change.scope, change.name, change.collection, change.field, change.purpose, len(change.reasons)


def check(old, new, rows, meta):
    for worker in new["workers"]:
        before, after = (oracle.view(each, worker, "c", rows, meta, key, NOW_MS)[1] for each in (old, new))
        assert after.keys() <= before.keys(), f"{worker} sees a row that it did not"
        for name in {name for cells in after.values() for name in cells}:
            for purpose in new["purposes"]:
                asked = [(each, worker, "c", name, purpose) for each in (old, new)]
                answers = [[oracle.decide(*one, said, None)[0] == "ALLOW" for said in CONSENTS] for one in asked]
                assert all(map(operator.le, *reversed(answers))), f"{worker} may read {name} for {purpose}"
            if not is_constant(new, worker, name):
                shown = {row: cells[name] for row, cells in after.items() if cells[name] is not None}
                known = {row: cells[name] for row, cells in before.items() if cells.get(name) is not None}
                assert is_made_from(shown, known), f"{worker} sees more of {name}"
    for place in ("device", "edge", "cloud"):
        before, after = (held(each, rows, place) for each in (old, new))
        for (name, tier), cells in after.items():
            known = [each for (field, _), each in before.items() if field == name]
            assert any(is_made_from(cells, each) for each in known), f"the {place} holds more of {name} at {tier}"


def is_constant(document, worker, field):
    """Whether the worker sees one value in every row, which tells nothing of what it replaced."""
    chain = oracle.seen(document, "c", field, oracle.ceiling_of(document["workers"][worker])) or []
    return any(document["transforms"][name]["op"] == "constant" for name in chain)


def held(document, rows, place):
    """Return {(field, tier of the form): {row: value}} of what a place holds."""
    found = {}
    for tier, layer in oracle.layers(document, "c", rows, key, NOW_MS).items():
        if oracle.rank(tier) <= oracle.rank(oracle.HOLDS[place]):
            for row, cells in layer.items():
                for name, value in cells.items():
                    tiers = [
                        each for each in oracle.forms(document, "c", name) if oracle.rank(each) <= oracle.rank(tier)
                    ]
                    found.setdefault((name, max(tiers, key=oracle.rank)), {})[row] = value
    return found


def is_made_from(cells, known):
    """Whether each cell is known, and equal ones stay equal: then the cells are a function of what was known."""
    made = {}
    return cells.keys() <= known.keys() and all(
        made.setdefault(repr(known[row]), repr(value)) == repr(value) for row, value in cells.items()
    )


def key(transform, period):
    return f"{transform}/{period}".encode().ljust(32, b".")
