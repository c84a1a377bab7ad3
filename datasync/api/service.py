"""What the handlers share: the node behind the API, threads that read its database, and limits.

Reading runs in a few threads of its own, each query in a read transaction of its own, so that the event loop never
waits for the disk or for decryption and no transaction outlives one step of a response.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web
from sqlalchemy import Connection

from datasync.api.audit import RefusedSignIns
from datasync.api.backend import Backend
from datasync.api.metrics import Metrics
from datasync.domain.errors import PolicyMissing
from datasync.policy.compiled import Policy

T = TypeVar("T")

READ_THREADS = 4
VIEWS_OPEN_MAX = 32
"""Views streamed at one time: each holds at most one chunk in memory."""

MODELS_ARRIVING_MAX = 1
"""Models taken in at one time: each is in memory, encrypted, until it is whole."""


class Service:
    """One API application's state. All methods are called on the event loop."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.metrics = Metrics(backend.registry)
        self.refused_sign_ins = RefusedSignIns(backend)
        self.open_views = asyncio.Semaphore(VIEWS_OPEN_MAX)
        self.models_arriving = asyncio.Semaphore(MODELS_ARRIVING_MAX)
        self._threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="api-read")

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run ``query`` in a thread, inside one read transaction."""
        return await self.run(lambda: self.read_here(query))

    async def run(self, work: Callable[[], T]) -> T:
        """Run something that reads by itself in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def policy(self) -> Policy:
        """Return the active policy. Raises PolicyMissing when there is none."""
        policy = self.backend.policy()
        if policy is None:
            raise PolicyMissing("no policy is active on this node, so nothing may be read")
        return policy

    async def close(self, _app: web.Application) -> None:
        """Let the threads finish what they are at, when the application ends."""
        self._threads.shutdown()

    def read_here(self, query: Callable[[Connection], T]) -> T:
        """Run ``query`` inside one read transaction, in the thread that calls."""
        with self.backend.database.read() as tx:
            return query(tx)
