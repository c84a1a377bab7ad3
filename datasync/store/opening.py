"""Opening stored segments: decrypted, and checked to be the very ones that their metadata announce.

Its metadata may have come from another edge, and its body under a key that others had; what its hash says, a checkpoint
of its stream signs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasync.domain.errors import SegmentInvalid
from datasync.protocol import segment
from datasync.protocol.segment import Header, Segment
from datasync.security.vault import Vault
from datasync.store.segments import StoredSegment

_ANNOUNCED = (
    "stream",
    "collection",
    "tier",
    "seq_first",
    "seq_last",
    "rows",
    "captured",
    "time_min_ms",
    "time_max_ms",
    "policy_digest",
    "meta",
)
"""What the metadata repeat of a segment's header."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a batch: its segment's header, its rows, and their sequence numbers."""

    header: Header
    batch: pa.RecordBatch
    numbers: npt.NDArray[np.int64]


def open_layer(vault: Vault, stored: StoredSegment, body: bytes) -> Layer:
    """Return the rows of the segment in an encrypted body.

    Raises KeyUnavailable when its stream was erased, BodyDamaged, and SegmentInvalid when it is not the one announced.
    """
    opened = open_segment(vault, stored, body)
    return Layer(opened.header, *segment.rows(opened))


def open_segment(vault: Vault, stored: StoredSegment, body: bytes) -> Segment:
    """Return the segment in an encrypted body.

    Raises KeyUnavailable when its stream was erased, BodyDamaged, and SegmentInvalid when it is not the one announced.
    """
    opened = segment.parse(vault.decrypt(stored.stream, stored.key_id, stored.seq_first, body))
    header = opened.header
    if stored.hash != opened.hash or any(getattr(stored, name) != getattr(header, name) for name in _ANNOUNCED):
        raise SegmentInvalid(f"the segment at {stored.seq_first} of stream {stored.stream} is not what was announced")
    return opened
