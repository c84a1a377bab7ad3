"""A node of the wire behind the HTTP API: a change is an input of the node, as in its shell."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, operator_of
from datasync.domain.tiers import Place
from datasync.nodes.node import Change
from datasync.policy.compiled import Policy
from datasync.protocol import envelope
from datasync.security.revocation import RevocationList
from datasync.security.trust import Trust
from datasync.security.vault import Vault
from datasync.store import workers
from datasync.store.database import Database
from datasync.store.workers import WorkerToken
from tests.unit.api.serving import ADMIN, Api
from tests.unit.nodes.wire import Wire

T = TypeVar("T")
TICKET = 4_711


class Served:
    """What the API asks of a node, asked of one on the wire; what is not asked here is not there."""

    def __init__(self, net: Wire, name: NodeName) -> None:
        self._net = net
        self.name = name
        self.operator = operator_of(name)
        self.admin_token_hash = workers.token_hash(ADMIN)
        self.registry = CollectorRegistry()
        self.not_ready: list[str] = []

    @property
    def place(self) -> Place:
        return self._net.nodes[self.name].node.place

    @property
    def database(self) -> Database:
        return self._net.nodes[self.name].database

    @property
    def vault(self) -> Vault:
        return self._net.nodes[self.name].kit.vault

    @property
    def trust(self) -> Trust:
        return self._net.nodes[self.name].kit.trust

    def policy(self) -> Policy | None:
        return self._net.nodes[self.name].node.policy

    def now(self) -> Instant:
        return self._net.now

    def ready(self) -> list[str]:
        return self.not_ready

    def revocations(self) -> Sequence[RevocationList]:
        return ()

    def sign(self, context: str, body: bytes) -> bytes:
        return envelope.sign(self._net.identity(self.name), context, body)

    async def write(self, change: Callable[[Connection], T]) -> T:
        def make() -> Any:
            self._net.answers.pop(TICKET, None)
            self._net.give(self.name, Change(TICKET, change))
            return self._net.answers[TICKET]

        answer = await asyncio.to_thread(make)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def enrol(self, worker: str) -> str:
        """Register a worker and return its token."""
        token = f"token-of-{worker}"
        row = WorkerToken(worker_id=worker, token_hash=workers.token_hash(token), created_ms=0)
        self._net.give(self.name, Change(TICKET, lambda tx: workers.put(tx, row)))
        return token


def served(net: Wire, name: NodeName, runner: asyncio.Runner) -> Api:
    """Return the API of a node of the wire."""
    return Api(Served(net, name), runner)  # type: ignore[arg-type]
