"""A registered model's bytes and its signed lineage, for whom they may go to.

That a model goes to a worker is a release of what it was trained on, so it is in the log before the first byte leaves.
The bytes are read part by part, each in a read transaction of its own: a model that is deleted meanwhile breaks off.
"""

import asyncio
import base64
import logging
from functools import partial

from aiohttp import web
from sqlalchemy import Connection

from datasync.api.model_parameters import ModelPath
from datasync.api.registry import permitted
from datasync.api.routes import Call
from datasync.domain.errors import DatasyncError, ModelGone
from datasync.security.vault import Vault
from datasync.store import audit, models
from datasync.store.audit import Event
from datasync.store.models import State, StoredModel

logger = logging.getLogger(__name__)

BYTES = "application/octet-stream"
LINEAGE = "application/cose"
WRITE_S_MAX = 60.0
"""How long a client may take to accept one part before it is given up."""

STATE_HEADER, DIGEST_HEADER = "X-Datasync-Model-State", "Repr-Digest"
HEADERS = {
    STATE_HEADER: "`retrain` when another model is to take the place of this one.",
    DIGEST_HEADER: "The SHA-256 of the whole, as RFC 9530 writes it.",
}


async def read_model(call: Call[ModelPath, None]) -> web.StreamResponse:
    """Send a model's bytes. Raises NotFound, AccessDenied and ModelGone."""
    service, backend = call.service, call.service.backend
    model = await permitted(call)
    first = await service.read(partial(_part, vault=backend.vault, model=model, number=0))
    detail = {"digest": model.digest, "state": str(model.state)}
    actor, now_ms = call.caller.worker or "", backend.now().wall_ms

    def log(tx: Connection) -> object:
        return audit.append(tx, Event.MODEL_READ, actor, model.model, detail, now_ms)

    await backend.write(log)
    digest = base64.b64encode(bytes.fromhex(model.digest)).decode()
    headers = {"Content-Type": BYTES, STATE_HEADER: str(model.state), DIGEST_HEADER: f"sha-256=:{digest}:"}
    response = web.StreamResponse(headers=headers)
    response.content_length = model.size_bytes
    await response.prepare(call.request)
    try:
        await _send(call, response, model, first)
    except (DatasyncError, TimeoutError) as error:
        logger.warning("model %s broke off: %r", model.model, error)
        if call.request.transport is not None:
            call.request.transport.abort()  # so that the part is not taken for the whole
    return response


async def read_lineage(call: Call[ModelPath, None]) -> web.Response:
    """Return a model's lineage as this node signed it. Raises NotFound and AccessDenied."""
    model = await permitted(call)
    return web.Response(body=model.lineage, content_type=LINEAGE)


async def _send(call: Call[ModelPath, None], response: web.StreamResponse, model: StoredModel, part: bytes) -> None:
    number, sent = 0, 0
    while True:
        async with asyncio.timeout(WRITE_S_MAX):
            await response.write(part)
        number, sent = number + 1, sent + len(part)
        if sent >= model.size_bytes:
            break
        part = await call.service.read(partial(_part, vault=call.service.backend.vault, model=model, number=number))
    await response.write_eof()


def _part(tx: Connection, vault: Vault, model: StoredModel, number: int) -> bytes:
    """Return a part of a model's bytes. Raises ModelGone when they were deleted."""
    sealed = models.part(tx, model.model, number)
    if sealed is None or model.key_id is None or model.state is State.DELETED:
        raise ModelGone(f"model {model.model} was deleted")
    return vault.decrypt(models.key_owner(model.model), model.key_id, number, sealed)
