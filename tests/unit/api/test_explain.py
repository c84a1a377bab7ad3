"""Explanations over HTTP: what would change an answer, whose consent decides, and what becomes of a row."""

import json

import pytest

from datasync.domain.clock import HybridTime
from datasync.domain.tiers import Tier
from datasync.store import consents, streams
from datasync.store.consents import Consent
from datasync.store.segments import State
from tests.unit.api.serving import POLICY

QUESTION = "/v1/explain?worker=router&collection=trips&purpose=service.routing"
ROWS = [{"user_id": "u", "speed": 1.0, "mode": "bike"}]


def activate(api, *changes):
    source = POLICY.replace("revision: 3", "revision: 4")
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    api.run(api.node.activate_policy(source.encode()))


@pytest.fixture
def asked_first(api):
    """An edge where routing is by consent, with a row of one device; what that device says, by tier."""
    activate(api, ("service.routing: contract", "service.routing: opt_in"))
    api.node.capture("watch-1", ROWS)

    def say(tier, at, *, given):
        stream = stream_of(api, tier)
        with api.node.database.write() as tx:
            said = Consent(stream, "service.routing", given, HybridTime(at, 2), b"", State.LOCAL)
            consents.put(tx, said)
        return stream

    return say


def stream_of(api, tier):
    with api.node.database.read() as tx:
        return next(each.stream for each in streams.of_device(tx, "watch-1") if each.tier is tier)


def test_a_default_deny_names_the_nearest_rule(api):
    answer = api.get(f"{QUESTION}&field=user_id").json
    assert (answer["code"], answer["nearest"]["rule"]) == ("NO_RULE_FIELD", "R1")
    assert answer["nearest"]["lacks"] == ["fields"]
    assert "R1, but it covers mode, speed, not user_id" in answer["nearest"]["detail"]


def test_without_a_subject_and_a_row_nothing_is_said_of_them(api):
    answer = api.get(QUESTION).json
    assert [answer[name] for name in ("allowed", "nearest", "consent", "row")] == [True, None, None, None]


def test_of_a_subject_the_stored_consents_decide_and_the_statement_is_named(api, asked_first):
    asked = f"{QUESTION}&subject=watch-1"
    answer = api.get(asked).json
    assert (answer["code"], answer["consent"]) == ("NO_CONSENT", {"basis": "opt_in", "statement": None})

    stream = asked_first(Tier.PUBLIC, 7, given=True)
    answer = api.get(asked).json
    said = {"stream": stream, "given": True, "stamp_ms": 7, "stamp_counter": 2}
    assert (answer["code"], answer["consent"]["statement"]) == ("ALLOW", said)
    assert api.get(f"{QUESTION}&subject={stream_of(api, Tier.EDGE_PRIVATE)}").json["code"] == "ALLOW"

    asked_first(Tier.EDGE_PRIVATE, 8, given=False)
    answer = api.get(asked).json
    assert (answer["code"], answer["consent"]["statement"]["given"]) == ("NO_CONSENT", False)


def test_a_subject_of_whom_nothing_is_here_is_not_found(api):
    assert api.get(f"{QUESTION}&subject=watch-9").problem() == (404, "NOT_FOUND")


def test_a_worker_does_not_learn_what_a_subject_said(api):
    token = api.node.enrol("router")
    assert api.get(f"{QUESTION}&subject=watch-1", token=token).problem() == (403, "FORBIDDEN")


def test_of_a_row_the_rules_are_named_with_the_first_condition_that_fails(api):
    activate(
        api, ("fields: [speed, mode]}\n  - {id: R2", "fields: [speed, mode], where: [[mode, eq, bike]]}\n  - {id: R2")
    )

    def outcome(**row):
        return api.get(QUESTION, params={"row": json.dumps(row)}).json["row"]

    seen = outcome(mode="bike", speed=2)
    assert (seen["rows"], seen["columns"]) == (1, ["speed", "mode"])
    hidden = outcome(mode="bus")
    assert (hidden["rows"], hidden["columns"]) == (0, [])
    assert hidden["rules"] == [{"rule": "R1", "allows": True, "rows": 0, "failed": "mode eq bike"}]


@pytest.mark.parametrize("row", ["{", "[]", '{"user_id": "u"}', '{"speed": "fast"}', "[" * 2000])
def test_what_is_no_row_of_the_worker_is_refused(api, row):
    assert api.get(QUESTION, params={"row": row}).problem() == (400, "REQUEST_INVALID")
