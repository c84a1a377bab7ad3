"""The parts of capture by themselves, in one process on one core: where a device's time goes."""

import secrets
import tempfile
import time
from collections.abc import Callable

from datasync.demo.recordings import COLLECTION, SUBJECTS_MAX, load
from datasync.demo.run import policy_source
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import node_name
from datasync.domain.tiers import Place
from datasync.nodes.shell import system_clock
from datasync.policy import decide
from datasync.policy.loading import load as load_policy
from datasync.policy.projection import split
from datasync.security.identity import Role
from datasync.security.trust import Authority
from datasync.security.vault import Vault
from datasync.store import registers
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.sync.capture import Captor
from tests.benchmarks.figures import Figure, figure

BATCH = 1_000
ROUNDS = 50


def measure(repetitions: int) -> list[Figure]:
    """Return the rates of split, capture and parsing at 1000-row batches, and of decisions."""
    now = system_clock()
    policy = load_policy(policy_source())
    rows = load(1, SUBJECTS_MAX, start_ms=now.wall_ms).devices[0].rows.slice(0, BATCH)
    identity = Authority.create("acme", now).enrol(node_name("bench"), Role.DEVICE, now=now)
    worker = decide.worker(policy, "edge-trainer")

    def decisions() -> None:
        decide.decide(policy, worker, COLLECTION, "ax", "improve.train")

    def splitting() -> None:
        split(policy, COLLECTION, rows, subject_key=identity.pseudonym_key, now=now)

    with tempfile.TemporaryDirectory() as folder:
        database, keys = (Database.open(f"sqlite:///{folder}/{name}.db") for name in ("data", "keys"))
        vault = Vault(secrets.token_bytes(32), SqlKeyShelf(keys), secrets.token_bytes)
        captor = Captor(
            identity.name, Place.DEVICE, vault, identity.stream_key, identity.pseudonym_key, {"region": "here"}
        )
        clock = _Clock()

        def capturing() -> None:
            with database.write() as tx:
                captor.capture(tx, policy, COLLECTION, rows, clock.next(), now)

        def committing() -> None:
            with database.write() as tx:
                registers.put(tx, "bench", clock.next().pack())

        figures = [
            _figure("split alone, 1000-row batches, one core", splitting, repetitions, BATCH),
            _figure("commit of an empty change, synchronous=FULL (each a row)", committing, repetitions, 1),
            _figure("capture: split, sign, encrypt, store durably; one core", capturing, repetitions, BATCH),
            _figure("policy decisions, one by one (each counted as a row)", decisions, repetitions, 1),
        ]
        database.close()
        keys.close()
    return figures


def _figure(what: str, work: Callable[[], None], repetitions: int, rows: int) -> Figure:
    work()
    rates = []
    for _ in range(max(3, repetitions)):
        began = time.perf_counter()
        for _ in range(ROUNDS):
            work()
        rates.append(ROUNDS * rows / (time.perf_counter() - began))
    return figure(what, rates)


class _Clock:
    def __init__(self) -> None:
        self._last = HybridTime(0, 0)

    def next(self) -> HybridTime:
        self._last = self._last.tick(Instant(0, 0))
        return self._last
