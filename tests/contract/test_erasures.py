"""The contract of erasures, on SQLite and on PostgreSQL: tombstones stay, receipts are awaited until they are here."""

import pytest

from datasync.domain.clock import HybridTime
from datasync.domain.errors import StoreError
from datasync.domain.ids import StreamId
from datasync.store import erasures
from datasync.store.database import Database
from datasync.store.erasures import Erased, Erasure, Receipt

A, B, C = (StreamId(letter * 32) for letter in "abc")


def erased(stream: StreamId, *, shredded: bool = False) -> Erasure:
    of = Erased(3, 30, 2, (C,))
    return Erasure(stream, HybridTime(1_000, 7), b"signed " + stream.encode(), of, "trips", shredded)


@pytest.fixture
def held(database: Database) -> Database:
    """Two erased streams, for each of which two places are to confirm."""
    with database.write() as tx:
        erasures.add(tx, erased(A))
        erasures.add(tx, erased(B, shredded=True))
        erasures.expect(tx, [A, B], ["acme/cbd", "acme/docks"])
    return database


def test_a_tombstone_is_kept_as_it_was_made_and_made_once(held: Database) -> None:
    with held.read() as tx:
        assert erasures.get(tx, [A, B, C]) == {A: erased(A), B: erased(B, shredded=True)}
        assert erasures.among(tx, [A, C]) == {A}
        assert erasures.among(tx, []) == set()
        assert erasures.page(tx, after=A, limit=5) == [erased(B, shredded=True)]
    with pytest.raises(StoreError), held.write() as tx:
        erasures.add(tx, erased(A))


def test_what_is_not_shredded_is_found_until_it_is(held: Database) -> None:
    with held.write() as tx:
        assert erasures.unshredded(tx, 9) == [erased(A)]
        erasures.mark_shredded(tx, [A])
        assert erasures.unshredded(tx, 9) == []


def test_receipts_are_awaited_until_they_are_here_and_the_first_one_stays(held: Database) -> None:
    with held.write() as tx:
        assert erasures.put_receipt(tx, Receipt(A, "acme/cbd", b"first"))
        assert not erasures.put_receipt(tx, Receipt(A, "acme/cbd", b"second"))
        erasures.expect(tx, [A], ["acme/cbd"])
        assert erasures.receipts(tx, [A]) == [Receipt(A, "acme/cbd", b"first"), Receipt(A, "acme/docks", None)]
        assert [each.stream for each in erasures.awaited_of(tx, "acme/cbd", after=None, limit=9)] == [B]
        assert [each.stream for each in erasures.awaited_of(tx, None, after=None, limit=9)] == [A, B]
        assert [each.stream for each in erasures.awaited_of(tx, None, after=A, limit=9)] == [B]
        assert (erasures.awaited(tx), erasures.count(tx)) == ({"acme/cbd", "acme/docks"}, 3)


def test_a_receipt_that_nobody_awaited_is_kept_too(held: Database) -> None:
    with held.write() as tx:
        assert erasures.put_receipt(tx, Receipt(C, "acme/cloud", b"mine"))
        assert erasures.receipts(tx, [C]) == [Receipt(C, "acme/cloud", b"mine")]
        assert erasures.count(tx) == 4
