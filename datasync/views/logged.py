"""What is written of a view: in the decision log that it was opened or refused, and in the end what was shown.

Of a worker who trains it is also written which streams it is shown, before their first row leaves; of one that another
operator gave also the original, by which it is erased when the terms that name it are forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied
from datasync.domain.ids import StreamId
from datasync.policy.compiled import Policy
from datasync.store import sightings, terms
from datasync.store.decisions import Decision
from datasync.store.sightings import Reading
from datasync.views.batches import Chunk
from datasync.views.plan import ViewPlan

TRAINS = "train"
"""The kind of the workers whose models are registered."""


@dataclass(slots=True)
class Shown:
    """One view's part of the log; ``rows`` and ``bytes`` are added to while it is read."""

    policy: Policy
    worker: str
    collection: str
    purpose: str
    rows: int = 0
    bytes: int = 0
    streams: set[StreamId] = field(default_factory=set)

    def sees(self, plan: ViewPlan, chunk: Chunk, after: int, until: int) -> Callable[[Connection], None] | None:
        """Return what writes down the streams that a reading shows with this chunk first; None without any."""
        new = {stream: tier for stream, tier in chunk.streams.items() if stream not in self.streams}
        if plan.rules.worker.kind != TRAINS or not chunk.batch.num_rows or not new:
            return None
        self.streams |= new.keys()
        reading = Reading(self.worker, self.collection, self.purpose, after, until)

        def note(tx: Connection) -> None:
            stood_for = {original: new[derived] for derived, original in terms.originals(tx, new).items()}
            sightings.add(tx, reading, stood_for | new, plan.policy.digest)

        return note

    def refused(self, denied: AccessDenied, now: Instant) -> Decision:
        """Return the entry that says that the policy denies the view."""
        return self._entry("refused", now, code=denied.reason)

    def opened(self, plan: ViewPlan, now: Instant) -> Decision:
        """Return the entry that says that the view is opened: durable before anything is shown."""
        return self._entry("opened", now, plan)

    def read(self, plan: ViewPlan, now: Instant) -> Decision:
        """Return the entry that says what was shown until the view's end, or until it broke off."""
        return self._entry("read", now, plan)

    def _entry(self, event: str, now: Instant, plan: ViewPlan | None = None, code: str = "ALLOW") -> Decision:
        return Decision(
            at_ms=now.wall_ms,
            event=event,
            worker=self.worker,
            collection=self.collection,
            purpose=self.purpose,
            revision=self.policy.revision,
            digest=self.policy.digest,
            code=code,
            rules=() if plan is None else plan.rules.rules,
            fields=() if plan is None else tuple(plan.schema.names),
            rows=self.rows,
            bytes=self.bytes,
        )
