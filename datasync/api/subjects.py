"""A subject's rights: where its data is, a copy of it, what it allows, and that it be erased.

A subject is named by its device, or, where it is not known whose streams are, by the id of a stream. What a node says
is what it holds itself; only the subject's own device has the rows of all tiers, and the keys to say that they go. Of
plain devices, which have no keys, their edge erases.
"""

import asyncio
import re
from functools import partial
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field
from sqlalchemy import Connection

from datasync.api import consent, held, models
from datasync.api.routes import Answer, Body, Call, Parameters
from datasync.domain.errors import ErasureForeign, RequestError
from datasync.domain.ids import NodeName, is_hex_id, node_name
from datasync.domain.tiers import Place
from datasync.store import audit
from datasync.store.audit import Event

WRITE_S_MAX = 60.0
"""How long a client may take to accept one piece of an export before it is given up."""

SubjectId = Annotated[str, Field(max_length=64, description="The device's name, or the id of one of its streams.")]


class SubjectPath(Parameters):
    """Whose data."""

    id: SubjectId


class ExportParameters(SubjectPath):
    """Whose data, and as which kind of files."""

    format: Annotated[Literal["parquet", "arrow"], Field(description="The files in the archive.")] = "parquet"


class EraseRequest(Body):
    """What to erase."""

    collection: models.Word | None = None
    everything: Annotated[bool, Field(description="Also what is private to the user, on the device.")] = False


class ConsentSaid(Body):
    """What the subject allows, or no longer does."""

    purpose: models.Word
    given: bool


class Erasing(Answer):
    """The streams that are erased here; `where` says which places have confirmed it."""

    id: str
    streams: list[str]


async def subject_where(call: Call[SubjectPath, None]) -> held.Where:
    """Return what is held here of a subject. Raises NotFound."""
    backend = call.service.backend
    subject = call.parameters.id
    return await call.service.read(partial(held.where, name=backend.name, place=backend.place, subject=subject))


async def subject_consents(call: Call[SubjectPath, None]) -> consent.Consents:
    """Return what a subject's streams said, as far as it is known here."""
    subject = call.parameters.id
    named = ("stream", "device")[not is_hex_id(subject)]
    page = consent.ConsentPage.model_validate({"limit": models.PAGE_MAX, named: subject})
    return await consent.list_consents(Call(call.request, call.service, call.caller, page, None))


async def subject_consent(call: Call[SubjectPath, ConsentSaid]) -> consent.SaidConsent:
    """Say what this device's subject allows. Raises ErasureForeign elsewhere, NotFound, Conflict, PolicyMissing."""
    _require_own(call)
    path, choice = consent.ConsentPath(purpose=call.body.purpose), consent.Choice(given=call.body.given)
    return await consent.state_consent(Call(call.request, call.service, call.caller, path, choice))


async def subject_erase(call: Call[SubjectPath, EraseRequest]) -> Erasing:
    """Erase a subject's streams here and everywhere. Raises ErasureForeign where their keys are not, NotFound."""
    subject, wanted = call.parameters.id, call.body
    erased = await call.service.backend.erase(_device(subject), wanted.collection, wanted.everything)
    return Erasing(id=subject, streams=list(erased))


async def subject_export(call: Call[ExportParameters, None]) -> web.StreamResponse:
    """Send what a device holds of its subject as a ZIP archive. Raises ErasureForeign elsewhere, NotFound."""
    _require_own(call)
    service, backend, subject = call.service, call.service.backend, call.parameters.id
    kind, now = call.parameters.format, backend.now()
    export = await service.read(lambda tx: held.export(tx, backend.vault, backend.name, subject, kind, now))

    def log(tx: Connection) -> object:
        return audit.append(tx, Event.EXPORT, audit.ADMINISTRATOR, subject, {"format": kind}, now.wall_ms)

    await backend.write(log)
    name = re.sub("[^a-z0-9_-]", "-", subject)
    headers = {"Content-Type": "application/zip", "Content-Disposition": f'attachment; filename="{name}.zip"'}
    response = web.StreamResponse(headers=headers)
    await response.prepare(call.request)
    pieces = export.pieces(service.read_here)
    try:
        while (piece := await service.run(lambda: next(pieces, None))) is not None:
            async with asyncio.timeout(WRITE_S_MAX):
                await response.write(piece)
    except BaseException:
        if call.request.transport is not None:
            call.request.transport.abort()  # a torn archive must not look whole
        raise
    await response.write_eof()
    return response


def _require_own(call: Call[SubjectPath, ConsentSaid] | Call[ExportParameters, None]) -> None:
    """Raise ErasureForeign but at the subject's own device."""
    backend, subject = call.service.backend, call.parameters.id
    if backend.place is not Place.DEVICE or not (subject == backend.name or is_hex_id(subject)):
        raise ErasureForeign(f"{backend.name} is not the device of {subject}", fix="ask the subject's own device")


def _device(subject: str) -> NodeName:
    try:
        return node_name(subject)
    except ValueError as error:
        raise RequestError(f"{subject!r} is no device", fix="name the device; its streams go by collection") from error
