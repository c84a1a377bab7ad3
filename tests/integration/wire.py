"""What can be done to a deployment over its brokers: listen to all of it, and say anything as anybody."""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import select

from datasync.domain.clock import HybridTime
from datasync.domain.ids import NodeName, stream_id
from datasync.domain.tiers import Tier
from datasync.nodes.shell import system_clock
from datasync.protocol import cbor, checkpoint, cose, envelope, segment, topics
from datasync.protocol.checkpoint import Entry
from datasync.protocol.envelope import Sealer
from datasync.protocol.messages import Attach, Beacon, Message, Upload, decode
from datasync.protocol.parts import AttachToken, SessionKeys, Visit
from datasync.security.identity import Identity
from datasync.security.trust import Peer, Trust
from datasync.store import tables
from tests.integration.deployment import Place, Server
from tests.integration.mosquitto import PATIENCE_S, Mosquitto

DIGEST = "d" * 64


class Packet(NamedTuple):
    topic: str
    payload: bytes
    retained: bool = False


class Tap:
    """A client of a broker that hears everything and can say anything."""

    def __init__(self, broker: Mosquitto) -> None:
        self.heard: list[Packet] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(1_000)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", broker.port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish; return when the broker has it."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(PATIENCE_S)

    def latest(self, topic: str) -> Packet:
        return next(packet for packet in reversed(self.heard) if packet.topic == topic)

    def _hear(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self.heard.append(Packet(message.topic, message.payload, message.retain))


class Mallory:
    """A device that is enrolled and has every key it should have, and may say what no device should."""

    def __init__(self, identity: Identity, trust: Trust, edge: Server, tap: Tap) -> None:
        self.identity = identity
        self.name = identity.name
        self.edge = trust.verify(edge.identity.certificate, system_clock())
        self.sealer = Sealer(identity, os.urandom)
        self.up = topics.device_up(self.name)
        self.seg = topics.device_segments(self.name)
        self._tap = tap

    @property
    def nonce(self) -> bytes:
        """The challenge in the edge's latest beacon."""
        beacon = decode(envelope_body(self._tap.latest(topics.beacon(self.edge.name)).payload))
        assert isinstance(beacon, Beacon)
        return beacon.nonce

    def signed(self, message: Message, topic: str = "") -> bytes:
        return envelope.sign(self.identity, topic or self.up, message.encode())

    def attach(
        self, epoch: int, *, nonce: bytes = b"", edge: NodeName | None = None, previous: Sequence[Visit] = ()
    ) -> bytes:
        """Return an attach to the edge, or to what it says is another edge."""
        token = AttachToken(
            device=self.name,
            incarnation=0,
            epoch=epoch,
            edge=edge or self.edge.name,
            nonce=nonce or self.nonce,
            previous=list(previous),
            handover=None,
        )
        keys = SessionKeys(session=os.urandom(32), previous={})
        context = f"datasync/session/{self.name}/0/{epoch}"
        message = Attach(
            incarnation=0,
            epoch=epoch,
            token=envelope.sign(self.identity, AttachToken.CONTEXT, cbor.dumps(token.model_dump())),
            session=self.sealer.seal(self.edge, context, cbor.dumps(keys.model_dump())),
            streams=[],
            consents=[],
            checkpoints=[],
            revision=None,
        )
        return self.signed(message)

    def upload(
        self, *blobs: bytes, epoch: int = 1, receiver: Peer | None = None, checkpoints: Sequence[bytes] = ()
    ) -> bytes:
        message = Upload(incarnation=0, epoch=epoch, segments=list(blobs), checkpoints=list(checkpoints))
        sealed = self.sealer.seal(receiver or self.edge, self.seg, message.encode())
        return envelope.sign(self.identity, self.seg, sealed)


def made_segment(key: Ed25519PrivateKey, tier: Tier, first: int, count: int, collection: str = "trips") -> bytes:
    """Return a segment of ``count`` rows, well formed, of the stream whose key this is."""
    public_key = key.public_key().public_bytes_raw()
    header = segment.Header(
        stream=stream_id(public_key),
        public_key=public_key,
        collection=collection,
        tier=tier,
        seq_first=first,
        seq_last=first + count - 1,
        rows=count,
        captured=HybridTime(system_clock().wall_ms, 0),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest=DIGEST,
        meta={},
        previous="",
    )
    batch = pa.record_batch({"mode": pa.array(["forged"] * count)})
    return segment.encode(header, batch, None, segment.salt_of(header, key)).data


def signed_as(key: Ed25519PrivateKey, *blobs: bytes) -> bytes:
    """Return a checkpoint of these segments that is signed with ``key``."""
    made = [segment.parse(blob) for blob in blobs]
    return checkpoint.sign([Entry(each.header.seq_first, each.header.seq_last, each.hash) for each in made], key).data


def envelope_body(payload: bytes) -> bytes:
    """Return what an envelope carries, without asking who signed it."""

    return cose.parse_signed(payload, frozenset({cose.HEADER_X5CHAIN})).payload


def held(place: Place) -> Mapping[str, list[Any]]:
    """Return everything that a node keeps, but for its clock, its challenge and when it last saw or touched what."""
    kept = [tables.streams, tables.segments, tables.bodies, tables.attachments, tables.handovers, tables.consents,
            tables.workers, tables.policies]  # fmt: skip
    with place.store() as (database, _), database.read() as tx:
        return {
            table.name: [tuple(row) for row in tx.execute(
                select(*(column for column in table.c if column.name != "updated_ms")).order_by(*table.primary_key)
            )]
            for table in kept
        }  # fmt: skip
