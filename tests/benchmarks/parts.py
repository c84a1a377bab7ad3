"""The parts of the path by themselves, in this process and on one core, at 1000-row batches of the demo's rows."""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from datasync.demo.recordings import COLLECTION, SUBJECTS_MAX, load
from datasync.demo.run import policy_source
from datasync.domain.clock import HybridTime
from datasync.domain.ids import node_name
from datasync.domain.tiers import Place
from datasync.nodes.shell import system_clock
from datasync.policy import decide
from datasync.policy.compiled import Policy
from datasync.policy.loading import load as load_policy
from datasync.policy.projection import split
from datasync.protocol import segment
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority
from datasync.security.vault import Vault
from datasync.store import checkpoints, registers, segments
from datasync.store.checkpoints import Standing
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.segments import Settled
from datasync.sync.capture import Captor, own_streams
from datasync.sync.receiver import receive
from datasync.sync.signing import sign
from datasync.sync.verifying import verify
from tests.benchmarks.figures import MICROSECONDS, ROWS_PER_S, Figure, figure, seconds_each

BATCH = 1_000
ROUNDS = 30
DECISION_ROUNDS = 2_000


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts are measured with: policy, identity, rows, and a place with a database of its own."""

    policy: Policy
    identity: Identity
    rows: pa.RecordBatch
    database: Database
    vault: Vault


def measure(repetitions: int) -> list[Figure]:
    """Return the figures of all parts."""
    with ExitStack() as stack:
        device, edge = (_bench(stack) for _ in range(2))
        captured = _captured(device, ROUNDS * repetitions + 1)
        works = [
            ("part.split", "split alone: 8 transform steps, 3 layers", BATCH, _splitting(device)),
            ("part.encode", "2 segments made: Arrow, hash", BATCH, _encoding(device)),
            ("part.capture", "capture: split, segments, encrypted, signed, committed", BATCH, _capturing(device)),
            ("part.parse", "2 segments parsed", BATCH, _parsing(captured[0].segments)),
            ("part.receive", "2 segments received: parsed, encrypted, committed", BATCH, _receiving(edge, captured)),
            ("part.verify", "their signatures verified, and they are shown", BATCH, _verifying(edge)),
        ]
        figures = [
            figure(key, what, ROWS_PER_S, [rows / each for each in seconds_each(work, ROUNDS, repetitions)])
            for key, what, rows, work in works
        ]
        committing = seconds_each(_committing(device), ROUNDS, repetitions)
        what = "a commit of one small change, synchronous=FULL"
        figures.append(figure("part.commit", what, MICROSECONDS, [1e6 * each for each in committing]))
        return [*figures, *_decisions(device.policy, repetitions)]


def _bench(stack: ExitStack) -> Bench:
    now = system_clock()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    database, keys = (
        stack.enter_context(closing(Database.open(f"sqlite:///{folder}/{n}.db"))) for n in ("data", "keys")
    )
    return Bench(
        load_policy(policy_source()),
        Authority.create("acme", now).enrol(node_name("bench"), Role.DEVICE, now=now),
        load(1, SUBJECTS_MAX, start_ms=now.wall_ms).devices[0].rows.slice(0, BATCH),
        database,
        Vault(secrets.token_bytes(32), SqlKeyShelf(keys), secrets.token_bytes),
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """What a device would send of one batch."""

    segments: list[bytes]
    checkpoints: list[bytes]


def _captured(bench: Bench, batches: int) -> list[Sent]:
    """Return what a device would send of so many batches."""
    capture = _capturing(bench)
    for _ in range(batches):
        capture()
    with bench.database.read() as tx:
        stored = segments.waiting(tx, limit=2 * batches)
        bodies = segments.bodies(tx, [each.id for each in stored])
        signed = {each.id: each.body for each in checkpoints.get(tx, {each.checkpoint or 0 for each in stored})}
    made = [bench.vault.decrypt(each.stream, each.key_id, each.seq_first, bodies[each.id]) for each in stored]
    by = [signed[each.checkpoint or 0] for each in stored]
    return [Sent(made[first : first + 2], by[first : first + 2]) for first in range(0, len(made), 2)]


def _splitting(bench: Bench) -> Callable[[], object]:
    now, subject_key = system_clock(), bench.identity.pseudonym_key
    return lambda: split(bench.policy, COLLECTION, bench.rows, subject_key=subject_key, now=now)


def _encoding(bench: Bench) -> Callable[[], object]:
    now = system_clock()
    layers = split(bench.policy, COLLECTION, bench.rows, subject_key=bench.identity.pseudonym_key, now=now)
    signed = [segment.parse(blob) for blob in _captured(bench, 1)[0].segments]
    headers = {each.header.tier: each.header for each in signed}
    made = [(headers[layer.tier], layer) for layer in layers if layer.tier in headers]
    keys = {tier: bench.identity.stream_key(COLLECTION, tier, 0) for tier in headers}

    def encode() -> None:
        for header, layer in made:
            segment.encode(header, layer.batch, layer.positions, segment.salt_of(header, keys[header.tier]))

    return encode


def _capturing(bench: Bench) -> Callable[[], object]:
    identity, stamps = bench.identity, _stamps()
    keys = identity.stream_key, identity.pseudonym_key
    captor = Captor(identity.name, Place.DEVICE, bench.vault, *keys, {"region": "here"})

    def capture() -> None:
        with bench.database.write() as tx:
            captor.capture(tx, bench.policy, COLLECTION, bench.rows, next(stamps), system_clock())
            sign(tx, own_streams(tx, identity.name, COLLECTION).values(), keys[0], lambda _: Standing.OWED)

    return capture


def _parsing(blobs: list[bytes]) -> Callable[[], object]:
    return lambda: [segment.parse(blob) for blob in blobs]


def _receiving(bench: Bench, captured: list[Sent]) -> Callable[[], object]:
    arriving, device = iter(captured), bench.identity.name

    def take() -> None:
        sent = next(arriving)
        with bench.database.write() as tx:
            receive(tx, bench.vault, Place.EDGE, device, sent.segments, sent.checkpoints, system_clock())

    return take


def _verifying(bench: Bench) -> Callable[[], object]:
    def work() -> None:
        """Verify the two checkpoints of one batch of those that were received."""
        with bench.database.write() as tx:
            pending = checkpoints.in_standing(tx, Standing.PENDING, limit=2)
            verified = verify(tx, pending)
            settled = [Settled(each.id, number, True, each.state) for each, number in verified.segments]
            segments.settle(tx, settled)

    return work


def _committing(bench: Bench) -> Callable[[], object]:
    stamps = _stamps()

    def commit() -> None:
        with bench.database.write() as tx:
            registers.put(tx, "bench", next(stamps).pack())

    return commit


def _decisions(policy: Policy, repetitions: int) -> list[Figure]:
    """Return the time of one decision, when it is asked for the first time and when it is remembered."""
    asked = [
        (worker, COLLECTION, field, purpose)
        for worker in policy.workers.values()
        for field in policy.collection(COLLECTION).fields
        for purpose in sorted(policy.purposes)
    ]

    def remembered() -> None:
        for question in asked:
            decide.decide(policy, *question)

    def first() -> None:
        policy.memo.clear()
        remembered()

    rounds = DECISION_ROUNDS // len(asked) + 1
    return [
        figure(key, what, MICROSECONDS, [1e6 * each / len(asked) for each in seconds_each(work, rounds, repetitions)])
        for key, what, work in (
            ("decision.first", "a policy decision, asked for the first time", first),
            ("decision.again", "a policy decision, asked again", remembered),
        )
    ]


def _stamps() -> Iterator[HybridTime]:
    stamp = HybridTime(0, 0)
    while True:
        stamp = stamp.tick(system_clock())
        yield stamp
