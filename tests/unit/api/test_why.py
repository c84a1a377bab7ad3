"""Why, over HTTP: the steps of a view for one segment or row, for the administrator."""

import pytest

from datasync.domain.tiers import Tier
from datasync.store import segments, streams

WHO = "worker=router&purpose=service.routing"
ROWS = [{"user_id": "u", "speed": speed, "mode": "bike"} for speed in (1.0, 2.0)]


@pytest.fixture
def private(api):
    """The edge-private segment of a batch of two rows."""
    api.node.capture("watch-1", ROWS)
    with api.node.database.read() as tx:
        stream = next(each.stream for each in streams.of_device(tx, "watch-1") if each.tier is Tier.EDGE_PRIVATE)
        return segments.of_stream(tx, stream)[0]


def test_a_segment_that_is_seen(api, private):
    answer = api.get(f"/v1/admin/why?{WHO}&segment={private.id}").json
    assert (answer["sees"], answer["code"], answer["segment"]) == (True, "SEEN", private.id)
    assert (answer["collection"], answer["columns"]) == ("trips", ["speed", "mode"])
    assert answer["rules"] == [{"rule": "R1", "allows": True, "rows": 2, "failed": None}]
    assert answer["steps"][0]["name"] == "policy"
    assert not any(step["code"] for step in answer["steps"])


def test_a_row_by_its_stream_and_number(api, private):
    asked = f"/v1/admin/why?{WHO}&stream={private.stream}&seq="
    assert api.get(f"{asked}1").json["sees"]
    answer = api.get(f"{asked}2").json
    assert (answer["sees"], answer["code"], answer["segment"]) == (False, "NOT_HERE", None)


def test_another_operators_worker_is_denied_as_its_view_would_be(api, private):
    answer = api.get(f"/v1/admin/why?worker=stranger&purpose=service.routing&segment={private.id}").json
    assert (answer["code"], answer["steps"][-1]["name"]) == ("NO_OPERATOR", "policy")


def test_a_worker_that_reads_nothing_at_this_node_is_an_error_that_says_so(api, private):
    answer = api.get(f"/v1/admin/why?worker=trainer&purpose=improve.train&segment={private.id}")
    assert answer.problem() == (403, "FORBIDDEN")
    assert "works in place cloud" in answer.json["detail"]


@pytest.mark.parametrize("asked", ["segment=99", f"stream={'0' * 32}&seq=0"])
def test_what_is_not_here_is_not_found(api, asked):
    assert api.get(f"/v1/admin/why?{WHO}&{asked}").problem() == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "asked", ["", "seq=1", f"stream={'0' * 32}", f"segment=1&stream={'0' * 32}&seq=0", "segment=-1", "stream=x&seq=0"]
)
def test_what_is_neither_a_segment_nor_a_row_is_refused(api, asked):
    assert api.get(f"/v1/admin/why?{WHO}&{asked}").problem() == (400, "REQUEST_INVALID")
