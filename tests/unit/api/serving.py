"""A node behind the API and a client in front of it: real databases, vault, policy and segments, a real server."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from datasync.api.app import application
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import ErasureForeign, HandoverError, NotFound, SignatureInvalid
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Place, Tier
from datasync.policy.compiled import Policy
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from datasync.protocol import envelope
from datasync.protocol.revocations import read
from datasync.security.identity import Role
from datasync.security.revocation import RevocationList
from datasync.security.trust import Authority, Trust
from datasync.security.vault import Vault
from datasync.store import attachments, consents, policies, workers
from datasync.store.consents import Said
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.policies import StoredPolicy
from datasync.store.workers import WorkerToken
from datasync.sync.capture import Captor

T = TypeVar("T")

NOW = Instant(1_769_900_000_000, 0)
ADMIN = "the administrator's token"

POLICY = """
schema: datasync.policy/v1
id: api
revision: 3
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme, borealis]
purposes: [service.routing, improve.train]
transforms:
  band: {op: bucket, edges: [0, 10, 30], from: edge-private, to: public}
collections:
  trips:
    kind: stream
    subject: user_id
    fields:
      user_id: {type: string, tier: user-private}
      speed:   {type: float32, tier: edge-private, up: {cloud: [band]}}
      mode:    {type: string, tier: public}
  secrets:
    kind: stream
    subject: user_id
    fields:
      user_id: {type: string, tier: user-private}
workers:
  router:   {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [service.routing]}
  stranger: {place: edge, operator: borealis, kind: infer, clearance: edge-private, purposes: [service.routing]}
  trainer:  {place: cloud, operator: acme, kind: train, clearance: public, purposes: [improve.train]}
rules:
  - {id: R1, effect: allow, to: {worker: router}, data: trips, fields: [speed, mode]}
  - {id: R2, effect: allow, to: {worker: stranger}, data: trips, fields: [speed, mode]}
  - {id: R3, effect: allow, to: {worker: trainer}, data: trips, fields: [speed, mode]}
consent:
  basis: {service.routing: contract, improve.train: contract}
"""


class Node:
    """An edge, as the API sees it: what the shell does in a transaction of its loop, this does in one at once."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.name = NodeName("acme/cbd")
        self.place = Place.EDGE
        self.authority = Authority.create("acme", NOW)
        self.trust = Trust([self.authority.certificate])
        self.identity = self.authority.enrol(self.name, Role.EDGE, now=NOW)
        self.lists: Sequence[RevocationList] = ()
        self.operator = "acme"
        self.admin_token_hash = workers.token_hash(ADMIN)
        self.database = Database.open(url or f"sqlite:///{folder / 'node.db'}")
        self.keys = Database.open(f"sqlite:///{folder / 'keys.db'}")
        self.vault = Vault(b"k" * 32, SqlKeyShelf(self.keys), os.urandom)
        self.registry = CollectorRegistry()
        self.not_ready: list[str] = []
        self.at = NOW
        self.wanted: list[tuple[str, str | None, bool]] = []
        self._policy: Policy | None = None
        self._stamp = HybridTime(NOW.wall_ms, 0)

    def close(self) -> None:
        self.database.close()
        self.keys.close()

    def policy(self) -> Policy | None:
        return self._policy

    def now(self) -> Instant:
        return self.at

    def sign(self, context: str, body: bytes) -> bytes:
        return envelope.sign(self.identity, context, body)

    def ready(self) -> list[str]:
        return self.not_ready

    async def write(self, change: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._write, change)

    async def activate_policy(self, source: bytes) -> Policy:
        policy = load(source, after_revision=self._policy.revision if self._policy else None)
        stored = StoredPolicy(
            revision=policy.revision, digest=policy.digest, source=source, bundle=b"", received_ms=self.at.wall_ms
        )

        def activate(tx: Connection) -> None:
            policies.add(tx, stored)
            policies.activate(tx, stored.revision)

        self._write(activate)
        self._policy = policy
        return policy

    async def install_policy(self, bundle: bytes) -> Policy:
        raise SignatureInvalid(f"{len(bundle)} bytes that nobody signed")

    @property
    def certificate_expires_ms(self) -> int:
        return NOW.wall_ms + 86_400_000 * 31

    def revocations(self) -> Sequence[RevocationList]:
        return self.lists

    async def revoke(self, revocations: bytes) -> RevocationList:
        authority, listed = read(revocations, self.trust)
        self.trust.revoke(authority, listed)
        self.lists = self.trust.revocations
        return listed

    async def say_consent(self, purpose: str, given: bool) -> None:
        if self._policy is None or purpose not in self._policy.basis:
            raise NotFound(f"no purpose {purpose}")
        self._stamp = self._stamp.tick(NOW)
        now = Said(given, self._stamp)
        self._write(lambda tx: consents.put_said(tx, consents.said(tx) | {purpose: now}))

    async def erase(self, device: NodeName, collection: str | None, everything: bool) -> Sequence[StreamId]:
        if self.place is not Place.DEVICE:
            raise ErasureForeign(f"{self.name} has no keys of {device}'s streams")
        self.wanted.append((device, collection, everything))
        return [StreamId("a" * 32)]

    async def start_handover(self, device: str, target: str) -> None:
        with self.database.read() as tx:
            attachment = attachments.get(tx, device)
        if attachment is None:
            raise NotFound(f"no device {device} is known here")
        if attachment.edge == target:
            raise HandoverError(f"{device} is at {target} already")

    def capture(self, device: str, rows: list[dict[str, Any]] | pa.Table) -> None:
        """Store rows of trips as one batch."""
        assert self._policy is not None
        self._stamp = self._stamp.tick(NOW)
        batch = to_batch(self._policy.collections["trips"], rows)
        captor = Captor(NodeName(device), self.place, self.vault, _stream_key(device), _pseudonym_key, {})
        with self.database.write() as tx:
            captor.capture(tx, self._policy, "trips", batch, self._stamp, NOW)

    def enrol(self, worker: str, *, expires_ms: int | None = None, purposes: tuple[str, ...] | None = None) -> str:
        """Register a worker and return its token."""
        token = f"token-of-{worker}"
        row = WorkerToken(
            worker_id=worker,
            token_hash=workers.token_hash(token),
            created_ms=NOW.wall_ms,
            expires_ms=expires_ms,
            purposes=purposes,
        )
        self._write(lambda tx: workers.put(tx, row))
        return token

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def _write(self, change: Callable[[Connection], T]) -> T:
        with self.database.write() as tx:
            return change(tx)


