"""The sender: what waits in the database goes out in whole batches, within a window, until it is acknowledged."""

from dataclasses import replace

from datasync.domain import limits
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import StreamId
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.store import segments
from datasync.store.database import Database
from datasync.store.segments import NewSegment, State, StoredSegment
from datasync.sync.sender import FLIGHTS_MAX, LOOK_AHEAD, Sender

LOW, HIGH = StreamId("a" * 32), StreamId("b" * 32)


def put(database: Database, numbers: range, size_bytes: int = 100) -> None:
    """Store one batch for each number: an edge-private and a public layer of one row."""
    with database.write() as tx:
        segments.append(tx, [layer(number, tier, size_bytes) for number in numbers for tier in Tier if tier < 2])


def layer(number: int, tier: Tier, size_bytes: int) -> NewSegment:
    return NewSegment(
        stream=(LOW, HIGH)[tier],
        collection="steps",
        tier=tier,
        seq_first=number,
        seq_last=number,
        rows=1,
        bytes=size_bytes,
        captured=HybridTime(1_000 + number, 0),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest="d" * 64,
        meta={},
        hash=f"{number:064x}",
        key_id="k" * 32,
        state=State.WAITING,
        checkpoint=1,
        body=b"x",
        visible=True,
    )


def due(database: Database, sender: Sender, steady_ms: int = 0) -> list[list[StoredSegment]]:
    with database.read() as tx:
        return sender.due(tx, Instant(0, steady_ms))


def numbers(messages: list[list[StoredSegment]]) -> list[int]:
    return sorted({each.seq_first for message in messages for each in message})


def acknowledge(database: Database, sender: Sender, upto: int) -> None:
    done = RangeSet.of([(0, upto)])
    sender.acknowledge({LOW: done, HIGH: done})
    with database.write() as tx:
        for stream in (LOW, HIGH):
            segments.mark(tx, stream, done, State.SAFE, from_states=[State.WAITING])


def test_what_waits_is_sent_once_with_the_layers_of_a_batch_together(database: Database) -> None:
    put(database, range(5))
    sender = Sender()
    messages = due(database, sender)
    assert [(each.seq_first, each.tier) for message in messages for each in message] == [
        (number, tier) for number in range(5) for tier in (Tier.PUBLIC, Tier.EDGE_PRIVATE)
    ]
    assert due(database, sender) == []


def test_what_is_not_acknowledged_is_sent_again_and_later_each_time(database: Database) -> None:
    put(database, range(2))
    sender = Sender(retry_ms=100)
    due(database, sender)
    assert sender.deadline_ms == 100
    assert due(database, sender, 99) == []
    assert numbers(due(database, sender, 100)) == [0, 1]
    assert due(database, sender, 250) == []
    assert numbers(due(database, sender, 300)) == [0, 1]


def test_what_is_acknowledged_is_not_sent_again(database: Database) -> None:
    put(database, range(3))
    sender = Sender(retry_ms=100)
    due(database, sender)
    acknowledge(database, sender, 1)
    assert numbers(due(database, sender, 100)) == [2]
    assert sender.in_flight == 2


def test_what_was_erased_is_forgotten_but_not_what_came_back_under_the_same_numbers(database: Database) -> None:
    sender = Sender(retry_ms=100)
    put(database, range(1))
    ((_, erased),) = due(database, sender)
    with database.write() as tx:
        segments.delete(tx, [LOW, HIGH])
    put(database, range(1))
    ((first, second),) = due(database, sender)
    sender.forget(erased)
    again = {each.id for message in due(database, sender, steady_ms=100) for each in message}
    assert erased.id not in again
    assert {first.id, second.id} <= again


def test_no_more_is_in_flight_than_the_window_has_room_for(database: Database) -> None:
    put(database, range(10), size_bytes=1_000)
    sender = Sender(window_bytes=6_000)
    sender.look_again()
    first = numbers(due(database, sender))
    assert 1 <= len(first) <= 4
    acknowledge(database, sender, first[-1])
    assert numbers(due(database, sender))[0] == first[-1] + 1


