"""A node that captures and shows: real databases, vault, policy and segments, on one temporary folder."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Place, Tier
from datasync.policy.compiled import Policy
from datasync.policy.decide import worker
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from datasync.security.vault import Vault
from datasync.store import consents, policies, segments, streams, tables
from datasync.store.checkpoints import Standing
from datasync.store.consents import Consent
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.policies import StoredPolicy
from datasync.store.segments import NewSegment, State, StoredSegment
from datasync.store.streams import Stream
from datasync.sync.capture import Captor, own_streams
from datasync.sync.signing import sign
from datasync.views.batches import Chunk
from datasync.views.plan import ViewPlan, plan
from datasync.views.read import read

NOW = Instant(1_769_900_000_000, 0)

POLICY = """
schema: datasync.policy/v1
id: views
revision: 1
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme, borealis]
purposes: [service.routing, improve.train, research.stats]
transforms:
  hour: {op: truncate, unit: 1h, from: user-private, to: edge-private}
  day:  {op: truncate, unit: 1d, from: edge-private, to: public}
  band: {op: bucket, edges: [0, 10, 30], from: edge-private, to: public}
collections:
  trips:
    kind: stream
    subject: user_id
    time: started
    meta: {region: public}
    fields:
      user_id: {type: string, tier: user-private}
      started: {type: timestamp, tier: user-private, up: {edge: [hour], cloud: [hour, day]}}
      speed:   {type: float32, tier: edge-private, up: {cloud: [band]}}
      mode:    {type: string, tier: public}
      note:    {type: string}
    raise:
      - {to: edge-private, where: [[mode, eq, school_bus]]}
      - {to: user-private, where: [[mode, eq, private_road]]}
workers:
  coach:   {place: device, kind: infer, clearance: user-private, purposes: [service.routing]}
  router:  {place: edge, operator: acme, kind: infer, clearance: edge-private,
            purposes: [service.routing, improve.train]}
  tourist: {place: edge, operator: acme, kind: infer, clearance: public, purposes: [service.routing]}
  counter: {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [service.routing]}
  trainer: {place: cloud, operator: acme, kind: train, clearance: public, purposes: [improve.train, research.stats]}
rules:
  - {id: R1, effect: allow, to: {worker: coach}, data: trips, fields: '*'}
  - {id: R2, effect: allow, to: {worker: router}, data: trips, fields: [started, speed, mode]}
  - {id: R3, effect: allow, to: {worker: tourist}, data: trips, fields: [started, speed, mode]}
  - {id: R4, effect: allow, to: {worker: counter}, data: trips, fields: [mode]}
  - {id: R5, effect: allow, to: {worker: trainer}, data: trips, fields: [started, speed, mode]}
consent:
  basis: {service.routing: contract, improve.train: opt_in, research.stats: opt_out}
