"""What one edge gives to another: segments re-sealed under the device's session key, sent within a window.

A source seals every segment with a key derived from the device's session key, in the very form in which a store
keeps segments at rest. A target stores that ciphertext as it comes; when the device attaches and gives the session
key, the target adopts the derived keys and can read all of it at once, however much it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import chain
from types import MappingProxyType

from sqlalchemy import Connection

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import BodyDamaged, KeyUnavailable, SegmentInvalid, StreamForeign
from datasync.domain.ids import NodeName, StreamId, stream_id
from datasync.domain.ranges import RangeSet
from datasync.domain.tiers import Place, Tier
from datasync.domain.window import Window
from datasync.protocol import checkpoint
from datasync.protocol.parts import SealedSegment, SessionKeys, StreamNote
from datasync.protocol.segment import Header
from datasync.security.vault import Vault, key_id, seal_body, state_key
from datasync.store import checkpoints, erasures, segments, streams
from datasync.store.batches import batches, belongs, pack
from datasync.store.claims import claim, is_known
from datasync.store.segments import NewSegment, State, StoredSegment
from datasync.store.streams import Stream

NO_RIVALS: Mapping[StreamId, Set[StreamId]] = MappingProxyType({})


class Transfer:
    """What a source still has to send to one target: the hot set first, whole batches, within a window."""

    def __init__(
        self, target: NodeName, held: Iterable[StoredSegment], is_hot: Callable[[StoredSegment], bool]
    ) -> None:
        """Take all that may move; ``is_hot`` says which of it the target needs before it serves the device."""
        self.target = target
        self.hot_told = False
        """Whether the target was told, since it last asked, that it has the hot set."""
        self._is_hot = is_hot
        self._window = Window()
        self._owed = {each.id: each for each in sorted(held, key=self._rank)}
        self._taken = set(self._owed)
        self._unsent = list(reversed(self._owed.values()))

    def acknowledge(self, has: Mapping[StreamId, RangeSet]) -> None:
        """Strike off what the target says it has."""
        done = [key for key, each in self._owed.items() if _covers(has, each)]
        self._window.drop(done)
        for key in done:
            del self._owed[key]

    def due(self, now: Instant) -> list[list[StoredSegment]]:
        """Return the messages to send now, each a list of whole batches, and count them as in flight."""
        overdue = (self._owed[key] for key in self._window.overdue(now) if key in self._owed)
        whole = list(batches(sorted(overdue, key=self._rank)))
        while self._unsent and self._window.room_bytes > 0:
            if batch := self._next_batch():
                for each in batch:
                    self._window.add(each.id, each.bytes, now)
                whole.append(batch)
        return pack(whole)

    def add(self, held: Iterable[StoredSegment]) -> None:
        """Take what has arrived here since; what was taken already is ignored."""
        late = sorted((each for each in held if each.id not in self._taken), key=self._rank)
        self._owed.update({each.id: each for each in late})
        self._taken.update(each.id for each in late)
        self._unsent[:0] = reversed(late)

    def give_up(self, unreadable: Iterable[StoredSegment]) -> None:
        """Strike off what cannot be read any more, so that it does not hold up the rest."""
        gone = [each.id for each in unreadable]
        self._window.drop(gone)
        for key in gone:
            self._owed.pop(key, None)

    @property
    def hot(self) -> bool:
        """Whether the target has the whole hot set."""
        return not any(self._is_hot(each) for each in self._owed.values())

    @property
    def complete(self) -> bool:
        """Whether the target has everything that was taken."""
        return not self._owed

    @property
    def deadline_ms(self) -> int | None:
        """The steady time at which something is overdue."""
        return self._window.deadline_ms

    def _next_batch(self) -> list[StoredSegment]:
        batch = [self._unsent.pop()]
        while self._unsent and belongs(self._unsent[-1], batch):
            batch.append(self._unsent.pop())
        return [each for each in batch if each.id in self._owed]

    def _rank(self, each: StoredSegment) -> tuple[bool, int, str, int, int]:
        return not self._is_hot(each), each.captured.pack(), each.collection, each.seq_first, int(each.tier)


def coverage(tx: Connection, device: NodeName) -> dict[StreamId, RangeSet]:
    """Return what this node has of each of the device's streams."""
    return {stream.stream: stream.have for stream in streams.of_device(tx, device)}