def test_what_is_captured_now_is_not_stuck_behind_what_piled_up(database: Database) -> None:
    put(database, range(100), size_bytes=1_000)
    sender = Sender(window_bytes=20_000)
    backlog = numbers(due(database, sender))
    assert len(backlog) <= 6  # half of the window, two layers of 1,000 bytes each, and one batch beyond
    put(database, range(100, 102), size_bytes=1_000)
    assert numbers(due(database, sender)) == [100, 101]


def test_everything_goes_out_in_the_end_whatever_the_window(database: Database) -> None:
    put(database, range(700), size_bytes=1_000)
    sender = Sender(window_bytes=1 << 16)
    sent: list[int] = []
    for _ in range(200):
        batch = numbers(due(database, sender))
        if not batch:
            break
        sent += batch
        acknowledge(database, sender, batch[-1])
    assert sent == list(range(700))


def test_a_new_receiver_is_sent_everything_from_the_beginning(database: Database) -> None:
    put(database, range(3))
    sender = Sender()
    due(database, sender)
    sender.restart()
    assert numbers(due(database, sender)) == [0, 1, 2]


def test_looking_again_finds_what_waits_anew_and_sends_nothing_twice(database: Database) -> None:
    put(database, range(4))
    with database.write() as tx:
        for stream in (LOW, HIGH):
            segments.mark(tx, stream, RangeSet.of([(0, 1)]), State.DURABLE, from_states=[State.WAITING])
    sender = Sender()
    assert numbers(due(database, sender)) == [2, 3]
    with database.write() as tx:
        for stream in (LOW, HIGH):
            segments.mark(tx, stream, RangeSet.of([(0, 1)]), State.WAITING, from_states=[State.DURABLE])
    assert due(database, sender) == []
    sender.look_again()
    assert numbers(due(database, sender)) == [0, 1]


def test_a_layer_that_waits_anew_is_sent_though_its_neighbour_is_in_flight(database: Database) -> None:
    put(database, range(1))
    sender = Sender()
    mark(database, HIGH, State.WAITING, State.DURABLE)
    assert [each.stream for message in due(database, sender) for each in message] == [LOW]
    mark(database, HIGH, State.DURABLE, State.WAITING)
    sender.look_again()
    assert [each.stream for message in due(database, sender) for each in message] == [HIGH]


def mark(database: Database, stream: StreamId, before: State, after: State) -> None:
    with database.write() as tx:
        segments.mark(tx, stream, RangeSet.of([(0, 9)]), after, from_states=[before])


def test_what_only_looks_like_one_batch_does_not_hold_up_the_rest(database: Database) -> None:
    """A device can sign any number of segments for one moment, of one collection, from one number on."""
    count = 2 * LOOK_AHEAD + 88
    same = [replace(layer(0, Tier.PUBLIC, 10), stream=StreamId(f"{number:032x}")) for number in range(count)]
    with database.write() as tx:
        segments.append(tx, same)
    put(database, range(1, 3))
    sender = Sender(retry_ms=100)
    sent = due(database, sender)
    assert sum(map(len, sent)) == count + 4
    assert all(len(message) <= limits.SEGMENTS_PER_MESSAGE_MAX for message in sent)
    again = due(database, sender, steady_ms=100)
    assert all(len(message) <= limits.SEGMENTS_PER_MESSAGE_MAX for message in again)
    assert sum(map(len, again)) == count + 4


def test_no_more_segments_are_in_flight_than_may_be_however_small(database: Database) -> None:
    put(database, range(FLIGHTS_MAX), size_bytes=1)
    sender = Sender()
    due(database, sender)
    assert sender.in_flight == FLIGHTS_MAX
    acknowledge(database, sender, 99)
    due(database, sender)
    assert sender.in_flight == FLIGHTS_MAX


def test_an_empty_store_has_nothing_to_send_and_no_deadline(database: Database) -> None:
    sender = Sender()
    assert due(database, sender) == []
    assert sender.deadline_ms is None
