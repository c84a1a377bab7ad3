"""Passage: what of a device's state goes to an operator's edges, as the policy in force says.

Where a ruling lets everything move on no terms, the original segments go as they are. Where it narrows, a *derived*
stream goes in the place of each original one: the same numbers, the same time of capture, what the verdict leaves of
the rows, signed by this edge under a key that it derives for this stream, operator and verdict, so that a repetition is
the same stream again. The rest stays here and is erased with the account. What itself came here on terms keeps them: it
goes on only if they say so, and on terms that are no wider.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from datasync.domain.errors import (
    BodyDamaged,
    KeyUnavailable,
    MessageError,
    PolicyError,
    PolicyMissing,
    RecordError,
)
from datasync.domain.ids import NodeName, StreamId, operator_of, stream_id
from datasync.domain.limits import CHECKPOINT_SEGMENTS_MAX
from datasync.domain.ranges import RangeSet
from datasync.handover import transfer
from datasync.handover.derivation import Cut, as_segment
from datasync.handover.rulings import DROP, Ruling, rule
from datasync.policy.compiled import Collection, Policy, Verdict
from datasync.policy.loading import load
from datasync.protocol import cbor, checkpoint
from datasync.protocol.checkpoint import Checkpoint, Entry
from datasync.protocol.parts import DerivedStream, SealedSegment, StreamNote
from datasync.protocol.segment import Segment
from datasync.security.identity import Identity
from datasync.security.vault import Vault, key_id, seal_body, state_key
from datasync.store import checkpoints, consents, policies, segments, streams, terms
from datasync.store.opening import open_layer
from datasync.store.segments import StoredSegment
from datasync.store.streams import Stream
from datasync.store.terms import Terms

Batch = tuple[int, str, int]
"""Time of capture, collection and first number: what the layers of one batch share."""


@dataclass(slots=True)
class Tally:
    """How many segments and rows of a collection go, and how many stay."""

    given_segments: int = 0
    given_rows: int = 0
    kept_segments: int = 0
    kept_rows: int = 0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes in one message: segments as they travel, and the checkpoints that sign them."""

    segments: list[SealedSegment]
    checkpoints: list[bytes]


NO_PARCEL = Parcel([], [])