def reseal(
    tx: Connection, vault: Vault, session_key: bytes, stored: Iterable[StoredSegment], entropy: Callable[[int], bytes]
) -> tuple[list[SealedSegment], list[StoredSegment]]:
    """Return segments as they travel, encrypted under keys that the device's session key gives; and the unreadable.

    Unreadable are those whose body was damaged, erased meanwhile, or came sealed under a key that is not here.
    """
    stored = list(stored)
    bodies = segments.bodies(tx, [each.id for each in stored])
    sealed, unreadable = [], []
    for each in stored:
        try:
            plain = vault.decrypt(each.stream, each.key_id, each.seq_first, bodies.get(each.id, b""))
        except (KeyUnavailable, BodyDamaged):
            unreadable.append(each)
            continue
        key = state_key(session_key, each.stream)
        body = seal_body(key, each.stream, each.seq_first, plain, entropy)
        sealed.append(as_sealed(each, each.hash, key_id(key), body, safe=each.state is State.SAFE))
    return sealed, unreadable


def as_sealed(of: StoredSegment | Header, digest: str, key: str, body: bytes, *, safe: bool) -> SealedSegment:
    """Return a segment as it travels; ``of`` says what it is, ``digest`` is its hash, ``key`` the id of its key."""
    return SealedSegment(
        stream=of.stream,
        collection=of.collection,
        tier=int(of.tier),
        seq_first=of.seq_first,
        seq_last=of.seq_last,
        rows=of.rows,
        captured=of.captured.pack(),
        time_min_ms=of.time_min_ms,
        time_max_ms=of.time_max_ms,
        policy_digest=of.policy_digest,
        meta=dict(of.meta),
        hash=digest,
        safe=safe,
        key_id=key,
        body=body,
    )


def know(tx: Connection, device: NodeName, told: Iterable[StreamNote], now: Instant) -> dict[StreamId, Stream]:
    """Note the device's streams and return all of them, but none that was erased.

    Raises StreamForeign, TierForbidden, SegmentInvalid; then none was noted.
    """
    known = {each.stream: each for each in streams.of_device(tx, device)}
    claimed = [_claimed(each, device) for each in told]
    gone = erasures.among(tx, {each.stream for each in claimed} - known.keys())
    for stream in claim(tx, Place.EDGE, (each for each in claimed if each.stream not in gone), known):
        streams.add(tx, stream, now)
    return known


def arrive(
    tx: Connection,
    known: Mapping[StreamId, Stream],
    sealed: Sequence[SealedSegment],
    signatures: Iterable[bytes],
    *,
    rivals: Mapping[StreamId, Set[StreamId]] = NO_RIVALS,
) -> tuple[int, int]:
    """Store what is new of a handover's segments as they are, still sealed, and their checkpoints, to be verified.

    Returns how many segments and rows.

    ``known`` are the device's streams, ``rivals`` by derived stream those others that have the same rows: what is here
    of a rival is claimed, but not stored; of an erased stream nothing is taken. Raises StreamForeign, SegmentInvalid,
    SegmentConflict; then nothing was stored.
    """
    gone = erasures.among(tx, {each.stream for each in sealed} - known.keys())
    sealed = [each for each in sealed if each.stream not in gone]
    have = {stream: each.have for stream, each in known.items()}
    new, claimed = [], set[StreamId]()
    for each in sealed:
        if each.stream not in known:
            raise StreamForeign(f"stream {each.stream} was not announced for this device")
        _check_against(known[each.stream], each)
        if is_known(have[each.stream], each.seq_first, each.seq_last, each.stream):
            continue
        have[each.stream] = have[each.stream].add(each.seq_first, each.seq_last)
        claimed.add(each.stream)
        same = (have[other] for other in rivals.get(each.stream, ()) if other in have)
        if not any(held.touches(each.seq_first, each.seq_last) for held in same):
            new.append(_stored(each))
    segments.append(tx, new)
    safe = _safe_ranges(known, sealed)
    streams.put_have(tx, {stream: have[stream] for stream in claimed})
    streams.put_safe(tx, safe)
    for stored in new:
        checkpoints.verify_again(tx, known[stored.stream], stored.seq_first, stored.seq_last)
    checkpoints.arrive(tx, map(checkpoint.parse, signatures), known)
    return len(new), sum(each.rows for each in new)


