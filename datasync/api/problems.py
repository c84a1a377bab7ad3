"""Every error as problem details (RFC 9457).

An error's class decides the status and its code the type, so that a client can rely on both; what the server itself
got wrong is logged in full and answered with nothing but its code.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from datasync.domain import errors
from datasync.policy.problems import PolicyInvalid

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"


class BodyTooLarge(errors.RequestError):
    """The request's body is over its size limit."""

    code = "BODY_TOO_LARGE"


class MediaTypeUnsupported(errors.RequestError):
    """The request's body is of another media type than what is served here."""

    code = "MEDIA_TYPE_UNSUPPORTED"


class NotAcceptable(errors.RequestError):
    """The client accepts none of the formats that there are."""

    code = "NOT_ACCEPTABLE"


class NotReady(errors.RequestError):
    """The node cannot serve yet."""

    code = "NOT_READY"

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("the node is not ready; the reasons are given as codes")
        self.reasons = reasons


STATUS: Mapping[type[errors.DatasyncError], HTTPStatus] = {
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.ConsentForeign: HTTPStatus.FORBIDDEN,
    errors.ErasureForeign: HTTPStatus.FORBIDDEN,
    errors.AccessDenied: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.CollectionUnknown: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.ViewUnread: HTTPStatus.CONFLICT,
    errors.ModelErased: HTTPStatus.CONFLICT,
    errors.ModelsTooMany: HTTPStatus.CONFLICT,
    errors.ModelGone: HTTPStatus.GONE,
    errors.Busy: HTTPStatus.SERVICE_UNAVAILABLE,
    NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    MediaTypeUnsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.RequestError: HTTPStatus.BAD_REQUEST,
    errors.PolicyMissing: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PolicyRevisionStale: HTTPStatus.CONFLICT,
    errors.PolicyRevisionConflict: HTTPStatus.CONFLICT,
    errors.PolicyKeyMissing: HTTPStatus.CONFLICT,
    errors.PolicyError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RevocationStale: HTTPStatus.CONFLICT,
    errors.MessageError: HTTPStatus.BAD_REQUEST,
    errors.SegmentInvalid: HTTPStatus.INTERNAL_SERVER_ERROR,  # what is stored here: no request is to blame
    errors.HandoverError: HTTPStatus.CONFLICT,
    errors.LinkError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DatasyncError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""The status of an error is that of the nearest of its classes that is listed."""

_OF_STATUS: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: errors.RequestError.code,
    HTTPStatus.NOT_FOUND: errors.NotFound.code,
    HTTPStatus.METHOD_NOT_ALLOWED: "METHOD_NOT_ALLOWED",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: BodyTooLarge.code,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is answered for one error; ``extra`` are RFC 9457's extension members beside ``code``."""

    status: HTTPStatus
    code: str
    title: str
    detail: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        """Return the HTTP response."""
        members = {
            "type": f"urn:datasync:error:{self.code}",
            "title": self.title,
            "status": int(self.status),
            "detail": self.detail,
            "code": self.code,
            **self.extra,
        }
        body = json.dumps(members, ensure_ascii=False).encode()
        return web.Response(status=self.status, headers=self.headers, body=body, content_type=CONTENT_TYPE)


def status_of(error: type[errors.DatasyncError]) -> HTTPStatus:
    """Return the status that an error of this class is answered with."""
    return next(STATUS[kind] for kind in error.__mro__ if kind in STATUS)


def problem_of(error: errors.DatasyncError) -> Problem:
    """Return the problem for an error of ours; those that are no answer to a request say nothing but their code."""
    status = status_of(type(error))
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem(status, error.code, error.title, "the node could not do this; its log says why")
    return Problem(status, error.code, error.title, error.detail, _extra(error), _headers(error))


def problem_of_http(error: web.HTTPException) -> Problem:
    """Return the problem for an error that aiohttp raised."""
    status = HTTPStatus(error.status)
    allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    code = _OF_STATUS.get(status, f"HTTP_{status.value}")
    return Problem(status, code, status.phrase, _detail(error), headers=allowed)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into problem details."""
    try:
        return await handler(request)
    except errors.DatasyncError as error:
        problem = problem_of(error)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("%s %s: %s", request.method, request.path, error, exc_info=error.__cause__)
        return problem.response()
    except web.HTTPException as error:
        return problem_of_http(error).response()
    except ConnectionError:
        raise  # the client left
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        detail = "the node could not do this; its log says why"
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", "Something went wrong here", detail).response()


def _extra(error: errors.DatasyncError) -> dict[str, Any]:
    extra: dict[str, Any] = {"where": error.where, "fix": error.fix}
    match error:
        case PolicyInvalid():
            extra["problems"] = [asdict(problem) for problem in error.problems]
        case errors.AccessDenied():
            extra["reason"] = error.reason
        case NotReady():
            extra["reasons"] = error.reasons
    return {name: value for name, value in extra.items() if value}


def _headers(error: errors.DatasyncError) -> dict[str, str]:
    match error:
        case errors.Unauthenticated():
            return {"WWW-Authenticate": 'Bearer realm="datasync"'}
        case errors.Busy() | errors.PolicyMissing():
            return {"Retry-After": "1"}
        case _:
            return {}


def _detail(error: web.HTTPException) -> str:
    match error:
        case web.HTTPNotFound():
            return "there is nothing at this path; /openapi.json lists what there is"
        case web.HTTPMethodNotAllowed():
            return f"{error.method} is not possible here; {', '.join(sorted(error.allowed_methods))} is"
        case _:
            return error.text or error.reason
