"""Capture: rows become segments, and what a place may not hold never leaves its maker.

The policy splits a batch into layers, one for each tier; each layer is a segment of its own stream, chained to the
segment before it and later signed (:mod:`signing`). All layers of a batch share one range of sequence numbers and are
stored in one transaction, so that a reader cleared for several joins them by position. A device captures its own
rows; an edge captures for plain MQTT devices that cannot, and then keeps no layer above its own place's tier.

When streams are erased their collection begins anew: with streams of the next *generation*, whose keys, and so whose
ids, say nothing of those before, and with sequence numbers from 0.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import RecordError
from datasync.domain.ids import NodeName, stream_id
from datasync.domain.tiers import Place, Tier
from datasync.policy.compiled import Policy
from datasync.policy.projection import Layer, split
from datasync.protocol import segment
from datasync.security.vault import Vault
from datasync.store import registers, segments, streams
from datasync.store.segments import NewSegment, State
from datasync.store.streams import Stream

Meta = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Captor:
    """Who captures for which device, and where: the keys of its streams and pseudonyms, and its constants.

    ``stream_key(collection, tier, generation)`` gives a stream's signing key, ``pseudonym_key(transform, period)`` an
    HMAC key. ``meta`` are the device's constants; the policy says which of them a collection's segments carry.
    """

    device: NodeName
    place: Place
    vault: Vault
    stream_key: Callable[[str, Tier, int], Ed25519PrivateKey]
    pseudonym_key: Callable[[str, int], bytes]
    meta: Meta

    def capture(
        self, tx: Connection, policy: Policy, collection: str, batch: pa.RecordBatch, stamp: HybridTime, now: Instant
    ) -> tuple[int, int]:
        """Store the batch as segments; return its first and last sequence number.

        ``batch`` has 1 to ``SEGMENT_ROWS_MAX`` rows of the collection's input schema. Raises RecordError.
        """
        if not 0 < batch.num_rows <= limits.SEGMENT_ROWS_MAX:
            raise RecordError(f"a batch has 1 to {limits.SEGMENT_ROWS_MAX} rows, not {batch.num_rows}")
        layers = split(policy, collection, batch, subject_key=self.pseudonym_key, now=now)
        generation = _begun(tx, self.device, collection)[0]
        known = _of_generation(tx, self.device, collection, generation)
        first = _next(known.values())
        last = first + batch.num_rows - 1
        heads: dict[str, str] = registers.get(tx, f"heads:{self.device}:{collection}", {})
        new, have = [], {}
        for layer in layers:
            if layer.tier > self.place.highest_tier:
                continue
            key = self.stream_key(collection, layer.tier, generation)
            stream = known.get(layer.tier) or self._open(tx, key, generation, collection, layer.tier, now)
            header = self._header(policy, stream, layer, (first, last), stamp, heads.get(stream.stream, ""))
            made = segment.encode(header, layer.batch, layer.positions, segment.salt_of(header, key))
            heads[stream.stream] = made.hash
            new.append(seal(self.vault, made, self._state(layer.tier), now, visible=True))
            have[stream.stream] = stream.have.add(first, last)
        segments.append(tx, new)
        streams.put_have(tx, have)
        registers.put(tx, f"heads:{self.device}:{collection}", heads)
        return first, last

    def _open(
        self, tx: Connection, key: Ed25519PrivateKey, generation: int, collection: str, tier: Tier, now: Instant
    ) -> Stream:
        public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        stream = Stream(stream_id(public_key), public_key, self.device, collection, tier, generation)
        streams.add(tx, stream, now)
        return stream

    def _header(
        self, policy: Policy, stream: Stream, layer: Layer, numbers: tuple[int, int], stamp: HybridTime, previous: str
    ) -> segment.Header:
        time_min_ms, time_max_ms = _time_range(policy, stream.collection, layer.batch)
        carried = policy.collections[stream.collection].meta
        return segment.Header(
            stream=stream.stream,
            public_key=stream.public_key,
            collection=stream.collection,
            tier=layer.tier,
            seq_first=numbers[0],
            seq_last=numbers[1],
            rows=layer.batch.num_rows,
            captured=stamp,
            time_min_ms=time_min_ms,
            time_max_ms=time_max_ms,
            policy_digest=policy.digest,
            meta={name: value for name, value in self.meta.items() if name in carried and carried[name] <= layer.tier},
            previous=previous,
        )

    def _state(self, tier: Tier) -> State:
        return State.WAITING if tier < self.place.highest_tier else State.LOCAL


def own_streams(tx: Connection, device: NodeName, collection: str) -> dict[Tier, Stream]:
    """Return by tier the device's streams of one collection that rows are captured into now."""
    return _of_generation(tx, device, collection, _begun(tx, device, collection)[0])


