"""Compacting: when a node lets its files forget what was erased, and destroyed keys first of all.

Keys are compacted at once. Rows are within the time that the policy gives (``erasure.compact``; without it their files
are left alone): soon where there is little to rewrite, otherwise when half of that time is over, so that many erasures
share one rewriting and what fails can be tried again. A node does nothing else meanwhile, so it rests after each for
twenty times as long as that took. What cannot be done stays owed in the database and is tried again, ever less often.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge

from datasync.domain.clock import Instant
from datasync.domain.errors import StoreError
from datasync.policy.compiled import Policy
from datasync.security.vault import Vault
from datasync.store import compaction
from datasync.store.compaction import ERASED, KEYS, ROWS, SESSIONS, State
from datasync.store.database import Database

SMALL_BYTES = 64 << 20
"""What is rewritten in a second or two."""

GATHER_MS = 60_000
"""How long more is waited for where there is little to rewrite; devices' new session keys come in that time."""

RETRY_MS = 10_000
RETRY_MS_MAX = 3_600_000
REST_FACTOR = 20

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    """What is rewritten together; when, in steady time, that may be next, and how long to wait if it fails."""

    what: str
    rewrite: Callable[[], None]
    state: State = field(default_factory=State)
    rest_ms: int = 0
    retry_ms: int = RETRY_MS
    trouble: str = ""


class Compacting:
    """What one node compacts, between its transactions. For one thread."""

    def __init__(
        self, database: Database, vault: Vault, clock: Callable[[], Instant], registry: CollectorRegistry
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._jobs = (_Job(KEYS, self._rewrite_keys), _Job(ROWS, self._rewrite_rows))
        self._policy: Policy | None = None
        self._log_due_ms: int | None = 0
        self._jobs_due_ms: int | None = 0
        self._owed = Gauge(
            "datasync_compaction_owed", "Whether files may hold what was erased", ["what"], registry=registry
        )
        self._done = Counter("datasync_compactions", "Compactions, by outcome", ["what", "outcome"], registry=registry)

    @property
    def due_ms(self) -> int | None:
        """By when (steady time) there is something to do, None for never."""
        return min((due for due in (self._log_due_ms, self._jobs_due_ms) if due is not None), default=None)

    def erased(self) -> None:
        """Look again: something was erased in a transaction that has been committed."""
        self._log_due_ms = self._jobs_due_ms = 0

    def is_due(self, policy: Policy | None) -> bool:
        """Whether there is something to do, under the policy in force now."""
        if policy is not self._policy:
            self._policy, self._jobs_due_ms = policy, 0
        return self._is_over(self.due_ms)

    def work(self) -> None:
        """Do what is due. Whatever fails is due again later."""
        if self._is_over(self._log_due_ms):
            self._empty_log()
        if self._is_over(self._jobs_due_ms):
            self._jobs_due_ms = self._compact()

    def _is_over(self, due_ms: int | None) -> bool:
        return due_ms is not None and self._clock().steady_ms >= due_ms

    def _empty_log(self) -> None:
        """Of SQLite; a reader may prevent it for a while."""
        try:
            self._database.checkpoint()
            self._log_due_ms = None
        except StoreError:
            self._log_due_ms = self._clock().steady_ms + GATHER_MS

    def _compact(self) -> int | None:
        """Do each job that is due; return when the next one is."""
        try:
            for job in self._jobs:
                self._look(job)
                if self._is_over(self._due_of(job)):
                    self._do(job)
            dues = [self._due_of(job) for job in self._jobs]
        except StoreError:
            return self._clock().steady_ms + RETRY_MS  # the database is away
        return min((due for due in dues if due is not None), default=None)

    def _look(self, job: _Job) -> None:
        with self._database.read() as tx:
            job.state = compaction.state(tx, job.what)
        self._owed.labels(job.what).set(job.state.owed_ms is not None)

    def _due_of(self, job: _Job) -> int | None:
        """Return when, in steady time, a job is to be done, None when nothing is owed or nothing limits it."""
        if job.state.owed_ms is None:
            return None
        wait_ms = 0 if job.what == KEYS else self._wait_ms()
        if wait_ms is None:
            return None
        now = self._clock()
        return max(job.rest_ms, now.steady_ms + min(wait_ms, job.state.owed_ms + wait_ms - now.wall_ms))

    def _wait_ms(self) -> int | None:
        erasure = None if self._policy is None else self._policy.document.erasure
        if erasure is None:
            return None
        return min(erasure.compact // 2, GATHER_MS if self._size_bytes() <= SMALL_BYTES else erasure.compact)

    def _size_bytes(self) -> int:
        with self._database.read() as tx:
            return compaction.size_bytes(tx, ERASED)

    def _do(self, job: _Job) -> None:
        began = self._clock()
        try:
            job.rewrite()
            with self._database.write() as tx:
                compaction.done(tx, job.what, self._clock().wall_ms)
        except StoreError as error:
            self._fail(job, error)
        else:
            took_ms = self._clock().steady_ms - began.steady_ms
            job.rest_ms, job.retry_ms, job.trouble = began.steady_ms + took_ms * (1 + REST_FACTOR), RETRY_MS, ""
            self._done.labels(job.what, "done").inc()
            _log.info("compacted %s in %.1f s: no file holds what was erased", job.what, took_ms / 1000)
            self._look(job)

    def _fail(self, job: _Job, error: StoreError) -> None:
        """Try again later; say why, the first time."""
        if str(error) != job.trouble:
            _log.warning("compaction of %s is owed, and is tried again: %s", job.what, error)
        job.trouble = str(error)
        job.rest_ms = self._clock().steady_ms + job.retry_ms
        job.retry_ms = min(2 * job.retry_ms, RETRY_MS_MAX)
        self._done.labels(job.what, "failed").inc()

    def _rewrite_keys(self) -> None:
        """Data keys, and where dead rows stay also the session keys, whose table is small; elsewhere with the rows."""
        self._vault.compact()
        if self._database.rewrites_tables:
            self._database.compact(SESSIONS)

    def _rewrite_rows(self) -> None:
        self._database.compact(ERASED)
