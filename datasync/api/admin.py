"""The administrator's part: what this node knows, who may read here, which policy is active, what moves where."""

import secrets
from functools import partial
from importlib.metadata import version

from aiohttp import web
from sqlalchemy import Connection

from datasync.api import listing, models
from datasync.api.routes import Call, Parameters
from datasync.api.service import Service
from datasync.domain.errors import Conflict, NotFound, RequestError
from datasync.domain.ids import node_name
from datasync.protocol import bundle
from datasync.security.certificates import expiry_warning
from datasync.store import audit, compaction, erasures, policies, segments, workers
from datasync.store.audit import Event
from datasync.store.workers import WorkerToken

DAY_MS = 86_400_000


async def node_summary(call: Call[Parameters, None]) -> models.NodeSummary:
    """Return what this node is, which policy it follows, and why it did not follow the last that it refused."""
    backend = call.service.backend
    policy = backend.policy()
    refused = await call.service.read(policies.last_refusal)
    awaited = await call.service.read(erasures.awaited)
    compacted = await call.service.read(compaction.states)
    return models.NodeSummary(
        name=backend.name,
        place=backend.place,
        operator=backend.operator,
        version=version("datasync"),
        now_ms=backend.now().wall_ms,
        policy_revision=policy.revision if policy else None,
        policy_digest=policy.digest if policy else None,
        policy_refused=models.PolicyRefused.model_validate(refused) if refused else None,
        revocations={each.operator: each.number for each in backend.revocations()},
        certificate_expires_ms=backend.certificate_expires_ms,
        certificate_warning=expiry_warning(backend.certificate_expires_ms, backend.now()),
        erasure_awaited=sorted(awaited),
        compaction_owed=[what for what, each in compacted.items() if each.owed_ms is not None],
        compacted_ms={what: each.done_ms for what, each in compacted.items() if each.done_ms is not None},
        not_ready=backend.ready(),
    )


async def list_stored(call: Call[Parameters, None]) -> models.StoredAll:
    """Return how much is stored here."""
    counts = await call.service.read(segments.counts)
    stored = [
        models.Stored(collection=c.collection, tier=c.tier.label, segments=c.segments, rows=c.rows, bytes=c.bytes)
        for c in counts
    ]
    return models.StoredAll(stored=stored)


async def list_devices(call: Call[models.Page, None]) -> models.Devices:
    """Return one page of devices."""
    return await call.service.read(partial(listing.devices, page=call.parameters))


async def list_edges(call: Call[models.Page, None]) -> models.Edges:
    """Return one page of edges."""
    return await call.service.read(partial(listing.edges, page=call.parameters))


async def list_workers(call: Call[models.Page, None]) -> models.Workers:
    """Return one page of registered workers."""
    return await call.service.read(partial(listing.workers, page=call.parameters, in_policy=_named(call.service)))


async def register_worker(call: Call[Parameters, models.Registration]) -> models.Registered:
    """Register a worker and return its token. Raises Conflict for one that is registered."""
    token = secrets.token_urlsafe(32)
    now_ms = call.service.backend.now().wall_ms
    row = WorkerToken(
        worker_id=call.body.worker,
        token_hash=workers.token_hash(token),
        created_ms=now_ms,
        expires_ms=now_ms + call.body.expires_days * DAY_MS,
        purposes=None if call.body.purposes is None else tuple(call.body.purposes),
    )

    def change(tx: Connection) -> None:
        if workers.get(tx, row.worker_id) is not None:
            raise Conflict(f"worker {row.worker_id} has a token", fix="revoke it with DELETE, then register again")
        workers.put(tx, row)
        detail = {"expires_ms": row.expires_ms}
        audit.append(tx, Event.WORKER_ENROLLED, audit.ADMINISTRATOR, row.worker_id, detail, now_ms)

    await call.service.backend.write(change)
    return models.Registered(
        worker=row.worker_id,
        token=token,
        expires_ms=row.expires_ms,
        purposes=call.body.purposes,
        in_policy=row.worker_id in _named(call.service),
    )


async def revoke_worker(call: Call[models.WorkerPath, None]) -> web.Response:
    """Revoke a worker's token. Raises NotFound for a worker that has none."""
    worker, now_ms = call.parameters.worker, call.service.backend.now().wall_ms

    def change(tx: Connection) -> None:
        if not workers.delete(tx, worker):
            raise NotFound(f"no worker {worker} is registered here")
        audit.append(tx, Event.WORKER_REVOKED, audit.ADMINISTRATOR, worker, {}, now_ms)

    await call.service.backend.write(change)
    return web.Response(status=204)


async def take_revocations(call: Call[Parameters, bytes]) -> models.Revocations:
    """Take the revocation list in the body and pass it on. Raises MessageError and its kinds; nothing then changes."""
    listed = await call.service.backend.revoke(call.body)
    return models.Revocations(operator=listed.operator, number=listed.number, certificates=len(listed.revoked))


async def list_policies(call: Call[Parameters, None]) -> models.Policies:
    """Return every revision known here."""
    return await call.service.read(listing.policies)


async def activate_policy(call: Call[Parameters, bytes]) -> models.Activated:
    """Activate the policy in the body, its text or a signed bundle. Raises PolicyError; the active one then stays."""
    backend = call.service.backend
    take = backend.install_policy if call.request.content_type == bundle.MEDIA_TYPE else backend.activate_policy
    policy = await take(call.body)
    return models.Activated(id=policy.document.id, revision=policy.revision, digest=policy.digest)


async def list_handovers(call: Call[models.HandoverPage, None]) -> models.Handovers:
    """Return one page of handovers."""
    return await call.service.read(partial(listing.handovers, page=call.parameters))


async def show_log(call: Call[models.LogPage, None]) -> models.Log:
    """Return one page of a log."""
    return await call.service.read(partial(listing.log, page=call.parameters))


async def start_handover(call: Call[Parameters, models.HandoverRequest]) -> models.HandoverStarted:
    """Begin to move a device to another edge."""
    try:
        device, target = node_name(call.body.device), node_name(call.body.target)
    except ValueError as error:
        raise RequestError(str(error)) from error
    await call.service.backend.start_handover(device, target)
    return models.HandoverStarted(device=device, target=target)


def _named(service: Service) -> frozenset[str]:
    policy = service.backend.policy()
    return frozenset(policy.workers) if policy else frozenset()
