"""Gathering: recorded rows become batches in their order, when there are enough of them or it is time."""

import pyarrow as pa
import pytest

from datasync.domain.clock import Instant
from datasync.domain.errors import RecordError
from datasync.domain.limits import BATCH_BYTES_MAX, ROW_BYTES_MAX
from datasync.nodes.recording import Gathered, Gathering

FLUSH_ROWS, FLUSH_MS = 10, 200


def rows(first: int, count: int) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(range(first, first + count), pa.int64())})


def texts(*sizes: int) -> pa.RecordBatch:
    return pa.record_batch({"text": ["x" * size for size in sizes]})


def gathering(*counts: int) -> Gathering:
    """Return one that was given batches of so many rows, numbered through, at time 0."""
    made = Gathering(FLUSH_ROWS, FLUSH_MS)
    first = 0
    for ticket, count in enumerate(counts):
        made.add("trips", rows(first, count), ticket, Instant(0, 0))
        first += count
    return made


def numbers(gathered: Gathered) -> list[list[int]]:
    return [batch["n"].to_pylist() for batch in gathered.batches]


def test_rows_wait_until_there_are_enough_or_it_is_time() -> None:
    made = gathering(4, 5)
    assert made.take(Instant(0, FLUSH_MS - 1)) == []
    assert made.deadline_ms == FLUSH_MS
    (gathered,) = made.take(Instant(0, FLUSH_MS))
    assert (gathered.collection, gathered.tickets) == ("trips", (0, 1))
    assert numbers(gathered) == [list(range(9))]
    assert made.deadline_ms is None


@pytest.mark.parametrize(
    "counts", [(10,), (10, 10, 10), (10, 10, 3), (25,), (7, 7, 7), (1,) * 10, (10, 3, 10), (3, 25)]
)
def test_batches_are_as_full_as_they_may_be_and_in_the_order_of_recording(counts: tuple[int, ...]) -> None:
    (gathered,) = gathering(*counts).take(Instant(0, 0))
    found = numbers(gathered)
    assert [number for batch in found for number in batch] == list(range(sum(counts)))
    assert all(len(batch) == FLUSH_ROWS for batch in found[:-1])
    assert len(found[-1]) <= FLUSH_ROWS


def test_batches_of_large_rows_are_cut_by_their_bytes() -> None:
    made = Gathering(FLUSH_ROWS, FLUSH_MS)
    made.add("trips", texts(*[BATCH_BYTES_MAX // 3] * 8), 1, Instant(0, 0))
    (gathered,) = made.take(Instant(0, 0), everything=True)
    assert sum(batch.num_rows for batch in gathered.batches) == 8
    assert all(batch.nbytes <= BATCH_BYTES_MAX for batch in gathered.batches)


def test_a_row_that_is_too_large_is_refused_with_those_recorded_beside_it() -> None:
    made = Gathering(FLUSH_ROWS, FLUSH_MS)
    with pytest.raises(RecordError, match="row 1"):
        made.add("trips", texts(1, ROW_BYTES_MAX), 1, Instant(0, 0))
    assert made.take(Instant(0, 0), everything=True) == []
