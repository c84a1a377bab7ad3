"""The OpenAPI 3.1 description, made from the table of routes and the models that its rows name."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from datasync.api.access import Access
from datasync.api.problems import CONTENT_TYPE, BodyTooLarge, MediaTypeUnsupported, NotReady, status_of
from datasync.api.routes import Content, Route
from datasync.domain.errors import (
    CertificateForeign,
    CertificateRefused,
    CertificateRevoked,
    CredentialsDiffer,
    DatasyncError,
    Forbidden,
    RequestError,
    Unauthenticated,
)

_SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.OPEN: [],
    Access.WORKER: [{"worker": []}, {"certificate": []}],
    Access.ADMIN: [{"administrator": []}, {"certificate": []}],
    Access.WORKER_OR_ADMIN: [{"worker": []}, {"administrator": []}, {"certificate": []}],
}


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str = ""
    fix: str = ""
    reason: str = ""
    reasons: list[str] = []
    problems: list["PolicyProblem"] = []


class PolicyProblem(BaseModel):
    """One problem of a policy, at its line and column."""

    code: str
    line: int
    column: int
    message: str
    fix: str


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the whole OpenAPI document."""
    schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    hidden = {route.parameters.__name__ for route in routes}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "datasync",
            "version": version("datasync"),
            "description": "Views for workers, and the administration of a node. Errors are problem details.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in schemas.items() if name not in hidden},
            "securitySchemes": {
                "worker": {"type": "http", "scheme": "bearer", "description": "The token of an enrolled worker."},
                "administrator": {"type": "http", "scheme": "bearer", "description": "The administrator's token."},
                "certificate": {"type": "mutualTLS", "description": "The certificate of a worker or administrator."},
            },
        },
    }


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    answers = {r.answer.model for r in routes if r.answer and r.answer.model} | {Problem}
    inputs = {r.body.model for r in routes if r.body and r.body.model} | {r.parameters for r in routes}
    models = [(model, "serialization") for model in answers] + [(model, "validation") for model in inputs]
    ordered = sorted(models, key=lambda pair: pair[0].__name__)
    _, document = models_json_schema(ordered, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return dict(document["$defs"])


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handle.__name__,
        "summary": route.summary,
        "tags": [route.path.split("/")[2] if route.path.startswith("/v1/") else "node"],
        "security": _SECURITY[route.access],
        "parameters": _parameters(route, schemas[route.parameters.__name__]),
        "responses": {str(route.status.value): _success(route)} | _failures(route),
    }
    if route.body:
        operation["requestBody"] = {"required": True, "content": _content(route.body)}
    return operation


def _parameters(route: Route, schema: dict[str, Any]) -> list[dict[str, Any]]:
    in_path = set(re.findall(r"{(\w+)}", route.path))
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in required,
            "description": value.get("description", ""),
            "schema": _parameter_schema(value),
        }
        for name, value in schema.get("properties", {}).items()
    ]


def _parameter_schema(value: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema; one that is optional is left out, never sent as null."""
    schema = {key: part for key, part in value.items() if key not in ("description", "title")}
    if {"type": "null"} in schema.get("anyOf", ()):
        del schema["default"]
        (schema_of_value,) = [part for part in schema.pop("anyOf") if part != {"type": "null"}]
        schema |= schema_of_value
    return schema


def _success(route: Route) -> dict[str, Any]:
    response: dict[str, Any] = {"description": route.status.phrase}
    if route.answer:
        response["content"] = _content(route.answer)
    if route.headers:
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in route.headers.items()
        }
    return response


def _failures(route: Route) -> dict[str, Any]:
    by_status: dict[HTTPStatus, list[str]] = {HTTPStatus.INTERNAL_SERVER_ERROR: ["INTERNAL"]}
    for error in _errors(route):
        by_status.setdefault(status_of(error), []).append(error.code)
    problem = {CONTENT_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {
        str(status.value): {"description": f"{status.phrase}: {', '.join(codes)}", "content": problem}
        for status, codes in sorted(by_status.items())
    }


def _errors(route: Route) -> list[type[DatasyncError]]:
    errors = list(route.errors)
    errors += [CertificateRefused, CertificateRevoked]
    if route.access is not Access.OPEN:
        errors += [Unauthenticated, CredentialsDiffer, Forbidden, CertificateForeign, NotReady]
    if route.parameters.model_fields or route.body:
        errors.append(RequestError)
    if route.body:
        errors += [BodyTooLarge, MediaTypeUnsupported]
    return list(dict.fromkeys(errors))


def _content(content: Content) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{content.model.__name__}"} if content.model else {}
    return {media: {"schema": reference} for media in content.media}
