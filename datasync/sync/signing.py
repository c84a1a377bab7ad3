"""Signing: the checkpoints of the streams that are captured here.

All layers of a collection are signed together and over the same batches: whoever verifies them together shows no layer
of a batch without those below it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from datasync.domain.limits import CHECKPOINT_SEGMENTS_MAX
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Tier
from datasync.protocol import checkpoint
from datasync.protocol.checkpoint import Checkpoint, Entry
from datasync.store import checkpoints, segments, streams
from datasync.store.checkpoints import Standing
from datasync.store.segments import StoredSegment
from datasync.store.streams import Stream

StreamKey = Callable[[str, Tier, int], Ed25519PrivateKey]
"""Gives a stream's signing key by collection, tier and generation."""


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint that was made, and the segments that it signs."""

    id: int
    data: bytes
    segments: list[StoredSegment]


def sign(
    tx: Connection, layers: Iterable[Stream], stream_key: StreamKey, standing: Callable[[Tier], Standing]
) -> list[Made]:
    """Sign what is unsigned of the streams of one collection; ``standing`` says how far a tier's checkpoints are."""
    owed: dict[RangeSet, list[Stream]] = {}
    for layer in layers:
        if unsigned := layer.have - layer.signed:
            owed.setdefault(unsigned, []).append(layer)
    parts = []
    for numbers, alike in owed.items():
        found = segments.unsigned(tx, [each.stream for each in alike], numbers)
        for layer in alike:
            own = [each for each in found if each.stream == layer.stream]
            key = stream_key(layer.collection, layer.tier, layer.generation)
            parts.append([_part(own[first : first + _MOST], key) for first in range(0, len(own), _MOST)])
    together = [part for row in zip_longest(*parts) for part in row if part is not None]
    ids = checkpoints.add_new(tx, [(made, standing(part[0].tier)) for made, part in together])
    done = [Made(number, made.data, part) for number, (made, part) in zip(ids, together, strict=True)]
    segments.sign(tx, {segment.id: made.id for made in done for segment in made.segments})
    streams.put_signed(tx, {layer.stream: layer.have for alike in owed.values() for layer in alike})
    return done


_MOST = CHECKPOINT_SEGMENTS_MAX


def _part(found: list[StoredSegment], key: Ed25519PrivateKey) -> tuple[Checkpoint, list[StoredSegment]]:
    return checkpoint.sign([Entry(each.seq_first, each.seq_last, each.hash) for each in found], key), found
