"""What the decision log says of a view: that it was opened or refused, and in the end what was shown."""

from dataclasses import dataclass

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied
from datasync.policy.compiled import Policy
from datasync.store.decisions import Decision
from datasync.views.plan import ViewPlan


@dataclass(slots=True)
class Shown:
    """One view's part of the log; ``rows`` and ``bytes`` are added to while it is read."""

    policy: Policy
    worker: str
    collection: str
    purpose: str
    rows: int = 0
    bytes: int = 0

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
