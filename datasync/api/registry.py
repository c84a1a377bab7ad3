"""The registry of models: a worker who trains registers what it made, and a worker reads what may go to it.

The artefact is taken in parts, each encrypted as it arrives under the model's own key, so that a model in the making
takes the memory of one, and nothing readable of it is ever in a file. The row, the parts and the signed lineage are
written in one transaction of the node, in which it is also decided what the erasures so far make of the model. When
that refuses it, or the upload breaks off, the key is destroyed.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection

from datasync.api import registered
from datasync.api.access import Caller
from datasync.api.model_parameters import ModelPage, ModelPath, ModelRegistration, Models
from datasync.api.routes import Call
from datasync.api.service import Service
from datasync.api.views import operator_of_data, reader_here
from datasync.domain.clock import Instant
from datasync.domain.errors import Busy, Forbidden, ModelErased, ModelGone, ModelsTooMany, NotFound, RequestError
from datasync.domain.limits import MODEL_PART_BYTES, MODELS_PER_WORKER_MAX
from datasync.policy.compiled import Policy, Worker
from datasync.policy.fates import Fate
from datasync.protocol import cbor
from datasync.protocol.parts import LineageView, ModelLineage
from datasync.store import audit, compaction, models
from datasync.store.audit import Event
from datasync.store.models import ModelId, State, StoredModel
from datasync.store.sightings import Reading
from datasync.views import lineage
from datasync.views.lineage import Lineage
from datasync.views.logged import TRAINS

UPLOAD_S_MAX = 300.0
"""How long one artefact may take to arrive."""


@dataclass(slots=True)
class _Artefact:
    """A model's bytes, encrypted, as far as they have arrived."""

    model: ModelId = field(default_factory=lambda: ModelId(secrets.token_hex(16)))
    key_id: str = ""
    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class _Registering:
    """One registration, when its artefact is here: what the node's transaction makes of it, by the policy of then."""

    service: Service
    caller: Caller
    name: str
    parent: str | None
    readings: tuple[Reading, ...]
    artefact: _Artefact
    now: Instant

    def write(self, tx: Connection) -> registered.Model:
        """Keep the model.

        Raises Forbidden, NotFound, ModelGone, AccessDenied, ModelsTooMany, ViewUnread and ModelErased.
        """
        policy, worker = _trainer(self.service, self.caller)
        if models.count(tx, worker.id) >= MODELS_PER_WORKER_MAX:
            raise ModelsTooMany(
                f"{MODELS_PER_WORKER_MAX} models of worker {worker.id} are kept here",
                fix="delete those that nobody needs: DELETE /v1/models/ID",
            )
        origin = lineage.trace(tx, self.readings, self._known_parent(tx, worker))
        model = self._model(origin, policy, worker.id)
        models.add(tx, model, self.artefact.parts, origin.streams)
        match lineage.judge(tx, policy, model):
            case Fate.DELETE:
                raise ModelErased("it was trained on what has been erased", fix="read the views again, and train anew")
            case Fate.RETRAIN:
                models.mark(tx, [model.model], State.RETRAIN, self.now.wall_ms)
            case Fate.REPORT:
                models.mark(tx, [model.model], None, self.now.wall_ms)
            case None:
                pass
        detail = {"name": model.name, "label": model.label.label, "parent": model.parent, "digest": model.digest}
        audit.append(tx, Event.MODEL_REGISTERED, worker.id, model.model, detail, self.now.wall_ms)
        return registered.told(tx, [_get(tx, model.model)])[0]

    def _known_parent(self, tx: Connection, worker: Worker) -> StoredModel | None:
        if self.parent is None:
            return None
        parent = _kept(_get(tx, self.parent))
        lineage.require_reader(worker, parent, operator_of_data(self.service, worker))
        return parent

    def _model(self, origin: Lineage, policy: Policy, worker: str) -> StoredModel:
        record = self._record(origin, policy, worker)
        return StoredModel(
            model=self.artefact.model,
            name=self.name,
            worker=worker,
            label=origin.label,
            purposes=origin.purposes,
            parent=None if origin.parent is None else origin.parent.model,
            views=origin.views,
            policy_digest=policy.digest,
            digest=self.artefact.digest,
            size_bytes=self.artefact.size_bytes,
            key_id=self.artefact.key_id,
            created_ms=self.now.wall_ms,
            lineage=self.service.backend.sign(ModelLineage.CONTEXT, cbor.dumps(record.model_dump())),
        )

    def _record(self, origin: Lineage, policy: Policy, worker: str) -> ModelLineage:
        views = [
            LineageView(
                collection=each.collection,
                purpose=each.purpose,
                after=each.after,
                until=each.until,
                policies=list(each.policies),
            )
            for each in origin.views
        ]
        return ModelLineage(
            model=self.artefact.model,
            name=self.name,
            worker=worker,
            node=self.service.backend.name,
            label=int(origin.label),
            parent=None if origin.parent is None else origin.parent.model,
            parent_digest=None if origin.parent is None else origin.parent.digest,
            views=views,
            streams=len(origin.streams),
            streams_digest=hashlib.sha256("".join(origin.streams).encode()).hexdigest(),
            policy=policy.digest,
            digest=self.artefact.digest,
            size_bytes=self.artefact.size_bytes,
            created_ms=self.now.wall_ms,
        )