def _stream_key(device: str) -> Callable[[str, Tier, int], Ed25519PrivateKey]:
    def key(collection: str, tier: Tier, generation: int) -> Ed25519PrivateKey:
        seed = hashlib.sha256(f"{device}/{collection}/{tier}/{generation}".encode()).digest()
        return Ed25519PrivateKey.from_private_bytes(seed)

    return key


def _pseudonym_key(transform: str, period: int) -> bytes:
    return hashlib.sha256(f"{transform}/{period}".encode()).digest()


class Answer:
    """One whole HTTP answer."""

    def __init__(self, response: ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.content_type
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self) -> tuple[int, str]:
        """The status and code of problem details that keep to RFC 9457."""
        assert self.content_type == "application/problem+json"
        members = self.json
        assert members["status"] == self.status
        assert members["type"] == f"urn:datasync:error:{members['code']}"
        assert members["title"]
        assert members["detail"]
        return self.status, members["code"]


class Server(TestServer):
    """Serves as the node's shell does: a handler goes on when its client leaves."""

    async def _make_runner(self, **_: Any) -> web.AppRunner:
        return web.AppRunner(self.app, access_log=None)


class Api:
    """A server for a node, and a client of it; both live on one event loop that runs while something is asked."""

    def __init__(self, node: Node, runner: asyncio.Runner) -> None:
        self.node = node
        self._runner = runner
        self.client: TestClient[Any, Any] = runner.run(self._start())

    @property
    def url(self) -> str:
        return str(self.client.make_url("")).rstrip("/")

    def ask(self, method: str, path: str, *, token: str | None = ADMIN, **options: Any) -> Answer:
        """Ask one thing and return the whole answer."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        headers |= options.pop("headers", {})

        async def whole() -> Answer:
            async with self.client.request(method, path, headers=headers, **options) as response:
                return Answer(response, await response.read())

        return self._runner.run(whole())

    def get(self, path: str, **options: Any) -> Answer:
        return self.ask("GET", path, **options)

    def post(self, path: str, **options: Any) -> Answer:
        return self.ask("POST", path, **options)

    def run(self, script: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop while the server serves."""
        return self._runner.run(script)

    def close(self) -> None:
        self._runner.run(self.client.close())

    async def _start(self) -> TestClient[Any, Any]:
        client: TestClient[Any, Any] = TestClient(Server(application(self.node)))
        await client.start_server()
        return client
