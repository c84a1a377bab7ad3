"""What every caller may ask of a node: is it alive, is it ready, its metrics, its description and its web page."""

import re
from functools import cache
from importlib import resources

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from datasync.api import models
from datasync.api.problems import NotReady
from datasync.api.routes import Call, Parameters

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

OPENAPI = web.AppKey("OPENAPI", dict)
"""The description, made once when the application is."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def healthz(_call: Call[Parameters, None]) -> models.Health:
    """Answer: the process and its event loop are alive."""
    return models.Health()


async def readyz(call: Call[Parameters, None]) -> models.Health:
    """Answer when the node can serve. Raises NotReady with codes and no more: the route is open."""
    reasons = call.service.backend.ready()
    if reasons:
        raise NotReady([reason if _CODE.fullmatch(reason) else "OTHER" for reason in reasons])
    return models.Health(status="ready")


async def metrics(call: Call[Parameters, None]) -> web.Response:
    """Answer with the registry in Prometheus's text format."""
    text = generate_latest(call.service.backend.registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def openapi(call: Call[Parameters, None]) -> web.Response:
    """Answer with the description of this API."""
    return web.json_response(call.request.app[OPENAPI])


async def page(_call: Call[Parameters, None]) -> web.Response:
    """Answer with the web page."""
    return _asset("index.html", "text/html", {"Content-Security-Policy": PAGE_POLICY})


async def page_script(_call: Call[Parameters, None]) -> web.Response:
    """Answer with the web page's script."""
    return _asset("app.js", "text/javascript")


async def page_style(_call: Call[Parameters, None]) -> web.Response:
    """Answer with the web page's style sheet."""
    return _asset("app.css", "text/css")


def _asset(name: str, content_type: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=_text(name), content_type=content_type, charset="utf-8", headers=headers)


@cache
def _text(name: str) -> str:
    return resources.files("datasync.api").joinpath("ui", name).read_text(encoding="utf-8")