class Passage:
    """What of one device goes to one operator, at one moment.

    ``segments`` are in the streams in which the target will have them: ``originals`` and ``derived``. ``speakers`` are
    the original streams whose consents go along; ``rulings`` and ``tallies`` are by collection.
    """

    def __init__(
        self,
        tx: Connection,
        giver: Identity,
        policy: Policy | None,
        device: NodeName,
        operator: str,
        now_ms: int,
    ) -> None:
        """Take what the device's account has here, to be given by ``giver``."""
        self.policy = policy
        self.segments: list[StoredSegment] = []
        self.originals: list[StreamNote] = []
        self.derived: list[DerivedStream] = []
        self.speakers: list[StreamId] = []
        self.rulings: dict[str, Ruling] = {}
        self.tallies: dict[str, Tally] = {}
        self._giver = giver
        self._operator = operator
        self._now_ms = now_ms
        self._keys: dict[StreamId, Ed25519PrivateKey] = {}
        self._batches: dict[Batch, dict[StreamId, StoredSegment]] = {}
        self._older: dict[str, Policy] = {}
        self._take(tx, device)

    @property
    def ahead(self) -> list[StoredSegment]:
        """What may go before the device does: original segments that are signed."""
        first = {stream_id(note.public_key) for note in self.originals}
        return [each for each in self.segments if each.stream in first and each.checkpoint is not None]

    @property
    def manifest(self) -> dict[StreamId, RangeSet]:
        """The numbers of what may go ahead."""
        found: dict[StreamId, list[tuple[int, int]]] = {stream_id(note.public_key): [] for note in self.originals}
        for each in self.ahead:
            found[each.stream].append((each.seq_first, each.seq_last))
        return {stream: RangeSet.of(numbers) for stream, numbers in found.items()}

    def seal(
        self,
        tx: Connection,
        vault: Vault,
        session_key: bytes,
        message: Iterable[StoredSegment],
        entropy: Callable[[int], bytes],
    ) -> tuple[Parcel, list[StoredSegment]]:
        """Return segments of this passage as they travel, with what signs them, and those that cannot be read."""
        as_they_are: list[StoredSegment] = []
        lots: dict[Batch, list[StoredSegment]] = {}
        for each in message:
            (lots.setdefault(_batch(each), []) if each.stream in self._keys else as_they_are).append(each)
        sealed, unreadable = transfer.reseal(tx, vault, session_key, as_they_are, entropy)
        signatures = [each.body for each in checkpoints.of_segments(tx, [each.id for each in as_they_are])]
        made_of: dict[StreamId, list[Segment]] = {}
        for lot in lots.values():
            made = self._made(tx, vault, lot[0])
            for each in lot:
                if each.stream in made:
                    made_of.setdefault(each.stream, []).append(made[each.stream])
                else:
                    unreadable.append(each)
        for stream, derived in made_of.items():
            sealed += [_sealed(each, session_key, entropy) for each in derived]
            signatures += [each.data for each in _signed(derived, self._keys[stream])]
        return Parcel(sealed, signatures), unreadable

    def _take(self, tx: Connection, device: NodeName) -> None:
        known, held_on = streams.of_device(tx, device), terms.of_device(tx, device)
        said = consents.of_streams(tx, [each.stream for each in known])
        for name in dict.fromkeys(each.collection for each in known):
            mine = {each.stream for each in known if each.collection == name}
            of_mine = [each for each in said if each.stream in mine]
            ruling = rule(self.policy, operator_of(self._giver.name), self._operator, name, of_mine)
            self.rulings[name], self.tallies[name] = ruling, Tally()
            if ruling.action != DROP:
                self.speakers += sorted(mine - held_on.keys())
        for stream in known:
            self._take_stream(stream, held_on.get(stream.stream), segments.of_stream(tx, stream.stream))

    def _take_stream(self, stream: Stream, own: Terms | None, held: Sequence[StoredSegment]) -> None:
        ruling = self.rulings[stream.collection]
        given: list[StoredSegment] = []
        if ruling.action != DROP and (own is None or own.onward):
            if ruling.is_plain and own is None:
                self.originals.append(_note(stream))
                given = list(held)
            elif ruling.is_plain and own is not None:
                self.derived.append(_as_told(stream, own))
                given = self._in_time(held, own.retain_ms)
            else:
                given = self._derived(stream, own, ruling.verdict, held)
        self.segments += given
        _count(self.tallies[stream.collection], held, given)

    def _derived(
        self, stream: Stream, own: Terms | None, verdict: Verdict, held: Sequence[StoredSegment]
    ) -> list[StoredSegment]:
        """Announce the stream that goes in this one's place; return what of it goes."""
        key = self._key(stream, verdict)
        made = stream_id(key.public_key().public_bytes_raw())
        narrowed = self._narrowed(made, stream, own, verdict)
        public_key = key.public_key().public_bytes_raw()
        self.derived.append(_as_told(replace(stream, stream=made, public_key=public_key), narrowed))
        self._keys[made] = key
        signed = [each for each in held if each.checkpoint is not None]  # this edge vouches for what it makes of them
        given = self._in_time(signed, narrowed.retain_ms)
        for each in given:
            self._batches.setdefault(_batch(each), {})[made] = each
        return [replace(each, stream=made) for each in given]

    def _narrowed(self, made: StreamId, stream: Stream, own: Terms | None, verdict: Verdict) -> Terms:
        """Return the terms of what is made of a stream: the verdict's, and those it came on."""
        sides: list[Verdict | Terms] = [verdict] if own is None else [verdict, own]
        limits_ms = [side.retain_ms for side in sides if side.retain_ms is not None]
        purposes = [side.purposes for side in sides if side.purposes is not None]
        return Terms(
            stream=made,
            stands_for=own.stands_for if own else stream.stream,
            purposes=frozenset.intersection(*purposes) if purposes else None,
            retain_ms=min(limits_ms, default=None),
            onward=verdict.onward,
            operator=operator_of(self._giver.name),
            rule=verdict.rule,
            revision=0 if self.policy is None else self.policy.revision,
        )

    def _key(self, stream: Stream, verdict: Verdict) -> Ed25519PrivateKey:
        said = [
            verdict.rule,
            verdict.action,
            int(verdict.max_tier),
            None if verdict.fields is None else sorted(verdict.fields),
            None if verdict.purposes is None else sorted(verdict.purposes),
            verdict.retain_ms,
            verdict.onward,
        ]
        digest = hashlib.sha256(cbor.dumps(said)).hexdigest()
        secret = self._giver.derive(f"derived-stream/{self._operator}/{stream.stream}/{digest}")
        return Ed25519PrivateKey.from_private_bytes(secret)

    def _in_time(self, held: Sequence[StoredSegment], retain_ms: int | None) -> list[StoredSegment]:
        return [each for each in held if retain_ms is None or each.captured.wall_ms + retain_ms >= self._now_ms]

    def _made(self, tx: Connection, vault: Vault, one: StoredSegment) -> dict[StreamId, Segment]:
        """Return what is made of the batch of one segment, by derived stream; nothing of what cannot be read."""
        held = self._batches[_batch(one)]
        bodies = segments.bodies(tx, [each.id for each in held.values()])
        try:
            layers = [open_layer(vault, each, bodies.get(each.id, b"")) for each in held.values()]
            made = self._cut(one.collection).layers(layers, self._collection(tx, one))
            return {stream: as_segment(layer, self._keys[stream]) for stream, layer in zip(held, made, strict=False)}
        except (KeyUnavailable, BodyDamaged, MessageError, PolicyError, RecordError):
            return {}

    def _cut(self, name: str) -> Cut:
        assert self.policy is not None, name
        operator = self._operator
        return Cut(
            self.rulings[name].verdict,
            self.policy.collection(name),
            lambda transform: self._giver.derive(f"pseudonyms/{operator}/{transform}"),
        )

    def _collection(self, tx: Connection, each: StoredSegment) -> Collection:
        """Return the collection as the policy had it that split a segment. Raises PolicyMissing, CollectionUnknown."""
        assert self.policy is not None, each.collection
        digest = each.policy_digest
        if digest != self.policy.digest and digest not in self._older:
            source = next((stored.source for stored in policies.all(tx) if stored.digest == digest), None)
            if source is None:
                raise PolicyMissing(f"the policy {digest[:16]} that split the batch is not known here")
            self._older[digest] = load(source)
        return self._older.get(digest, self.policy).collection(each.collection)


