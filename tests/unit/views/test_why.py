"""Why: the answer for a segment or a row is what a view does with it, step by step, and tells no value."""

import dataclasses

import numpy as np
import pytest

from datasync.domain.errors import NotFound
from datasync.domain.tiers import Place, Tier
from datasync.policy.decide import worker
from datasync.protocol import segment as codec
from datasync.store import segments, streams
from datasync.views.why import Question, Row, why
from tests.unit.views.test_documents import WITH_SETTINGS

EDGE, PUBLIC = Tier.EDGE_PRIVATE, Tier.PUBLIC
ROUTING, OPT_IN, OPT_OUT = "service.routing", "improve.train", "research.stats"
RULE = "{id: R2, effect: allow, to: {worker: router}, data: trips, fields: [started, speed, mode]"


def ask(site, name, asked, purpose=ROUTING):
    question = Question(site.policy, worker(site.policy, name), purpose, asked)
    with site.database.read() as tx:
        return why(tx, site.vault, question, site.now)


def change(site, old, new):
    """Activate the policy with some text replaced."""
    source = site.policy.source.decode()
    assert old in source
    revision = f"revision: {site.policy.revision}"
    site.activate(source.replace(old, new).replace(revision, f"revision: {site.policy.revision + 1}"))


def row(site, number, tier=EDGE, device="watch-1"):
    return Row(site.stream(device, tier), number)


def test_a_segment_that_is_seen_passes_every_step(edge, trip):
    edge.capture("watch-1", [trip(), trip("school_bus")])
    answer = ask(edge, "router", edge.stored(EDGE)[0].id)
    steps = [
        "policy",
        "stored",
        "layer",
        "consent",
        "terms",
        "time",
        "constants",
        "content",
        "columns",
        "rows",
        "rules",
    ]
    assert [(step.name, step.code) for step in answer.steps] == [(name, "") for name in steps]
    assert (answer.code, answer.collection, answer.columns) == ("SEEN", "trips", ("started", "speed", "mode"))
    assert [(each.rule, each.rows, each.failed) for each in answer.rules] == [("R2", 2, None)]


@pytest.mark.parametrize("modes", [["bike", "school_bus", "private_road", None, "bus"], ["school_bus", "school_bus"]])
@pytest.mark.parametrize("reader", ["router", "tourist", "counter"])
def test_every_row_is_told_to_be_seen_or_not_as_the_view_shows_it(edge, trip, reader, modes):
    change(edge, RULE, f"{RULE}, where: [[mode, ne, bus]]")
    edge.capture("watch-1", [trip(mode, speed=float(number)) for number, mode in enumerate(modes)])
    answers = [ask(edge, reader, row(edge, number)) for number in range(len(modes))]
    told = [mode for mode, answer in zip(modes, answers, strict=True) if answer.code == "SEEN"]
    assert told == [shown["mode"] for shown in edge.rows(reader)]
    assert {answer.code for answer in answers} <= {"SEEN", "RAISED", "HIDDEN_BY_RULES"}


def test_a_row_that_was_raised_out_of_sight_says_so(edge, trip):
    edge.capture("watch-1", [trip(), trip("school_bus")])
    assert ask(edge, "router", row(edge, 1)).code == "SEEN"
    answer = ask(edge, "tourist", row(edge, 1, PUBLIC))
    assert (answer.code, answer.steps[-1].name) == ("RAISED", "rows")


def test_a_batch_of_which_every_row_was_raised_has_none_to_see(edge, trip):
    edge.capture("watch-1", [trip("school_bus")])
    assert ask(edge, "tourist", edge.stored(PUBLIC)[0].id).code == "NO_ROWS"


def test_a_row_that_a_rule_hides_names_the_first_condition_that_fails(edge, trip):
    change(edge, RULE, f"{RULE}, where: [[speed, lt, 10], [mode, eq, bus]]")
    edge.capture("watch-1", [trip(), trip(speed=20.0), trip("bus")])
    answers = [ask(edge, "router", row(edge, number)) for number in range(3)]
    assert [answer.code for answer in answers] == ["HIDDEN_BY_RULES", "HIDDEN_BY_RULES", "SEEN"]
    assert [answer.rules[0].failed for answer in answers] == ["mode eq bus", "speed lt 10", None]


def test_a_row_is_asked_about_in_any_layer_of_its_batch(edge, trip):
    change(edge, "to: {worker: router}, data: trips, fields: [started, speed, mode]",
           "to: {worker: router}, data: trips, fields: [speed]")  # fmt: skip
    edge.capture("watch-1", [trip()])
    assert edge.plan("router").tiers == (EDGE,)
    assert ask(edge, "router", row(edge, 0, PUBLIC)).code == "SEEN"


def test_a_segment_of_a_layer_that_is_not_read_names_the_one_that_is(edge, trip):
    edge.capture("watch-1", [trip()])
    private, public = edge.stored(EDGE)[0].id, edge.stored(PUBLIC)[0].id
    answer = ask(edge, "tourist", private)
    assert answer.code == "LAYER_NOT_READ"
    assert f"reads segment {public}" in answer.steps[-1].detail
    assert ask(edge, "router", public).code == "SEEN"