"""


class Site:
    """One node's databases and vault, and the devices whose data gets there."""

    def __init__(self, folder: Path, place: Place, url: str) -> None:
        self.place = place
        self.now = NOW
        self.database = Database.open(url)
        self.keys = Database.open(f"sqlite:///{folder / 'keys.db'}")
        self.vault = Vault(b"k" * 32, SqlKeyShelf(self.keys), _entropy())
        self._stamp = HybridTime(NOW.wall_ms, 0)
        self.policy = self.activate(POLICY)

    def close(self) -> None:
        self.database.close()
        self.keys.close()

    def activate(self, source: str) -> Policy:
        """Load, store and activate a policy."""
        self.policy = load(source.encode())
        stored = StoredPolicy(
            revision=self.policy.revision,
            digest=self.policy.digest,
            source=source.encode(),
            bundle=b"",
            received_ms=NOW.wall_ms,
        )
        with self.database.write() as tx:
            policies.add(tx, stored)
            policies.activate(tx, stored.revision)
        return self.policy

    def captor(self, device: str, **meta: Any) -> Captor:
        return Captor(NodeName(device), self.place, self.vault, _stream_key(device), _pseudonym_key, meta)

    def capture(
        self, device: str, rows: list[dict[str, Any]], *, collection: str = "trips", **meta: Any
    ) -> tuple[int, int]:
        """Capture rows of a collection as one batch, under the active policy."""
        self._stamp = self._stamp.tick(self.now)
        batch = to_batch(self.policy.collections[collection], rows)
        with self.database.write() as tx:
            captor = self.captor(device, **meta)
            numbers = captor.capture(tx, self.policy, collection, batch, self._stamp, self.now)
            sign(
                tx, own_streams(tx, NodeName(device), collection).values(), captor.stream_key, lambda _: Standing.KNOWN
            )
            return numbers

    def plan(self, name: str, purpose: str = "service.routing", collection: str = "trips") -> ViewPlan:
        return plan(self.policy, worker(self.policy, name), collection, purpose)

    def chunks(
        self, name: str, purpose: str = "service.routing", collection: str = "trips", **options: Any
    ) -> list[Chunk]:
        with self.database.read() as tx:
            return list(read(tx, self.vault, self.plan(name, purpose, collection), NOW, **options))

    def rows(self, name: str, purpose: str = "service.routing", **options: Any) -> list[dict[str, Any]]:
        """What the worker sees, as plain rows."""
        return [row for chunk in self.chunks(name, purpose, **options) for row in chunk.batch.to_pylist()]

    def withheld(self, name: str, purpose: str = "service.routing") -> Mapping[str, int]:
        counts: dict[str, int] = {}
        for chunk in self.chunks(name, purpose):
            for reason, number in chunk.withheld.items():
                counts[reason] = counts.get(reason, 0) + number
        return counts

    def stream(self, device: str, tier: Tier) -> StreamId:
        with self.database.read() as tx:
            return next(each.stream for each in streams.of_device(tx, device) if each.tier == tier)

    def consent(self, device: str, tier: Tier, purpose: str, *, given: bool, at: int) -> None:
        self.consent_of(self.stream(device, tier), purpose, given=given, at=at)

    def consent_of(self, stream: StreamId, purpose: str, *, given: bool, at: int) -> None:
        with self.database.write() as tx:
            consents.put(tx, Consent(stream, purpose, given, HybridTime(at, 0), b"", State.LOCAL))

    def forget_policies(self) -> None:
        with self.database.write() as tx:
            tx.execute(delete(tables.policies))

    def stored(self, tier: Tier) -> list[StoredSegment]:
        with self.database.read() as tx:
            return segments.visible(tx, "trips", tier, after=0, limit=10_000)

    def forward_public(self, to: "Site") -> None:
        """Bring the public segments to another site, which does not learn whose they are."""
        stored = self.stored(Tier.PUBLIC)
        with self.database.read() as tx, to.database.write() as there:
            keys = streams.get(tx, {segment.stream for segment in stored})
            for key, stream in keys.items():
                streams.add(there, Stream(key, stream.public_key, None, "trips", Tier.PUBLIC), NOW)
            bodies = segments.bodies(tx, [segment.id for segment in stored])
            segments.append(there, [self._moved(segment, bodies[segment.id], to) for segment in stored])

    def _moved(self, stored: StoredSegment, body: bytes, to: "Site") -> NewSegment:
        data = self.vault.decrypt(stored.stream, stored.key_id, stored.seq_first, body)
        return to.sealed(stored, data)

    def sealed(self, like: StoredSegment, data: bytes, **changes: Any) -> NewSegment:
        """Return a segment to store with ``like``'s metadata and this content."""
        key_id, body = self.vault.encrypt(like.stream, like.seq_first, data, NOW)
        names = [name for name in NewSegment.__dataclass_fields__ if name not in ("key_id", "body", "visible", "bytes")]
        values = {name: getattr(like, name) for name in names}
        return NewSegment(**values | {"key_id": key_id, "body": body, "bytes": len(body), "visible": True} | changes)


def _entropy() -> Callable[[int], bytes]:
    state = [hashlib.sha256(b"views")]

    def draw(count: int) -> bytes:
        state[0].update(b".")
        return hashlib.shake_256(state[0].digest()).digest(count)

    return draw


def _stream_key(device: str) -> Callable[[str, Tier, int], Ed25519PrivateKey]:
    def key(collection: str, tier: Tier, generation: int) -> Ed25519PrivateKey:
        seed = hashlib.sha256(f"{device}/{collection}/{tier}/{generation}".encode()).digest()
        return Ed25519PrivateKey.from_private_bytes(seed)

    return key


def _pseudonym_key(transform: str, period: int) -> bytes:
    return hashlib.sha256(f"{transform}/{period}".encode()).digest()


@pytest.fixture
def database_kind() -> str:
    """Where sites keep their data; modules that ask the database much run on ``postgres`` too."""
    return "sqlite"


@pytest.fixture
def make_url(database_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Give addresses of new databases."""
    if database_kind == "sqlite":
        numbers = itertools.count()
        yield lambda: f"sqlite:///{tmp_path / f'node-{next(numbers)}.db'}"
        return
    cluster = request.getfixturevalue("postgres_cluster")
    template = request.getfixturevalue("migrated_template")
    names: list[str] = []

    def make() -> str:
        names.append(cluster.database(template))
        return str(cluster.url(names[-1]))

    yield make
    for name in names:
        cluster.drop(name)


@pytest.fixture
def make_site(tmp_path: Path, make_url: Callable[[], str]) -> Iterator[Callable[[Place], Site]]:
    """Build sites; they are closed when the test ends."""
    made: list[Site] = []

    def make(place: Place) -> Site:
        folder = tmp_path / f"site-{len(made)}"
        folder.mkdir()
        made.append(Site(folder, place, make_url()))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def edge(make_site: Callable[[Place], Site]) -> Site:
    return make_site(Place.EDGE)


@pytest.fixture
def cloud(make_site: Callable[[Place], Site]) -> Site:
    return make_site(Place.CLOUD)


@pytest.fixture
def trip() -> Callable[..., dict[str, Any]]:
    """Make raw rows of trips."""
    return _trip


def _trip(mode: str = "bike", speed: float | None = 5.0, hour: int = 0, **more: Any) -> dict[str, Any]:
    """One raw row; ``hour`` counts from some midnight, and half an hour is added."""
    started = pa.scalar((hour * 60 + 30) * 60_000_000, pa.timestamp("us", "UTC")).as_py()
    return {"user_id": "u", "started": started, "speed": speed, "mode": mode, "note": "n", **more}
