"""The aiohttp application of a node's API, put together from the table of routes."""

from collections.abc import Sequence

from aiohttp import web

from datasync.api.backend import Backend
from datasync.api.metrics import count_requests
from datasync.api.node import OPENAPI
from datasync.api.openapi import describe
from datasync.api.problems import answer_errors
from datasync.api.routes import Route, handler
from datasync.api.service import Service
from datasync.api.table import ROUTES

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


PROBES = ("/healthz", "/readyz")
"""What is answered besides where a prober can show no certificate."""

_SERVICE = web.AppKey("SERVICE", Service)


def application(backend: Backend) -> web.Application:
    """Return the application that serves ``backend``; one for each of its metrics registries."""
    service = Service(backend)
    app = web.Application(middlewares=[count_requests(service.metrics), answer_errors])
    app[OPENAPI], app[_SERVICE] = describe(ROUTES), service
    _add(app, ROUTES, service)
    app.on_response_prepare.append(_secure)
    app.on_cleanup.append(service.close)
    return app


def probes(api: web.Application) -> web.Application:
    """Return the application that answers the probes of a node alone, beside the one that serves its whole API."""
    app = web.Application(middlewares=[answer_errors])
    _add(app, [route for route in ROUTES if route.path in PROBES], api[_SERVICE])
    app.on_response_prepare.append(_secure)
    return app


def _add(app: web.Application, routes: Sequence[Route], service: Service) -> None:
    for route in routes:
        app.router.add_route(route.method, route.path, handler(route, service))


async def _secure(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "datasync"  # in place of the exact versions of Python and aiohttp
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
