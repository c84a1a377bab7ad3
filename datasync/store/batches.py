"""Batches: the layers of one capture, which are sent and stored together so that no reader sees half of one."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from datasync.domain import limits
from datasync.store.segments import StoredSegment

MESSAGE_FILL_BYTES = 1 << 20
"""A message is closed when another batch would take it over this; one batch may be larger, up to the limit."""


def batch_key(each: StoredSegment) -> tuple[int, str, int]:
    """What the layers of one batch have in common and other batches have not."""
    return each.captured.pack(), each.collection, each.seq_first


def batches(ordered: Iterable[StoredSegment]) -> Iterator[list[StoredSegment]]:
    """Group segments that stand together into batches."""
    return (list(group) for _, group in groupby(ordered, key=batch_key))


def pack(whole: Iterable[list[StoredSegment]]) -> list[list[StoredSegment]]:
    """Fill messages with whole batches, within the limits of a message."""
    messages: list[list[StoredSegment]] = []
    size_bytes = 0
    for batch in whole:
        batch_bytes = sum(each.bytes for each in batch)
        full = size_bytes + batch_bytes > MESSAGE_FILL_BYTES
        if not messages or full or len(messages[-1]) + len(batch) > limits.SEGMENTS_PER_MESSAGE_MAX:
            messages.append([])
            size_bytes = 0
        messages[-1].extend(batch)
        size_bytes += batch_bytes
    return messages
