"""Batches: the layers of one capture, which are sent and stored together so that no reader sees half of one.

A batch has at most one layer of each tier and fits a message. What only looks like one, because devices captured at
the same time or one of them says so, is taken apart: it can neither overfill a message nor hold up the rest.
"""

from collections.abc import Iterable, Iterator, Sequence

from datasync.domain import limits
from datasync.store.segments import StoredSegment

MESSAGE_FILL_BYTES = 1 << 20
"""A message is closed when another batch would take it over this; one batch may be larger, up to the limit."""

BATCH_SENT_BYTES_MAX = limits.MESSAGE_BYTES_MAX - (1 << 20)
"""Layers of one batch in a message; the rest is for what goes with them."""


def belongs(each: StoredSegment, batch: Sequence[StoredSegment]) -> bool:
    """Whether a segment that follows a batch is one more of its layers."""
    return (
        _key(each) == _key(batch[0])
        and all(each.tier != layer.tier for layer in batch)
        and each.bytes + _size_bytes(batch) <= BATCH_SENT_BYTES_MAX
    )


def batches(ordered: Iterable[StoredSegment]) -> Iterator[list[StoredSegment]]:
    """Group segments that stand together into batches."""
    batch: list[StoredSegment] = []
    for each in ordered:
        if batch and not belongs(each, batch):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def pack(whole: Iterable[list[StoredSegment]]) -> list[list[StoredSegment]]:
    """Fill messages with whole batches, within the limits of a message."""
    messages: list[list[StoredSegment]] = []
    filled_bytes = 0
    for batch in whole:
        full = filled_bytes + _size_bytes(batch) > MESSAGE_FILL_BYTES
        if not messages or full or len(messages[-1]) + len(batch) > limits.SEGMENTS_PER_MESSAGE_MAX:
            messages.append([])
            filled_bytes = 0
        messages[-1].extend(batch)
        filled_bytes += _size_bytes(batch)
    return messages


def _key(each: StoredSegment) -> tuple[int, str, int]:
    """What the layers of one batch have in common and other batches of their device have not."""
    return each.captured.pack(), each.collection, each.seq_first


def _size_bytes(batch: Sequence[StoredSegment]) -> int:
    return sum(each.bytes for each in batch)
