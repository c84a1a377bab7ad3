"""What the API logs: views in the decision log, and in the audit log who was refused, or asked, as administrator.

An entry is part of one of the node's transactions, and a view is not opened before the entry that says so is durable.
Changes by administrators are logged where they are made.
"""

from dataclasses import dataclass

from aiohttp import web

from datasync.api.backend import Backend
from datasync.domain.errors import AccessDenied
from datasync.store import audit, decisions
from datasync.store.audit import Event
from datasync.store.decisions import Decision
from datasync.views.batches import Chunk
from datasync.views.logged import Shown
from datasync.views.plan import ViewPlan

INTERVAL_MS = 60_000


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

    async def sees(self, plan: ViewPlan, chunk: Chunk, after: int, until: int) -> None:
        """Write down which streams a worker who trains is about to see."""
        if note := self.shown.sees(plan, chunk, after, until):
            await self.backend.write(note)

    async def read(self, plan: ViewPlan) -> None:
        """Log what was shown until the view's end, or until it broke off."""
        await self._append(self.shown.read(plan, self.backend.now()))

    async def _append(self, decision: Decision) -> None:
        await self.backend.write(lambda tx: decisions.append(tx, decision))


async def log_asked(backend: Backend, request: web.Request, name: str) -> None:
    """Log that the administrator of this name asked for a change, before it is made."""
    subject, now_ms = f"{request.method} {request.path}", backend.now().wall_ms
    await backend.write(lambda tx: audit.append(tx, Event.CHANGE_ASKED, name, subject, {}, now_ms))


class RefusedSignIns:
    """Who was refused as administrator: an entry at most once in ``INTERVAL_MS``, with how many there were since."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._count = 0
        self._due_ms: int | None = None

    async def add(self, request: web.Request, code: str) -> None:
        """Count a request whose token was refused, and log it if none was logged lately."""
        self._count += 1
        now_ms = self._backend.now().wall_ms
        if self._due_ms is None or now_ms >= self._due_ms:
            self._due_ms = now_ms + INTERVAL_MS
            detail, self._count = {"code": code, "refused": self._count}, 0
            actor, resource = request.remote or "unknown", request.match_info.route.resource
            subject = "" if resource is None else resource.canonical
            await self._backend.write(
                lambda tx: audit.append(tx, Event.SIGN_IN_REFUSED, actor, subject, detail, now_ms)
            )
