"""Plans: which layers are read, who may read nothing, and what older revisions' segments still show."""

import pyarrow as pa
import pytest

from datasync.domain.errors import AccessDenied, NotFound
from datasync.domain.tiers import Tier


def test_a_plan_is_compiled_once(edge):
    assert edge.plan("router") is edge.plan("router")
    assert edge.plan("router") is not edge.plan("router", "improve.train")


def test_a_reader_of_one_public_column_reads_the_layer_that_rows_are_raised_to_as_well(edge):
    assert edge.plan("counter").tiers == (Tier.EDGE_PRIVATE, Tier.PUBLIC)
    assert edge.plan("tourist").tiers == (Tier.PUBLIC,)


def test_constants_that_conditions_look_at_are_read_from_the_layer_that_carries_them(edge, trip):
    where = ", where: [[region, eq, cbd]]}"
    revised(
        edge,
        ("meta: {region: public}", "meta: {region: edge-private}"),
        (
            "to: {worker: counter}, data: trips, fields: [mode]}",
            "to: {worker: counter}, data: trips, fields: [mode]" + where,
        ),
        ("      - {to: edge-private, where: [[mode, eq, school_bus]]}\n", ""),
    )
    assert edge.plan("counter").tiers == (Tier.EDGE_PRIVATE, Tier.PUBLIC)
    edge.capture("watch-1", [trip("bike")], region="cbd")
    edge.capture("watch-2", [trip("bus")], region="docks")
    assert edge.rows("counter") == [{"mode": "bike"}]


def test_the_result_has_the_policys_columns_in_order_with_the_forms_types(edge):
    assert edge.plan("router").schema == pa.schema(
        [("started", pa.timestamp("us", "UTC")), ("speed", pa.float32()), ("mode", pa.string())]
    )
    assert edge.plan("tourist").schema.field("speed").type == pa.string()


def test_what_the_policy_denies_has_no_plan(edge):
    with pytest.raises(AccessDenied) as denied:
        edge.plan("router", "research.stats")
    assert denied.value.reason == "NO_PURPOSE"
    with pytest.raises(NotFound):
        edge.plan("router", collection="nothing")


def revised(site, *changes):
    """Activate the next revision of the active policy, with these texts replaced."""
    source = site.policy.source.decode()
    revision = site.policy.revision
    for before, after in ((f"revision: {revision}", f"revision: {revision + 1}"), *changes):
        assert source.count(before) >= 1
        source = source.replace(before, after)
    site.activate(source)


def test_a_revision_that_changes_nothing_for_a_column_shows_it_as_before(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    before = edge.rows("router")
    revised(edge, ("improve.train: opt_in", "improve.train: contract"))
    assert edge.rows("router") == before
    assert not edge.withheld("router")


def test_rows_that_an_older_revision_raised_are_found_where_it_put_them(edge, trip):
    edge.capture("watch-1", [trip("school_bus", speed=1.0), trip(speed=2.0)])
    revised(edge, ("improve.train: opt_in", "improve.train: contract"))
    assert [row["mode"] for row in edge.rows("router")] == ["school_bus", "bike"]


def test_a_column_made_with_other_parameters_of_the_same_type_is_null(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    revised(edge, ("unit: 1h", "unit: 2h"))
    edge.capture("watch-1", [trip(speed=2.0)])
    assert [(row["started"] is None, row["speed"]) for row in edge.rows("router")] == [(True, 1.0), (False, 2.0)]


def test_a_column_made_by_another_chain_of_the_same_type_is_null(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    revised(
        edge,
        ("  band:", "  slot: {op: truncate, unit: 1h, from: user-private, to: edge-private}\n  band:"),
        ("edge: [hour]", "edge: [slot]"),
        ("cloud: [hour, day]", "cloud: [slot, day]"),
    )
    assert [row["started"] for row in edge.rows("router")] == [None]


def test_a_column_that_became_more_private_is_not_read_from_where_it_was(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    revised(edge, ("mode:    {type: string, tier: public}", "mode:    {type: string, tier: edge-private}"))
    assert [(row["speed"], row["mode"]) for row in edge.rows("router")] == [(1.0, None)]


def test_a_raw_value_that_an_older_revision_kept_beside_a_form_is_not_taken_for_the_form(edge, trip):
    """Of the same name and type, in a layer where lifted rows have the form: only the chain tells them apart."""
    rounded = "band: {op: round, decimals: 0, from: edge-private, to: public}"
    revised(edge, ("band: {op: bucket, edges: [0, 10, 30], from: edge-private, to: public}", rounded))
    edge.capture("watch-1", [trip(speed=1.25)])
    assert edge.rows("router")[0]["speed"] == 1.25
    revised(
        edge,
        (
            "{type: float32, tier: edge-private, up: {cloud: [band]}}",
            "{type: float32, tier: user-private, up: {cloud: [down]}}",
        ),
        (rounded, rounded + "\n  down: {op: round, decimals: 0, from: user-private, to: public}"),
    )
    assert edge.rows("router")[0]["speed"] is None


def test_segments_of_an_unknown_revision_are_passed_over_and_counted_until_it_is_known(edge, trip):
    edge.capture("watch-1", [trip(speed=1.0)])
    older = edge.policy
    edge.forget_policies()
    revised(edge, ("improve.train: opt_in", "improve.train: contract"))
    assert edge.rows("router") == []
    assert edge.withheld("router") == {"POLICY_FOREIGN": 1}
    edge.activate(older.source.decode())
    revised_again = edge.policy.source.decode().replace("revision: 1", "revision: 9")
    edge.activate(revised_again)
    assert [row["speed"] for row in edge.rows("router")] == [1.0]


def test_a_deny_holds_for_rows_whose_column_an_older_revision_made_otherwise(edge, trip):
    deny = "consent:\n"
    edge.capture("watch-1", [trip(speed=1.0)])
    revised(
        edge,
        ("unit: 1h", "unit: 2h"),
        (
            deny,
            "  - {id: D1, effect: deny, to: {worker: router}, data: trips, where: [[started, lt, now-9000d]]}\n" + deny,
        ),
    )
    assert edge.rows("router") == []
