"""What was taken back, on SQLite and on PostgreSQL: the views' own condition, turned round."""

import itertools

import pytest

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.store import consents, segments, streams
from datasync.store.consents import Consent
from datasync.store.database import Database
from datasync.store.segments import State
from datasync.views import consent
from datasync.views.withdrawals import withdrawn
from tests.contract.conftest import MakeSegment, MakeStream

A, B, C = (StreamId(letter * 32) for letter in "abc")
"""Two layers of one device, and a stream whose device is not known."""
BASES = {"train": "opt_in", "count": "opt_out"}
LATE = HybridTime(1_000, 0)


@pytest.fixture
def held(database: Database, new_segment: MakeSegment, new_stream: MakeStream, now: Instant) -> Database:
    """A database in which each stream holds a segment."""
    with database.write() as tx:
        streams.add(tx, new_stream(A), now)
        streams.add(tx, new_stream(B, tier=Tier.PUBLIC), now)
        streams.add(tx, new_stream(C, device=None), now)
        segments.append(tx, [new_segment(stream, 0) for stream in (A, B, C)])
    return database


def say(database: Database, stream: StreamId, purpose: str, *, given: bool, at_ms: int) -> None:
    with database.write() as tx:
        consents.put(tx, Consent(stream, purpose, given, HybridTime(at_ms, 0), b"", State.LOCAL))


def gone(database: Database, before: HybridTime = LATE, bases: dict[str, str] | None = None) -> str:
    """Return the letters of the streams that were taken back."""
    with database.read() as tx:
        found = withdrawn(tx, [A, B, C], BASES if bases is None else bases, before)
    return "".join(sorted(stream[0] for stream in found))


def test_a_stream_is_taken_back_with_the_other_layers_of_its_device_and_one_of_no_device_alone(held: Database) -> None:
    for stream in (A, C):
        say(held, stream, "count", given=False, at_ms=5)
    assert gone(held) == "abc"
    say(held, B, "count", given=True, at_ms=6)
    assert gone(held) == "c"


def test_without_a_withdrawal_nothing_was_taken_back(held: Database) -> None:
    assert gone(held, bases={"train": "opt_in"}) == ""
    say(held, C, "other", given=False, at_ms=5)
    assert gone(held, bases={"train": "opt_in"}) == ""


def test_where_nobody_may_read_at_all_nothing_is_concerned(held: Database) -> None:
    say(held, C, "count", given=False, at_ms=5)
    assert gone(held, bases={}) == ""


def test_what_needs_no_consent_is_not_taken_back(held: Database) -> None:
    say(held, C, "count", given=False, at_ms=5)
    assert gone(held, bases={"count": "contract"}) == ""
    assert gone(held, bases={"count": "opt_out", "route": "contract"}) == ""


def test_the_newest_withdrawal_is_the_one_whose_age_counts(held: Database) -> None:
    say(held, C, "train", given=False, at_ms=5)
    say(held, C, "count", given=False, at_ms=9)
    assert gone(held, HybridTime(9, 0)) == ""
    assert gone(held, HybridTime(9, 1)) == "c"


def test_a_stream_that_holds_nothing_has_nothing_to_give_back(held: Database) -> None:
    say(held, C, "count", given=False, at_ms=5)
    with held.write() as tx:
        segments.delete(tx, [C])
    assert gone(held) == ""


@pytest.mark.parametrize("bases", [{"train": "opt_in"}, {"count": "opt_out"}, BASES])
def test_nothing_that_a_view_may_show_counts_as_taken_back(held: Database, bases: dict[str, str]) -> None:
    said = [None, True, False]
    for number, (train, count, earlier) in enumerate(itertools.product(said, said, [True, False]), start=1):
        for purpose, given, stream in (("train", train, C), ("count", count, C), ("count", earlier, A)):
            if given is not None:
                say(held, stream, purpose, given=given, at_ms=number)
        with held.read() as tx:
            shown = {
                stream
                for stream in (A, B, C)
                if any(consent.allowed(tx, basis, purpose, stream) for purpose, basis in bases.items())
            }
        assert shown.isdisjoint(StreamId(letter * 32) for letter in gone(held, bases=bases))
