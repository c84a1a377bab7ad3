"""Terms: what another operator gave is in views for its purposes and in its time, and the layers joined to it too."""

import pytest

from datasync.domain.clock import Instant
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.policy.decide import worker
from datasync.store import terms
from datasync.store.terms import Terms
from datasync.views.read import read
from datasync.views.why import Question, why

ROUTING, TRAINING = "service.routing", "improve.train"


def give(site, device, purposes=None, retain_ms=None):
    """Let the device's rows have come from another operator, on these terms."""
    with site.database.write() as tx:
        for tier in (Tier.PUBLIC, Tier.EDGE_PRIVATE):
            on = Terms(
                stream=site.stream(device, tier),
                stands_for=StreamId("0" * 32),
                purposes=purposes,
                retain_ms=retain_ms,
                onward=False,
                operator="borealis",
                rule="H1",
                revision=1,
            )
            terms.add(tx, on)


def shown(site, after_ms=0):
    """Return how many rows the router sees so long after they were captured."""
    now = Instant(site.now.wall_ms + after_ms, 0)
    with site.database.read() as tx:
        return sum(chunk.batch.num_rows for chunk in read(tx, site.vault, site.plan("router"), now))


@pytest.mark.parametrize(
    ("purposes", "rows"), [(None, 3), ({ROUTING}, 3), ({TRAINING, ROUTING}, 3), ({TRAINING}, 1), (set(), 1)]
)
def test_rows_given_for_some_purposes_are_in_no_view_for_others(edge, trip, purposes, rows):
    edge.capture("watch-1", [trip(), trip()])
    edge.capture("watch-2", [trip()])
    give(edge, "watch-1", None if purposes is None else frozenset(purposes))
    assert shown(edge) == rows


def test_rows_given_for_a_time_are_in_no_view_after_it_even_before_they_are_erased(edge, trip):
    edge.capture("watch-1", [trip(), trip()])
    give(edge, "watch-1", retain_ms=5_000)
    assert shown(edge, 4_000) == 2
    assert shown(edge, 6_000) == 0


def test_why_says_that_the_terms_forbid_it(edge, trip):
    edge.capture("watch-1", [trip()])
    give(edge, "watch-1", frozenset({TRAINING}))
    question = Question(edge.policy, worker(edge.policy, "router"), ROUTING, edge.stored(Tier.EDGE_PRIVATE)[0].id)
    with edge.database.read() as tx:
        assert why(tx, edge.vault, question, edge.now).code == "TERMS_FORBID"
