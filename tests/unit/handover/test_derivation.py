"""What is made of a batch's layers for another operator: real segments in, real segments out."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from datasync.domain.tiers import Tier
from datasync.handover.derivation import Cut, as_segment, pseudonyms
from datasync.policy.compiled import Policy
from datasync.policy.verdicts import verdict
from datasync.protocol import segment
from datasync.store.opening import Layer
from tests.unit.handover.crossing import POLICY, captured, key_of, opened, policy

STARTED = datetime(2027, 1, 15, 8, 30, tzinfo=UTC)
ROWS = [
    {"user_id": "ann", "started": STARTED, "speed": 5.0, "mode": "walk"},
    {"user_id": "bob", "started": STARTED, "speed": 20.0, "mode": "school_bus"},
    {"user_id": "ann", "started": None, "speed": None, "mode": "tram"},
]
META = {"region": "cbd", "floor": "3"}


def key(transform: str) -> bytes:
    return f"borealis {transform}".encode()


def derived(rule: str, collection: str = "trips", rows: Sequence[dict[str, Any]] = ROWS) -> dict[Tier, Layer]:
    """Return what a rule leaves of a batch, as its receiver opens it."""
    under = policy(f"{{id: H1, from: acme, to: borealis, data: {collection}, {rule}}}")
    return opened_again(under, under, collection, rows)


def opened_again(
    now: Policy, then: Policy, collection: str, rows: Sequence[dict[str, Any]], to: str = "borealis"
) -> dict[Tier, Layer]:
    cut = Cut(verdict(now, "acme", to, collection), now.collection(collection), key)
    made = cut.layers(opened(captured(then, collection, rows, meta=META)), then.collection(collection))
    parsed = [segment.parse(as_segment(layer, key_of(layer.header.tier)).data) for layer in made]
    return {each.header.tier: Layer(each.header, *segment.rows(each)) for each in parsed}


def test_a_field_that_is_not_listed_does_not_move_in_any_form() -> None:
    layers = derived("action: move, fields: [started, speed]")
    assert layers[Tier.EDGE_PRIVATE].batch.schema.names == ["started", "speed"]
    assert layers[Tier.PUBLIC].batch.schema.names == ["speed"]
    assert layers[Tier.PUBLIC].batch.column("speed").to_pylist() == ["0-10", None]


def test_what_is_left_keeps_its_numbers_its_time_of_capture_and_its_policy() -> None:
    original = {layer.header.tier: layer for layer in opened(captured(policy(), "trips", ROWS))}
    for tier, layer in derived("action: move, fields: [mode]").items():
        was, now = original[tier].header, layer.header
        assert (now.seq_first, now.seq_last, now.captured) == (was.seq_first, was.seq_last, was.captured)
        assert layer.numbers.tolist() == original[tier].numbers.tolist()
        assert now.collection == "trips"


def test_a_layer_above_the_highest_tier_that_moves_is_there_without_columns_and_without_raised_rows() -> None:
    layers = derived("action: move, max_tier: public")
    assert layers[Tier.PUBLIC].batch.to_pylist() == [{"speed": "0-10", "mode": "walk"}, {"speed": None, "mode": "tram"}]
    above = layers[Tier.EDGE_PRIVATE]
    assert above.batch.num_columns == 0
    assert above.numbers.tolist() == [10, 12]  # not 11, the school bus
    assert (above.header.rows, above.header.time_min_ms) == (2, None)


def test_a_layer_without_columns_has_all_its_rows_where_none_was_raised() -> None:
    layers = derived("action: move, max_tier: public", rows=[ROWS[0], ROWS[2]])
    assert layers[Tier.EDGE_PRIVATE].batch.num_columns == 0
    assert layers[Tier.EDGE_PRIVATE].numbers.tolist() == [10, 11]


def test_a_raised_row_keeps_its_cells_of_lower_tiers_where_its_own_tier_moves() -> None:
    layers = derived("action: move, fields: [mode]")
    assert layers[Tier.EDGE_PRIVATE].batch.to_pylist() == [{"mode": None}, {"mode": "school_bus"}, {"mode": None}]


def test_pseudonyms_are_others_at_the_other_operator_and_the_same_for_the_same_person() -> None:
    plain = derived("action: move, fields: [user_id]")[Tier.EDGE_PRIVATE].batch.column("user_id").to_pylist()
    moved = derived("action: pseudonymise")[Tier.EDGE_PRIVATE].batch.column("user_id").to_pylist()
    assert moved[0] == moved[2] != moved[1]
    assert not {*moved} & {*plain, "ann", "bob"}
    assert all(len(name) == 32 for name in moved)
    assert moved == pseudonyms(pa.array(plain), key("pid")).to_pylist()


def test_a_subject_without_a_pseudonym_gets_one_and_one_that_is_a_number_does_not_move() -> None:
    text = POLICY.replace("user_id: {type: string, tier: user-private, up: {edge: [pid]}}", "USER", 1)
    rule = "{id: H1, from: acme, to: borealis, data: trips, action: pseudonymise}"
    raw = policy(rule, source=text.replace("USER", "user_id: {type: string, tier: edge-private}"))
    column = opened_again(raw, raw, "trips", ROWS)[Tier.EDGE_PRIVATE].batch.column("user_id")
    assert column.to_pylist() == pseudonyms(pa.array(["ann", "bob", "ann"]), key("subject:trips")).to_pylist()
    number = policy(rule, source=text.replace("USER", "user_id: {type: int64, tier: edge-private}"))
    numbered = [row | {"user_id": index} for index, row in enumerate(ROWS)]
    layers = opened_again(number, number, "trips", numbered)
    assert layers[Tier.EDGE_PRIVATE].batch.schema.names == ["started", "speed", "mode"]


def test_documents_keep_their_identity_and_get_another_where_pseudonyms_change() -> None:
    rows = [{"user_id": "ann", "name": "a", "tint": "red"}, {"user_id": "ann", "name": "b", "tint": None}]
    same = opened(captured(policy(), "likes", rows))[0].batch.column("_doc").to_pylist()
    moved = derived("action: move, fields: [tint]", "likes", rows)
    assert {tier: layer.batch.schema.names for tier, layer in moved.items()} == {
        Tier.PUBLIC: ["_doc", "tint"],
        Tier.EDGE_PRIVATE: ["_doc"],
    }
    assert moved[Tier.EDGE_PRIVATE].batch.column("_doc").to_pylist() == same
    others = derived("action: pseudonymise, max_tier: public", "likes", rows)
    identities = [layer.batch.column("_doc").to_pylist() for layer in others.values()]
    assert identities[0] == identities[1] == pseudonyms(pa.array(same), key("document:likes")).to_pylist()


@pytest.mark.parametrize(
    ("rule", "public", "private"),
    [
        ("action: pseudonymise", {"region": "cbd"}, META),
        ("action: move, max_tier: public", {"region": "cbd"}, {"region": "cbd"}),
        ("action: move, fields: [mode]", {}, {}),
    ],
)
def test_constants_move_up_to_the_tier_that_moves_and_not_where_fields_are_listed(
    rule: str, public: dict[str, str], private: dict[str, str]
) -> None:
    layers = derived(rule)
    assert layers[Tier.PUBLIC].header.meta == public
    assert layers[Tier.EDGE_PRIVATE].header.meta == private


def test_the_bounds_of_the_time_go_with_the_times() -> None:
    assert derived("action: move, fields: [started]")[Tier.EDGE_PRIVATE].header.time_min_ms is not None
    assert derived("action: move, fields: [mode]")[Tier.EDGE_PRIVATE].header.time_min_ms is None


def test_what_the_policy_in_force_would_not_make_so_any_more_does_not_move() -> None:
    rule = "{id: H1, from: acme, to: borealis, data: trips, action: move, fields: [speed, mode]}"
    then = policy(rule)
    coarser = policy(rule, source=POLICY.replace("edges: [0, 10, 30]", "edges: [0, 30]"))
    layers = opened_again(coarser, then, "trips", ROWS)
    assert layers[Tier.PUBLIC].batch.schema.names == ["mode"]
    assert layers[Tier.EDGE_PRIVATE].batch.schema.names == ["speed", "mode"]


def test_nothing_is_made_where_no_layer_is_low_enough() -> None:
    under = policy("{id: H1, from: acme, to: borealis, data: trips, action: move, max_tier: public}")
    private = [layer for layer in opened(captured(under, "trips", ROWS)) if layer.header.tier > Tier.PUBLIC]
    cut = Cut(verdict(under, "acme", "borealis", "trips"), under.collection("trips"), key)
    assert cut.layers(private, under.collection("trips")) == []
