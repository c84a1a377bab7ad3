"""The contract of terms, on SQLite and on PostgreSQL: for what, and until when, a derived stream is shown and kept."""

import pytest
from sqlalchemy import select

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import StoreError
from datasync.domain.ids import StreamId
from datasync.store import segments, streams, tables, terms
from datasync.store.database import Database
from datasync.store.terms import Terms
from tests.contract.conftest import MakeSegment, MakeStream

ORIGINAL, DERIVED, OTHER = (StreamId(letter * 32) for letter in "abc")


def on(stream: StreamId = DERIVED, **changes: object) -> Terms:
    """Return the terms of a stream: for routing, for 100 ms."""
    said = {
        "stands_for": ORIGINAL,
        "purposes": frozenset({"routing"}),
        "retain_ms": 100,
        "onward": False,
        "operator": "acme",
        "rule": "H1",
        "revision": 7,
    }
    return Terms(stream=stream, **(said | changes))  # type: ignore[arg-type]


@pytest.fixture
def held(database: Database, new_segment: MakeSegment, new_stream: MakeStream, now: Instant) -> Database:
    """An original stream, and two that stand for it: one on terms, one for all purposes and for ever."""
    with database.write() as tx:
        for stream in (ORIGINAL, DERIVED, OTHER):
            streams.add(tx, new_stream(stream), now)
        segments.append(tx, [new_segment(ORIGINAL, 0, captured=HybridTime(1_000, 9))])
        segments.append(tx, [new_segment(DERIVED, first, captured=HybridTime(1_000 + first, 9)) for first in (10, 20)])
        segments.append(tx, [new_segment(OTHER, 30, captured=HybridTime(1, 0))])
        terms.add(tx, on())
        terms.add(tx, on(OTHER, purposes=None, retain_ms=None, onward=True, rule=None))
    return database


def shown(database: Database, purpose: str, now_ms: int) -> list[int]:
    """Return the first numbers of the segments that terms allow."""
    query = select(tables.segments.c.seq_first).where(terms.allows(purpose, now_ms))
    with database.read() as tx:
        return sorted(tx.scalars(query))


def test_terms_are_kept_as_they_were_told_and_are_found_by_device_and_by_the_original(held: Database) -> None:
    with held.read() as tx:
        known = terms.of_device(tx, "watch-1")
        assert known == {DERIVED: on(), OTHER: on(OTHER, purposes=None, retain_ms=None, onward=True, rule=None)}
        assert terms.of_device(tx, "watch-9") == {}
        assert terms.standing_for(tx, [ORIGINAL]) == known
        assert terms.standing_for(tx, [DERIVED]) == {}


def test_a_stream_has_one_set_of_terms_until_it_is_forgotten(held: Database) -> None:
    with pytest.raises(StoreError), held.write() as tx:
        terms.add(tx, on(onward=True))
    with held.write() as tx:
        terms.delete(tx, [DERIVED])
        assert set(terms.of_device(tx, "watch-1")) == {OTHER}


@pytest.mark.parametrize(
    ("purpose", "numbers"),
    [
        ("routing", [0, 10, 20, 30]),
        ("Routing", [0, 30]),
        ("rout", [0, 30]),
        ("research", [0, 30]),
        ('routing"', [0, 30]),
        ("%", [0, 30]),
        (",", [0, 30]),
    ],
)
def test_what_was_given_for_some_purposes_is_shown_for_these_alone(
    held: Database, purpose: str, numbers: list[int]
) -> None:
    assert shown(held, purpose, 1_000) == numbers


def test_of_several_purposes_each_is_one(held: Database) -> None:
    with held.write() as tx:
        terms.delete(tx, [DERIVED])
        terms.add(tx, on(purposes=frozenset({"a", "b c", 'd"e'})))
    assert [shown(held, purpose, 0) == [0, 10, 20, 30] for purpose in ("a", "b c", 'd"e', "b", "c", "e", ",")] == [
        *[True] * 3,
        *[False] * 4,
    ]


def test_a_row_is_shown_and_kept_to_the_last_millisecond_of_its_time(held: Database) -> None:
    assert shown(held, "routing", 1_110) == [0, 10, 20, 30]
    assert shown(held, "routing", 1_111) == [0, 20, 30]
    with held.read() as tx:
        assert terms.expired(tx, 1_110) == []
        assert [stream for stream, _ in terms.expired(tx, 1_111)] == [DERIVED]
        assert len(terms.expired(tx, 1_121)) == 2
        assert terms.next_expiry_ms(tx) == 1_111


def test_without_anything_that_is_kept_for_a_time_nothing_expires(database: Database) -> None:
    with database.read() as tx:
        assert terms.next_expiry_ms(tx) is None
        assert terms.expired(tx, 1 << 62) == []


def test_the_latest_capture_and_the_longest_time_that_can_be_told_are_no_overflow(
    database: Database, new_segment: MakeSegment, new_stream: MakeStream, now: Instant
) -> None:
    with database.write() as tx:
        streams.add(tx, new_stream(DERIVED), now)
        segments.append(tx, [new_segment(DERIVED, 0, captured=HybridTime.unpack((1 << 63) - 1))])
        terms.add(tx, on(retain_ms=(1 << 46) - 1))
        assert terms.expired(tx, now.wall_ms) == []
        assert terms.next_expiry_ms(tx) == (1 << 47) + (1 << 46) - 1
    assert shown(database, "routing", now.wall_ms) == [0]
