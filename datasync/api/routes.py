"""One table row for each route: it routes, admits, parses, and it describes itself in OpenAPI.

Because the same row does all four, the description cannot drift from what is served. A handler gets a
:class:`Call`, with parameters and body already checked against their models, and returns a model (answered as JSON
with the row's status) or a response that it made itself.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ConfigDict, ValidationError

from datasync.api.access import Access, Caller, admit
from datasync.api.problems import BodyTooLarge, MediaTypeUnsupported
from datasync.api.service import Service
from datasync.domain.errors import DatasyncError, RequestError

P = TypeVar("P", bound="Parameters")
B = TypeVar("B")

JSON = "application/json"
JSON_BODY_BYTES_MAX = 64 << 10


class Parameters(BaseModel):
    """Parameters of a path and its query: closed, so that a misspelt one is an error and not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What is answered as JSON."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Body(BaseModel):
    """What is sent as JSON: strict and closed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[P, B]):
    """One request: who asks, and what for."""

    request: web.Request
    service: Service
    caller: Caller
    parameters: P
    body: B


Handle = Callable[[Call[Any, Any]], Awaitable[web.StreamResponse | Answer]]


@dataclass(frozen=True, slots=True)
class Content:
    """What a body or an answer may be: its media types, and for JSON its model. A streamed body is read as it comes."""

    media: tuple[str, ...] = (JSON,)
    model: type[BaseModel] | None = None
    bytes_max: int = JSON_BODY_BYTES_MAX
    streamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row. ``errors`` are those beyond what admission and parsing can raise; ``answer`` None is an empty one."""

    method: str
    path: str
    summary: str
    handle: Handle
    access: Access
    answer: Content | None
    status: HTTPStatus = HTTPStatus.OK
    parameters: type[Parameters] = Parameters
    body: Content | None = None
    errors: tuple[type[DatasyncError], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def handler(route: Route, service: Service) -> Handler:
    """Return the aiohttp handler of a row."""

    async def serve(request: web.Request) -> web.StreamResponse:
        caller = await admit(request, service, route.access)
        parameters = _parameters(request, route.parameters)
        body = await _body(request, route.body) if route.body else None
        result = await route.handle(Call(request, service, caller, parameters, body))
        if isinstance(result, web.StreamResponse):
            return result
        return web.Response(status=route.status, body=result.model_dump_json().encode(), content_type=JSON)

    return serve


def _parameters(request: web.Request, model: type[P]) -> P:
    values: dict[str, str] = dict(request.match_info)
    for name, value in request.query.items():
        if name in values:
            raise RequestError(f"the parameter {name!r} is given twice")
        values[name] = value
    try:
        return model.model_validate_strings(values)
    except ValidationError as error:
        raise RequestError(_first(error, "parameter"), fix=f"known are {_known(model)}") from error


async def _body(request: web.Request, content: Content) -> Any:
    if request.content_type not in content.media:
        raise MediaTypeUnsupported(f"send {' or '.join(content.media)}, not {request.content_type}")
    arriving = _pieces(request, content.bytes_max)
    if content.streamed:
        return arriving
    data = b"".join([piece async for piece in arriving])
    if content.model is None:
        return data
    try:
        return content.model.model_validate_json(data)
    except ValidationError as error:
        raise RequestError(_first(error, "field"), fix=f"known are {_known(content.model)}") from error


async def _pieces(request: web.Request, bytes_max: int) -> AsyncIterator[bytes]:
    """Give a body as it arrives. Raises BodyTooLarge."""
    received = request.content_length or 0
    if received <= bytes_max:
        received = 0
        async for piece in request.content.iter_any():
            received += len(piece)
            if received > bytes_max:
                break
            yield piece
    if received > bytes_max:
        raise BodyTooLarge(f"at most {bytes_max} bytes are taken here")


def _first(error: ValidationError, kind: str) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    return f"{kind} {name!r}: {first['msg']}" if name else f"the body: {first['msg']}"


def _known(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields) or "none"