def test_what_the_policy_denies_is_told_with_the_nearest_rule_before_anything_is_looked_at(edge, trip):
    change(edge, "  - {id: R4, effect: allow, to: {worker: counter}, data: trips, fields: [mode]}\n", "")
    edge.capture("watch-1", [trip()])
    answer = ask(edge, "counter", edge.stored(EDGE)[0].id)
    assert [(step.name, step.code) for step in answer.steps] == [("policy", "NO_RULE")]
    assert "R1 would allow it, but is for worker coach." in answer.steps[0].detail


def test_a_purpose_that_is_not_the_workers_is_the_policys_answer(edge, trip):
    edge.capture("watch-1", [trip()])
    assert ask(edge, "tourist", edge.stored(PUBLIC)[0].id, OPT_IN).code == "NO_PURPOSE"


def test_consent_is_told_with_the_statement_that_decides(edge, trip):
    edge.capture("watch-1", [trip()])
    number, said = edge.stored(EDGE)[0].id, edge.stream("watch-1", PUBLIC)
    answer = ask(edge, "router", number, OPT_IN)
    assert (answer.code, answer.steps[-1].name) == ("NO_CONSENT", "consent")
    assert "nothing was said" in answer.steps[-1].detail
    edge.consent("watch-1", EDGE, OPT_IN, given=False, at=4)
    edge.consent("watch-1", PUBLIC, OPT_IN, given=True, at=5)
    answer = ask(edge, "router", number, OPT_IN)
    assert answer.code == "SEEN"
    assert f"stream {said} gave it at 5 ms" in next(each.detail for each in answer.steps if each.name == "consent")
    edge.consent("watch-1", EDGE, OPT_IN, given=False, at=5)
    assert ask(edge, "router", number, OPT_IN).code == "NO_CONSENT"


def test_times_that_no_rule_asks_for_are_too_early(edge, trip):
    change(edge, RULE, f"{RULE}, where: [[started, ge, now-10d]]")
    edge.capture("watch-1", [trip()])
    assert ask(edge, "router", edge.stored(EDGE)[0].id).code == "TOO_EARLY"


def test_constants_that_no_rule_asks_for_are_named_without_their_values(edge, trip):
    change(edge, RULE, f"{RULE}, where: [[mode, eq, bike], [region, eq, cbd]]")
    edge.capture("watch-1", [trip()], region="docks")
    edge.capture("watch-2", [trip()], region="cbd")
    first, second = (ask(edge, "router", stored.id) for stored in edge.stored(EDGE))
    assert (first.code, second.code) == ("CONSTANTS_DIFFER", "SEEN")
    assert "R2: region eq cbd" in first.steps[-1].detail
    assert "docks" not in first.steps[-1].detail


def test_a_segment_that_is_in_no_view_now_says_so(edge, trip):
    edge.capture("watch-1", [trip()])
    number = edge.stored(EDGE)[0].id
    with edge.database.write() as tx:
        segments.conceal(tx, [edge.stream("watch-1", EDGE)])
    assert ask(edge, "router", number).code == "NOT_VISIBLE"


def test_a_number_that_no_segment_holds_is_not_here(edge, trip):
    edge.capture("watch-1", [trip()])
    answer = ask(edge, "router", row(edge, 7))
    assert (answer.code, answer.segment) == ("NOT_HERE", None)


@pytest.mark.parametrize("asked", [77, Row("0" * 32, 0)])
def test_what_the_node_does_not_know_is_an_error(edge, asked):
    with pytest.raises(NotFound):
        ask(edge, "router", asked)


def test_a_batch_whose_other_layer_is_gone_says_which(edge, trip):
    edge.capture("watch-1", [trip()])
    private, public = edge.stored(EDGE)[0].id, edge.stored(PUBLIC)[0].id
    with edge.database.write() as tx:
        segments.conceal(tx, [edge.stream("watch-1", PUBLIC)])
    answer = ask(edge, "router", private)
    assert (answer.code, answer.steps[-1].name) == ("PARTNER_MISSING", "content")
    assert "public" in answer.steps[-1].detail
    with edge.database.write() as tx:
        segments.delete(tx, [edge.stream("watch-1", EDGE)])
        segments.reveal(tx, [edge.stream("watch-1", PUBLIC)])
    answer = ask(edge, "router", public)
    assert (answer.code, answer.steps[-1].name) == ("PARTNER_MISSING", "layer")


def test_a_key_that_was_destroyed_is_what_a_read_counts_too(edge, trip):
    edge.capture("watch-1", [trip()])
    number = edge.stored(EDGE)[0].id
    edge.vault.destroy([edge.stream("watch-1", PUBLIC)])
    assert ask(edge, "router", number).code == "KEY_UNAVAILABLE"
    assert edge.withheld("router") == {"KEY_UNAVAILABLE": 1}


