"""Views over HTTP: a worker's rows as a stream, from a cursor on.

Where a response ends is fixed before its first byte, so the cursor to resume after is a header. The rows are read
chunk by chunk in a thread, each chunk in a read transaction of its own: a slow client holds no snapshot open, a client
that leaves stops the reading, and a withdrawn consent or an erased stream is gone from the next chunk on, as is all
when the client's certificate is revoked. What goes wrong after the first byte, a new policy included, breaks the
connection: no torn answer looks whole.
"""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from sqlalchemy import Connection

from datasync.api import models
from datasync.api.access import proved
from datasync.api.audit import Logged
from datasync.api.negotiation import choose
from datasync.api.routes import Call
from datasync.api.service import Service
from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied, Busy, DatasyncError, Forbidden, NotFound
from datasync.domain.tiers import Place
from datasync.policy.compiled import Policy
from datasync.policy.decide import Worker
from datasync.policy.decide import worker as policy_worker
from datasync.views import client, cursor
from datasync.views.batches import Chunk
from datasync.views.formats import Writer
from datasync.views.logged import Shown
from datasync.views.plan import ViewPlan
from datasync.views.plan import plan as compile_plan
from datasync.views.read import read

logger = logging.getLogger(__name__)

WRITE_S_MAX = 60.0
"""How long a client may take to accept one chunk before it is given up."""

CURSOR_HEADER = "X-Datasync-Cursor"
POLICY_HEADER = "X-Datasync-Policy"
HEADERS = {
    CURSOR_HEADER: "The position up to which this answer reads: pass it as `after` to read on. It equals `after` when "
    "there is nothing new.",
    POLICY_HEADER: "The digest of the policy that decided what is shown.",
}


@dataclass(frozen=True, slots=True)
class _Reading:
    """One view being read: what stays the same from chunk to chunk."""

    service: Service
    plan: ViewPlan
    writer: Writer
    now: Instant
    logged: Logged

    def next(self, tx: Connection, *, after: int, resume: int, until: int) -> tuple[Chunk, bytes]:
        """Return the next chunk and its bytes; runs in a thread."""
        vault = self.service.backend.vault
        chunk = next(read(tx, vault, self.plan, self.now, after=after, resume=resume, until=until))
        return chunk, self.writer.batch(chunk.batch) if chunk.batch.num_rows else b""

    def require_policy(self) -> None:
        """Raise Forbidden when another policy became active: what this one shows may not be shown any more."""
        policy = self.service.backend.policy()
        if policy is None or policy.digest != self.plan.policy.digest:
            raise Forbidden("the policy changed while the view was read; open it again")


async def open_view(call: Call[models.ViewParameters, None]) -> web.StreamResponse:
    """Stream what the caller may read. Raises AccessDenied, Forbidden, NotFound, NotAcceptable and Busy."""
    service, asked = call.service, call.parameters
    call.caller.check_purpose(asked.purpose)
    policy = service.policy()
    reader = reader_here(service, policy, call.caller.worker or "")
    logged = Logged(service.backend, Shown(policy, reader.id, asked.collection, asked.purpose))
    try:
        plan = compile_plan(policy, reader, asked.collection, asked.purpose, operator=operator_of_data(service, reader))
    except AccessDenied as denied:
        await logged.refused(denied)
        raise
    kind = choose(asked.format, call.request.headers.get("Accept", ""))
    if service.open_views.locked():
        raise Busy("as many views are read here as may be at one time; try again")
    async with service.open_views:
        await logged.opened(plan)
        now = service.backend.now()
        until = await service.read(partial(_end, plan=plan, asked=asked, now=now))
        headers = {CURSOR_HEADER: str(until), POLICY_HEADER: policy.digest, "Content-Type": kind.content_type}
        metadata = {client.CURSOR: str(until), client.POLICY: policy.digest}
        reading = _Reading(service, plan, kind.writer(plan.schema.with_metadata(metadata)), now, logged)
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        try:
            await _send_or_tear(reading, call, response, until)
        finally:
            await logged.read(plan)
    return response


def reader_here(service: Service, policy: Policy, name: str) -> Worker:
    """Return the policy's worker. Raises Forbidden when it may not read at this node at all."""
    backend = service.backend
    try:
        reader = policy_worker(policy, name)
    except NotFound as error:
        raise Forbidden(f"the active policy, revision {policy.revision}, names no worker {name}") from error
    if reader.place is not backend.place:
        raise Forbidden(f"worker {name} works in place {reader.place}; {backend.name} is in place {backend.place}")
    return reader


def operator_of_data(service: Service, reader: Worker) -> str | None:
    """Return whose data it is: what edges hold is their operator's, what the cloud holds is nobody's."""
    at_edges = service.backend.place is Place.EDGE and reader.place is Place.EDGE
    return service.backend.operator if at_edges else None


def _end(tx: Connection, plan: ViewPlan, asked: models.ViewParameters, now: Instant) -> int:
    if asked.limit is None:
        return cursor.newest(tx, plan, asked.after)
    return cursor.page_end(tx, plan, now, asked.after, asked.limit)


async def _send_or_tear(
    reading: _Reading, call: Call[models.ViewParameters, None], response: web.StreamResponse, until: int
) -> None:
    """Send the whole view, or break the connection so that the client cannot take the part for the whole."""
    what = f"worker {call.caller.worker}'s view of {reading.plan.collection}"
    try:
        await _send(reading, call, response, until)
    except ConnectionError:
        logger.info("%s was left before its end", what)
    except Exception as error:
        expected = isinstance(error, DatasyncError | TimeoutError)
        logger.warning("%s broke off: %r", what, error, exc_info=not expected)
        if call.request.transport is not None:
            call.request.transport.abort()


async def _send(
    reading: _Reading, call: Call[models.ViewParameters, None], response: web.StreamResponse, until: int
) -> None:
    resume = after = call.parameters.after
    while resume < until:
        reading.require_policy()
        proved(call.request, reading.service)
        chunk, data = await reading.service.read(partial(reading.next, after=after, resume=resume, until=until))
        reading.service.metrics.shown(reading.plan.collection, chunk.batch.num_rows, chunk.withheld)
        await reading.logged.sees(reading.plan, chunk, after, until)
        await _write(response, data)
        reading.logged.shown.rows += chunk.batch.num_rows
        reading.logged.shown.bytes += len(data)
        resume = chunk.cursor
    await _write(response, reading.writer.end())
    await response.write_eof()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    if data:
        async with asyncio.timeout(WRITE_S_MAX):
            await response.write(data)
