"""What the decision log says of a view: that it was opened or refused, and in the end what was shown.

An entry is part of one of the node's transactions, and a view is not opened before the entry that says so is durable.
"""

from dataclasses import dataclass

from datasync.api.backend import Backend
from datasync.domain.errors import AccessDenied
from datasync.policy.compiled import Policy
from datasync.store import decisions
from datasync.store.decisions import Decision
from datasync.views.plan import ViewPlan


@dataclass(slots=True)
class Logged:
    """One view's entries; ``rows`` and ``bytes`` are added to while it is read."""

    backend: Backend
    policy: Policy
    worker: str
    collection: str
    purpose: str
    rows: int = 0
    bytes: int = 0

    async def refused(self, denied: AccessDenied) -> None:
        """Log that the policy denies the view."""
        await self._append("refused", code=denied.reason)

    async def opened(self, plan: ViewPlan) -> None:
        """Log that the view is opened."""
        await self._append("opened", plan)

    async def read(self, plan: ViewPlan) -> None:
        """Log what was shown until the view's end, or until it broke off."""
        await self._append("read", plan)

    async def _append(self, event: str, plan: ViewPlan | None = None, code: str = "ALLOW") -> None:
        decision = Decision(
            at_ms=self.backend.now().wall_ms,
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
        await self.backend.write(lambda tx: decisions.append(tx, decision))