async def register_model(call: Call[ModelRegistration, AsyncIterator[bytes]]) -> registered.Model:
    """Register a model that the caller trained here, whose artefact is the body.

    Raises Forbidden and PurposeForbidden, Busy, NotFound, ModelGone, AccessDenied, ModelsTooMany, ViewUnread,
    ModelErased.
    """
    service, asked = call.service, call.parameters
    _, worker = _trainer(service, call.caller)
    readings = asked.readings(worker.id)
    for each in readings:
        call.caller.check_purpose(each.purpose)
    if service.models_arriving.locked():
        raise Busy("another model is being registered; try again")
    async with service.models_arriving:
        artefact = _Artefact()
        try:
            await _take(service, call.body, artefact)
            now = service.backend.now()
            wanted = _Registering(service, call.caller, asked.name, asked.parent, readings, artefact, now)
            return await service.backend.write(wanted.write)
        except Exception:
            await _destroy(service, artefact.model)
            raise


async def show_model(call: Call[ModelPath, None]) -> registered.Model:
    """Return what is known of a model. Raises NotFound and AccessDenied."""
    model = await permitted(call)
    (told,) = await call.service.read(partial(registered.told, found=[model]))
    return told


async def list_models(call: Call[ModelPage, None]) -> Models:
    """Return one page of models, the newest first."""
    page = call.parameters
    return await call.service.read(page.read)


async def delete_model(call: Call[ModelPath, None]) -> registered.Model:
    """Delete a model's artefact and its key. Raises NotFound, and Forbidden for another worker's."""
    service, caller = call.service, call.caller
    actor, now_ms = caller.worker or audit.ADMINISTRATOR, service.backend.now().wall_ms

    def change(tx: Connection) -> ModelId:
        model = _get(tx, call.parameters.id)
        if not caller.is_admin and model.worker != caller.worker:
            raise Forbidden(f"model {model.model} is worker {model.worker}'s")
        if model.state is not State.DELETED:
            models.delete(tx, [model.model])
            audit.append(tx, Event.MODEL_DELETED, actor, model.model, {"digest": model.digest}, now_ms)
        return model.model

    model = await service.backend.write(change)
    await _destroy(service, model)

    def destroyed(tx: Connection) -> registered.Model:
        models.forget_keys(tx, [model])
        compaction.owe(tx, compaction.KEYS, now_ms)
        return registered.told(tx, [_get(tx, model)])[0]

    return await service.backend.write(destroyed)


async def permitted(call: Call[ModelPath, None]) -> StoredModel:
    """Return the model that is asked for, if it may go to who asks. Raises NotFound and AccessDenied."""
    service = call.service
    model = await service.read(partial(_get, name=call.parameters.id))
    if not call.caller.is_admin:
        _, worker = _reader(service, call.caller)
        lineage.require_reader(worker, model, operator_of_data(service, worker))
        for purpose in model.purposes:
            call.caller.check_purpose(purpose)
    return model


def _reader(service: Service, caller: Caller) -> tuple[Policy, Worker]:
    policy = service.policy()
    return policy, reader_here(service, policy, caller.worker or "")


def _trainer(service: Service, caller: Caller) -> tuple[Policy, Worker]:
    policy, worker = _reader(service, caller)
    if worker.kind != TRAINS:
        raise Forbidden(f"worker {worker.id} is there to {worker.kind}, and models are registered by those who train")
    return policy, worker


async def _take(service: Service, arriving: AsyncIterator[bytes], artefact: _Artefact) -> None:
    """Encrypt an artefact as it arrives. Raises RequestError for an empty one, and one that takes too long."""
    whole, waiting = hashlib.sha256(), bytearray()
    try:
        async with asyncio.timeout(UPLOAD_S_MAX):
            async for piece in arriving:
                whole.update(piece)
                waiting += piece
                while len(waiting) >= MODEL_PART_BYTES:
                    await _seal(service, artefact, bytes(waiting[:MODEL_PART_BYTES]))
                    del waiting[:MODEL_PART_BYTES]
    except TimeoutError as error:
        raise RequestError(f"the model did not arrive within {UPLOAD_S_MAX:g} s") from error
    if waiting:
        await _seal(service, artefact, bytes(waiting))
    if not artefact.parts:
        raise RequestError("the body is empty", fix="send the model's bytes")
    artefact.digest = whole.hexdigest()


async def _seal(service: Service, artefact: _Artefact, plain: bytes) -> None:
    backend, owner = service.backend, models.key_owner(artefact.model)
    encrypt = partial(backend.vault.encrypt, owner, len(artefact.parts), plain, backend.now())
    artefact.key_id, sealed = await service.run(encrypt)
    artefact.parts.append(sealed)
    artefact.size_bytes += len(plain)


async def _destroy(service: Service, model: ModelId) -> None:
    await service.run(partial(service.backend.vault.destroy, [models.key_owner(model)]))


def _get(tx: Connection, name: str) -> StoredModel:
    found = models.get(tx, name)
    if found is None:
        raise NotFound(f"no model {name} is registered here")
    return found


def _kept(model: StoredModel) -> StoredModel:
    if model.state is State.DELETED:
        raise ModelGone(f"model {model.model} was deleted")
    return model
