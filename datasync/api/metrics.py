"""The API's own metrics, in the registry that the node's other metrics are in.

Labels are bounded whatever clients send: a route is named by its template and a method is one of HTTP's own.
"""

import time
from collections.abc import Mapping

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Histogram

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """Counters and histograms of requests and of what views show."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("route", "method")
        self._requests = Counter("datasync_http_requests", "Requests answered.", (*labels, "status"), registry=registry)
        self._seconds = Histogram(
            "datasync_http_request_seconds",
            "Time to the end of the answer.",
            labels,
            buckets=LATENCY_S,
            registry=registry,
        )
        self._rows = Counter("datasync_view_rows", "Rows that views showed.", ("collection",), registry=registry)
        self._withheld = Counter(
            "datasync_view_segments_withheld",
            "Segments that views could not show, by reason.",
            ("reason",),
            registry=registry,
        )

    def request(self, request: web.Request, status: int, seconds: float) -> None:
        """Count one request."""
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        method = request.method if request.method in hdrs.METH_ALL else "OTHER"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def shown(self, collection: str, rows: int, withheld: Mapping[str, int]) -> None:
        """Count the rows of one chunk of a view, and the segments that it had to leave out."""
        self._rows.labels(collection).inc(rows)
        for reason, segments in withheld.items():
            self._withheld.labels(reason).inc(segments)


def count_requests(metrics: Metrics) -> Middleware:
    """Return the middleware that counts every request, also those that find no handler."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        status = 499  # nginx's word for a client that left before the answer's end
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            metrics.request(request, status, time.perf_counter() - started)

    return count
