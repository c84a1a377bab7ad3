"""A sender's window."""

from datasync.domain import limits
from datasync.domain.clock import Instant
from datasync.domain.window import Window


def at(steady_ms: int) -> Instant:
    return Instant(0, steady_ms)


def test_what_was_sent_takes_room_until_it_is_dropped() -> None:
    window = Window(bytes_max=100, retry_ms=10)
    window.add(1, 60, at(0))
    assert window.room_bytes == 40
    window.add(2, 60, at(0))
    assert window.room_bytes < 0
    window.drop([1, 2, 3])
    assert len(window) == 0
    assert window.room_bytes >= 100


def test_an_empty_window_admits_one_item_of_any_size_that_a_message_may_have() -> None:
    assert Window(bytes_max=1).room_bytes >= limits.MESSAGE_BYTES_MAX


def test_an_item_is_overdue_after_the_interval_and_each_time_later() -> None:
    window = Window(bytes_max=100, retry_ms=10)
    window.add(1, 1, at(0))
    assert window.overdue(at(9)) == []
    assert window.overdue(at(10)) == [1]
    assert window.overdue(at(29)) == []
    assert window.overdue(at(30)) == [1]
    assert window.deadline_ms == 30 + 40


def test_the_interval_is_bounded() -> None:
    window = Window(bytes_max=100, retry_ms=limits.RETRY_MS_MAX)
    window.add(1, 1, at(0))
    for _ in range(5):
        now = window.deadline_ms
        assert now is not None
        assert window.overdue(at(now)) == [1]
        assert window.deadline_ms == now + limits.RETRY_MS_MAX


def test_clearing_forgets_everything() -> None:
    window = Window(bytes_max=100, retry_ms=10)
    window.add(1, 60, at(0))
    window.clear()
    assert list(window) == []
    assert 1 not in window
    assert window.deadline_ms is None
