"""Cursors: where a read ends, on either database."""

import pytest

from datasync.domain.tiers import Tier
from datasync.views.cursor import newest, page_end

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite", "postgres"])


@pytest.fixture
def ends(edge, trip):
    """Five batches of two rows, and the positions of the router's base layer."""
    for number in range(5):
        edge.capture(f"watch-{number % 2}", [trip(speed=float(number))] * 2)
    return [segment.position for segment in edge.stored(Tier.EDGE_PRIVATE)]


def ask(site, question, *arguments, purpose="service.routing"):
    with site.database.read() as tx:
        return question(tx, site.plan("router", purpose), *arguments)


def test_the_newest_position_is_that_of_the_base_layer_and_never_before_the_cursor(edge, ends):
    assert ask(edge, newest, 0) == ends[-1]
    assert ask(edge, newest, ends[-1] + 7) == ends[-1] + 7


def test_a_page_holds_as_many_whole_segments_as_fit_and_one_at_least(edge, ends):
    for rows_max, end in ((1, ends[0]), (2, ends[0]), (3, ends[0]), (4, ends[1]), (9, ends[3]), (10, ends[4])):
        assert ask(edge, page_end, edge.now, 0, rows_max) == end
    assert ask(edge, page_end, edge.now, ends[2], 2) == ends[3]


def test_after_the_last_segment_a_page_ends_where_it_begins(edge, ends):
    assert ask(edge, page_end, edge.now, ends[-1], 10) == ends[-1]


def test_segments_without_consent_do_not_fill_a_page_and_are_passed(edge, ends):
    assert ask(edge, page_end, edge.now, 0, 2, purpose="improve.train") == ends[-1]
    edge.consent("watch-1", Tier.PUBLIC, "improve.train", given=True, at=1)
    assert ask(edge, page_end, edge.now, 0, 4, purpose="improve.train") == ends[3]


def test_a_page_read_to_its_end_is_the_rows_that_it_was_made_for(edge, ends):
    end = ask(edge, page_end, edge.now, ends[0], 4)
    assert [row["speed"] for row in edge.rows("router", after=ends[0], until=end)] == [1.0, 1.0, 2.0, 2.0]