def test_content_that_is_not_what_was_announced_is_told(edge, trip):
    edge.capture("watch-1", [trip()])
    stored = edge.stored(EDGE)[0]
    with edge.database.write() as tx:
        body = segments.bodies(tx, [stored.id])[stored.id]
        data = bytearray(edge.vault.decrypt(stored.stream, stored.key_id, stored.seq_first, body))
        data[-1] ^= 1
        segments.delete(tx, [stored.stream])
        segments.append(tx, [edge.sealed(stored, bytes(data))])
    assert ask(edge, "router", edge.stored(EDGE)[0].id).code == "SEGMENT_INVALID"


def test_layers_of_different_policies_are_told(edge, trip):
    edge.capture("watch-1", [trip()])
    private, public = edge.stored(EDGE)[0], edge.stored(PUBLIC)[0]
    with edge.database.write() as tx:
        body = segments.bodies(tx, [public.id])[public.id]
        signed = codec.parse(edge.vault.decrypt(public.stream, public.key_id, public.seq_first, body))
        other = dataclasses.replace(signed.header, policy_digest="0" * 64)
        key = edge.captor("watch-1").stream_key("trips", PUBLIC, 0)
        segments.delete(tx, [public.stream])
        made = codec.encode(other, codec.rows(signed)[0], np.arange(1), codec.salt_of(other, key))
        segments.append(tx, [edge.sealed(public, made.data, hash=made.hash, policy_digest=other.policy_digest)])
    assert ask(edge, "router", private.id).code == "LAYERS_DISAGREE"


def test_columns_that_another_revision_made_otherwise_are_named_and_not_among_those_shown(edge, trip):
    edge.capture("watch-1", [trip()])
    change(edge, "{op: truncate, unit: 1h,", "{op: truncate, unit: 2h,")
    answer = ask(edge, "router", row(edge, 0))
    assert (answer.code, answer.columns) == ("SEEN", ("speed", "mode"))
    assert "but for started" in next(step.detail for step in answer.steps if step.name == "columns")


def test_a_segment_of_a_policy_that_nobody_knows_here_is_foreign(edge, trip):
    edge.capture("watch-1", [trip()])
    edge.forget_policies()
    change(edge, "id: views", "id: renamed")
    assert ask(edge, "router", edge.stored(EDGE)[0].id).code == "POLICY_FOREIGN"


def test_at_the_cloud_a_stream_speaks_for_itself(edge, cloud, trip):
    edge.capture("watch-1", [trip()])
    edge.forward_public(cloud)
    stream = edge.stream("watch-1", PUBLIC)
    assert ask(cloud, "trainer", Row(stream, 0), OPT_OUT).code == "SEEN"
    cloud.consent_of(stream, OPT_OUT, given=False, at=1)
    assert ask(cloud, "trainer", Row(stream, 0), OPT_OUT).code == "NO_CONSENT"


@pytest.fixture
def settings(edge):
    """An edge that keeps documents; a change of one, by its only row."""
    edge.activate(WITH_SETTINGS)

    def put(**fields):
        edge.capture("watch-1", [{"user_id": "ann", "name": "ui", **fields}], collection="settings")

    return put


def test_of_a_change_the_rules_judge_the_document_that_all_changes_make(edge, settings):
    settings(theme="dark", seen=1)
    with edge.database.read() as tx:
        stream = next(each for each in streams.of_device(tx, "watch-1") if each.tier is EDGE)
    first = Row(stream.stream, 0)
    hidden = ask(edge, "counter", first)
    assert (hidden.code, hidden.rules[0].failed, hidden.columns) == ("HIDDEN_BY_RULES", "seen ge 3", ())
    settings(seen=2)
    shown = ask(edge, "counter", first)
    assert (shown.code, shown.columns) == ("SEEN", ("theme",))
    assert edge.rows("counter", collection="settings") == [{"theme": "dark"}]


def test_of_a_batch_of_changes_its_own_documents_are_judged(edge, settings):
    settings(theme="dark", seen=5)
    settings(name="map", theme="light", seen=1)
    with edge.database.read() as tx:
        stream = next(each for each in streams.of_device(tx, "watch-1") if each.tier is EDGE)
        first, second = segments.of_stream(tx, stream.stream)
    assert [ask(edge, "counter", each.id).code for each in (first, second)] == ["SEEN", "HIDDEN_BY_RULES"]
    assert [step.name for step in ask(edge, "counter", first.id).steps][-3:] == ["rows", "documents", "rules"]


def test_a_change_that_was_raised_is_out_of_sight_though_its_document_is_not(edge, settings):
    settings(theme="dark", seen=5)
    settings(theme="hidden", seen=5)
    with edge.database.read() as tx:
        stream = next(each for each in streams.of_device(tx, "watch-1") if each.tier is EDGE)
    answers = [ask(edge, "counter", Row(stream.stream, number)).code for number in range(2)]
    assert answers == ["SEEN", "RAISED"]


def test_no_answer_tells_a_value_of_a_cell(make_site, trip):
    device = make_site(Place.DEVICE)
    device.capture("watch-1", [trip("velocipede", speed=41.5, user_id="ursula", note="nobody knows")])
    answer = ask(device, "coach", device.stored(Tier.USER_PRIVATE)[0].id)
    assert answer.code == "SEEN"
    assert not any(value in repr(answer) for value in ("velocipede", "41.5", "ursula", "nobody knows"))
