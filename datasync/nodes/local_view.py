"""A view that a program on the device reads in its own process, by the rules of every other view.

It is in the decision log before its first row is given, and so is which streams a worker who trains is shown. Each
chunk is read in a transaction of its own, and a policy that changes meanwhile ends it: what the older one showed may
not be shown any more.
"""

from collections.abc import Callable, Iterator

import pyarrow as pa
from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied, Forbidden
from datasync.domain.tiers import Place
from datasync.policy import decide
from datasync.policy.compiled import Policy
from datasync.security.vault import Vault
from datasync.store import decisions
from datasync.store.database import Database
from datasync.store.decisions import Decision
from datasync.views.cursor import newest
from datasync.views.logged import Shown
from datasync.views.plan import ViewPlan
from datasync.views.plan import plan as compile_plan
from datasync.views.read import read

Write = Callable[[Callable[[Connection], object]], object]
"""Makes a change in the node's next transaction; returns when it is durable."""


class LocalView:
    """One worker's reading of one collection for one purpose."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        policy: Callable[[], Policy | None],
        write: Write,
        clock: Callable[[], Instant],
    ) -> None:
        self._database = database
        self._vault = vault
        self._policy = policy
        self._write = write
        self._clock = clock

    def open(self, policy: Policy, worker: str, collection: str, purpose: str, after: int) -> pa.RecordBatchReader:
        """Return a reader of what the worker may see. Raises NotFound, Forbidden, AccessDenied."""
        reader = decide.worker(policy, worker)
        if reader.place is not Place.DEVICE:
            raise Forbidden(f"worker {worker} works in place {reader.place}, and this is a device")
        shown = Shown(policy, worker, collection, purpose)
        try:
            plan = compile_plan(policy, reader, collection, purpose)
        except AccessDenied as denied:
            self._log(shown.refused(denied, self._clock()))
            raise
        self._log(shown.opened(plan, self._clock()))
        return pa.RecordBatchReader.from_batches(plan.schema, self._batches(plan, shown, after))

    def _batches(self, plan: ViewPlan, shown: Shown, after: int) -> Iterator[pa.RecordBatch]:
        now, resume = self._clock(), after
        with self._database.read() as tx:
            until = newest(tx, plan, after)
        try:
            while resume < until:
                self._require(plan)
                with self._database.read() as tx:
                    chunk = next(read(tx, self._vault, plan, now, after=after, resume=resume, until=until))
                if note := shown.sees(plan, chunk, after, until):
                    self._write(note)
                shown.rows += chunk.batch.num_rows
                shown.bytes += chunk.batch.nbytes
                resume = chunk.cursor
                yield chunk.batch
        finally:
            self._log(shown.read(plan, self._clock()))

    def _require(self, plan: ViewPlan) -> None:
        policy = self._policy()
        if policy is None or policy.digest != plan.policy.digest:
            raise Forbidden("the policy changed while the view was read; open it again")

    def _log(self, decision: Decision) -> None:
        self._write(lambda tx: decisions.append(tx, decision))