def recorded(tx: Connection, device: NodeName, collection: str) -> int:
    """Return how many rows of the collection were ever made durable here, those that were erased since included."""
    generation, before = _begun(tx, device, collection)
    return before + _next(_of_generation(tx, device, collection, generation).values())


def begin_anew(tx: Connection, device: NodeName, collection: str, after: int) -> None:
    """Capture into new streams from now on, of a later generation than the present one and ``after``.

    Call it while the present streams are known: their rows count as recorded.
    """
    generation = max(_begun(tx, device, collection)[0], after) + 1
    registers.put(tx, _begun_name(device, collection), [generation, recorded(tx, device, collection)])
    registers.put(tx, f"heads:{device}:{collection}", {})


def seal(
    vault: Vault,
    made: segment.Segment,
    state: State,
    now: Instant,
    *,
    checkpoint: int | None = None,
    visible: bool | None = None,
) -> NewSegment:
    """Return a segment as the store keeps it: its metadata, and its bytes under the stream's data key.

    Unless it is said, it is visible when a ``checkpoint`` signs it.
    """
    header = made.header
    key_id, body = vault.encrypt(header.stream, header.seq_first, made.data, now)
    return NewSegment(
        stream=header.stream,
        collection=header.collection,
        tier=header.tier,
        seq_first=header.seq_first,
        seq_last=header.seq_last,
        rows=header.rows,
        bytes=len(body),
        captured=header.captured,
        time_min_ms=header.time_min_ms,
        time_max_ms=header.time_max_ms,
        policy_digest=header.policy_digest,
        meta=header.meta,
        hash=made.hash,
        key_id=key_id,
        state=state,
        checkpoint=checkpoint,
        body=body,
        visible=checkpoint is not None if visible is None else visible,
    )


def _time_range(policy: Policy, collection: str, batch: pa.RecordBatch) -> tuple[int | None, int | None]:
    """Return the least and greatest time of the layer's own time column, in ms; what the layer hides stays hidden."""
    column = policy.collections[collection].time
    if column is None or column not in batch.schema.names or not pa.types.is_timestamp(batch.column(column).type):
        return None, None
    bounds = pc.min_max(batch.column(column))
    first_us, last_us = bounds["min"].value, bounds["max"].value
    return (None, None) if first_us is None else (first_us // 1_000, last_us // 1_000)


def _of_generation(tx: Connection, device: NodeName, collection: str, generation: int) -> dict[Tier, Stream]:
    wanted = (collection, generation)
    return {each.tier: each for each in streams.of_device(tx, device) if (each.collection, each.generation) == wanted}


def _begun(tx: Connection, device: NodeName, collection: str) -> tuple[int, int]:
    """Return the generation that rows are captured into, and how many rows the generations before it had."""
    generation, rows = registers.get(tx, _begun_name(device, collection), (0, 0))
    return generation, rows


def _begun_name(device: NodeName, collection: str) -> str:
    return f"generation:{device}:{collection}"


def _next(same_collection: Iterable[Stream]) -> int:
    return max((stream.have.next for stream in same_collection), default=0)