def _note(stream: Stream) -> StreamNote:
    return StreamNote(public_key=stream.public_key, collection=stream.collection, tier=int(stream.tier))


def _as_told(stream: Stream, on: Terms) -> DerivedStream:
    return DerivedStream(
        public_key=stream.public_key,
        collection=stream.collection,
        tier=int(stream.tier),
        stands_for=on.stands_for,
        purposes=None if on.purposes is None else sorted(on.purposes),
        retain_ms=on.retain_ms,
        onward=on.onward,
        operator=on.operator,
        rule=on.rule,
        revision=on.revision,
    )


def _count(tally: Tally, held: Sequence[StoredSegment], given: Sequence[StoredSegment]) -> None:
    rows = sum(each.rows for each in given)
    tally.given_segments += len(given)
    tally.given_rows += rows
    tally.kept_segments += len(held) - len(given)
    tally.kept_rows += sum(each.rows for each in held) - rows


def _batch(each: StoredSegment) -> Batch:
    return each.captured.pack(), each.collection, each.seq_first


def _signed(made: list[Segment], key: Ed25519PrivateKey) -> Iterator[Checkpoint]:
    """Sign derived segments: their giver vouches for them, as their streams' keys are its own."""
    entries = sorted((Entry(each.header.seq_first, each.header.seq_last, each.hash) for each in made), key=_first)
    for start in range(0, len(entries), CHECKPOINT_SEGMENTS_MAX):
        yield checkpoint.sign(entries[start : start + CHECKPOINT_SEGMENTS_MAX], key)


def _first(entry: Entry) -> int:
    return entry.seq_first


def _sealed(made: Segment, session_key: bytes, entropy: Callable[[int], bytes]) -> SealedSegment:
    """Return a derived segment as it travels. It counts as safe: its giver sends the originals to the cloud."""
    header = made.header
    key = state_key(session_key, header.stream)
    body = seal_body(key, header.stream, header.seq_first, made.data, entropy)
    return transfer.as_sealed(header, made.hash, key_id(key), body, safe=True)
