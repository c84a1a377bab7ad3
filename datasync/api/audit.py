"""A view over HTTP in the decision log.

An entry is part of one of the node's transactions, and a view is not opened before the entry that says so is durable.
"""

from dataclasses import dataclass

from datasync.api.backend import Backend
from datasync.domain.errors import AccessDenied
from datasync.store import decisions
from datasync.store.decisions import Decision
from datasync.views.logged import Shown
from datasync.views.plan import ViewPlan


@dataclass(frozen=True, slots=True)
class Logged:
    """One view's entries, written as it goes on."""

    backend: Backend
    shown: Shown

    async def refused(self, denied: AccessDenied) -> None:
        """Log that the policy denies the view."""
        await self._append(self.shown.refused(denied, self.backend.now()))

    async def opened(self, plan: ViewPlan) -> None:
        """Log that the view is opened."""
        await self._append(self.shown.opened(plan, self.backend.now()))

    async def read(self, plan: ViewPlan) -> None:
        """Log what was shown until the view's end, or until it broke off."""
        await self._append(self.shown.read(plan, self.backend.now()))

    async def _append(self, decision: Decision) -> None:
        await self.backend.write(lambda tx: decisions.append(tx, decision))
