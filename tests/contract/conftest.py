"""What the store's contract is tested with: segments and streams that differ from call to call."""

import dataclasses
import hashlib
from typing import Any, Protocol

import pytest

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.store.segments import NewSegment, State
from datasync.store.streams import Stream


class MakeSegment(Protocol):
    def __call__(self, stream: str = ..., seq_first: int = ..., **changes: Any) -> NewSegment: ...


class MakeStream(Protocol):
    def __call__(self, stream: str = ..., **changes: Any) -> Stream: ...


@pytest.fixture
def now() -> Instant:
    return Instant(1_700_000_000_000, 5_000)


@pytest.fixture
def new_segment() -> MakeSegment:
    """Build a segment of ten rows; any field can be given."""

    def make(stream: str = "a" * 32, seq_first: int = 0, **changes: Any) -> NewSegment:
        body = f"body of {stream} from {seq_first}".encode()
        segment = NewSegment(
            stream=StreamId(stream),
            collection="trips",
            tier=Tier.EDGE_PRIVATE,
            seq_first=seq_first,
            seq_last=seq_first + 9,
            rows=10,
            bytes=len(body),
            captured=HybridTime(1_700_000_000_000 + seq_first, 3),
            time_min_ms=1_700_000_000_000,
            time_max_ms=None,
            policy_digest="d" * 64,
            meta={"region": "melbourne", "floor": 3, "share": 0.5, "indoor": True},
            hash=hashlib.sha256(body).hexdigest(),
            key_id="c" * 32,
            state=State.WAITING,
            checkpoint=1,
            body=body,
            visible=True,
        )
        return dataclasses.replace(segment, **changes)

    return make


@pytest.fixture
def new_stream() -> MakeStream:
    """Build a stream of watch-1; any field can be given."""

    def make(stream: str = "a" * 32, **changes: Any) -> Stream:
        made = Stream(StreamId(stream), b"\x01" * 32, "watch-1", "trips", Tier.EDGE_PRIVATE)
        return dataclasses.replace(made, **changes)

    return make