def adopt(vault: Vault, keys: SessionKeys, known: Iterable[StreamId], now: Instant) -> None:
    """Make everything readable that arrived under the previous edges' session keys."""
    for stream in known:
        for session_key in chain.from_iterable(keys.previous.values()):
            vault.adopt(stream, state_key(session_key, stream), now)


def drop_unreadable(tx: Connection, vault: Vault, device: NodeName) -> int:
    """Delete what came in advance from an edge that the device did not leave for here; return how many rows' numbers.

    The device names the edges it comes from and gives their session keys. What another edge had sent ahead stays
    ciphertext for ever, and must not stand in the way of the same rows from where the device really was.
    """
    dropped = 0
    for stream in streams.of_device(tx, device):
        have = stream.have
        for key in segments.key_ids(tx, stream.stream):
            if not vault.has(stream.stream, key):
                have = have - segments.delete_under(tx, stream.stream, key)
        if have != stream.have:
            dropped += len(stream.have) - len(have)
            streams.put_have(tx, {stream.stream: have})
    return dropped


def _claimed(note: StreamNote, device: NodeName) -> Stream:
    return Stream(stream_id(note.public_key), note.public_key, device, note.collection, Tier(note.tier))


def _check_against(stream: Stream, each: SealedSegment) -> None:
    if (stream.collection, int(stream.tier)) != (each.collection, each.tier):
        raise SegmentInvalid(f"stream {each.stream} carries {stream.collection} at {stream.tier.label}")
    if each.seq_last < each.seq_first or each.rows > each.seq_last - each.seq_first + 1:
        raise SegmentInvalid(f"stream {each.stream}: {each.rows} rows cannot be {each.seq_first}..{each.seq_last}")


def _stored(each: SealedSegment) -> NewSegment:
    return NewSegment(
        stream=each.stream,
        collection=each.collection,
        tier=Tier(each.tier),
        seq_first=each.seq_first,
        seq_last=each.seq_last,
        rows=each.rows,
        bytes=len(each.body),
        captured=HybridTime.unpack(each.captured),
        time_min_ms=each.time_min_ms,
        time_max_ms=each.time_max_ms,
        policy_digest=each.policy_digest,
        meta=each.meta,
        hash=each.hash,
        key_id=each.key_id,
        state=State.SAFE if each.safe else State.LOCAL,
        body=each.body,
        visible=False,
    )


def _safe_ranges(known: Mapping[StreamId, Stream], sealed: Iterable[SealedSegment]) -> dict[StreamId, RangeSet]:
    safe: dict[StreamId, RangeSet] = {}
    for each in sealed:
        if each.safe:
            safe[each.stream] = safe.get(each.stream, known[each.stream].safe).add(each.seq_first, each.seq_last)
    return safe


def _covers(has: Mapping[StreamId, RangeSet], each: StoredSegment) -> bool:
    ranges = has.get(each.stream)
    return ranges is not None and ranges.covers(each.seq_first, each.seq_last)
