"""What is fuzzed: every parser that strangers' bytes reach, each with the only errors that may come out of it.

A target takes any bytes and raises nothing, unless it found a fault. Seeds are made anew for each run.
"""

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import MessageError, PolicyError
from datasync.domain.ids import node_name, stream_id
from datasync.domain.limits import POLICY_BYTES_MAX
from datasync.domain.tiers import Tier
from datasync.policy.loading import load
from datasync.protocol import cbor, checkpoint, cose, envelope, revocations, segment, topics
from datasync.protocol.envelope import Opener, Sealer
from datasync.protocol.messages import decode
from datasync.protocol.parts import AttachToken, SessionKeys, decode_part
from datasync.security import certificates
from datasync.security.identity import Role
from datasync.security.revocation import RevocationList
from datasync.security.trust import Authority, Trust
from tests.unit.protocol.samples import KINDS, sample

NOW = Instant(1_750_000_000_000, 0)
TOPIC = "ds/1/d/watch-7/seg"
POLICIES = Path(__file__).parents[2] / "deploy" / "policies"

_entropy = random.Random(1).randbytes
_authority = Authority.create("acme", NOW, entropy=_entropy)
_edge = _authority.enrol(node_name("acme/cbd"), Role.EDGE, now=NOW, entropy=_entropy)
_watch = _authority.enrol(node_name("watch-7"), Role.DEVICE, now=NOW, entropy=_entropy)
_trust = Trust([_authority.certificate])
_edge_peer, _watch_peer = (_trust.verify(each.certificate, NOW) for each in (_edge, _watch))
_stream_key = _watch.stream_key("trips", Tier.PUBLIC, 0)


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and what to begin with."""

    take: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]


def take_envelope(data: bytes) -> None:
    """Whatever arrives on a topic: nobody can make an envelope that another signed."""
    with suppress(MessageError):
        opened = envelope.verify(data, TOPIC, _trust, NOW, bytes_max=1 << 24)
        assert opened.peer in (_edge_peer, _watch_peer)
    with suppress(MessageError):
        Opener(_edge).open(data, TOPIC, _watch_peer)
    with suppress(MessageError):
        revocations.read(data, _trust)


def envelopes() -> Iterable[bytes]:
    for kind in KINDS:
        yield envelope.sign(_watch, TOPIC, sample(kind).encode())
    yield Sealer(_watch, _entropy).seal(_edge_peer, TOPIC, b"plaintext")
    yield revocations.sign(_authority, RevocationList("acme", 1, 0, ()))


def take_signed(data: bytes) -> None:
    """Whatever headers and payload somebody signs who may."""
    with suppress(MessageError):
        parsed = cose.parse_signed(data, frozenset({cose.HEADER_X5CHAIN}))
        certificate = parsed.headers[cose.HEADER_X5CHAIN]
        if isinstance(certificate, bytes):
            _trust.verify(certificate, NOW)
    with suppress(MessageError):
        cose.parse_sealed(data)


def take_message(data: bytes) -> None:
    """Whatever body somebody signs who may: it is refused, or said again it is the same."""
    with suppress(MessageError):
        assert decode(data).encode() == data
    for part in (AttachToken, SessionKeys):
        with suppress(MessageError):
            assert cbor.dumps(decode_part(part, data).model_dump()) == data


def messages() -> Iterable[bytes]:
    yield from (sample(kind).encode() for kind in KINDS)
    token = AttachToken(
        device=_watch.name, incarnation=0, epoch=1, edge=_edge.name, nonce=bytes(16), previous=[], handover=None
    )
    yield cbor.dumps(token.model_dump())
    yield cbor.dumps(SessionKeys(session=bytes(32), previous={_edge.name: [bytes(32)]}).model_dump())


def take_segment(data: bytes) -> None:
    """Whatever a stream's owner makes a segment, header and columns."""
    with suppress(MessageError):
        segment.rows(segment.parse(data))


def segments() -> Iterable[bytes]:
    public_key = _stream_key.public_key().public_bytes_raw()
    for batch in (
        pa.record_batch({"mode": ["tram"] * 5, "speed": pa.array([1.5] * 5, pa.float32())}),
        pa.record_batch({"at": pa.array([True] * 5), "number": pa.array([1, None, 3, 4, 5])}),
    ):
        header = segment.Header(
            stream=stream_id(public_key),
            public_key=public_key,
            collection="trips",
            tier=Tier.PUBLIC,
            seq_first=0,
            seq_last=4,
            rows=5,
            captured=HybridTime(NOW.wall_ms, 0),
            time_min_ms=None,
            time_max_ms=None,
            policy_digest="d" * 64,
            meta={},
            previous="",
        )
        yield segment.encode(header, batch, None, segment.salt_of(header, _stream_key)).data


def take_checkpoint(data: bytes) -> None:
    """Whatever somebody says that a stream signed."""
    with suppress(MessageError):
        checkpoint.verify(checkpoint.parse(data))


def checkpoints() -> Iterable[bytes]:
    for count in (1, 3):
        entries = [checkpoint.Entry(number, number, f"{number:064x}") for number in range(count)]
        yield checkpoint.sign(entries, _stream_key).data


def take_certificate(data: bytes) -> None:
    with suppress(ValueError):
        certificates.read_node(certificates.parse(data))
    with suppress(ValueError):
        certificates.read_authority(data)


def take_policy(data: bytes) -> None:
    if len(data) <= POLICY_BYTES_MAX:
        with suppress(PolicyError):
            load(data)


def take_topic(data: bytes) -> None:
    with suppress(MessageError):
        topics.parse(data.decode(errors="replace"))


TARGETS = {
    "envelope": Target(take_envelope, envelopes),
    "signed": Target(take_signed, envelopes),
    "message": Target(take_message, messages),
    "segment": Target(take_segment, segments),
    "checkpoint": Target(take_checkpoint, checkpoints),
    "certificate": Target(take_certificate, lambda: [_watch.certificate, _authority.certificate]),
    "policy": Target(take_policy, lambda: [path.read_bytes() for path in sorted(POLICIES.glob("*.yaml"))]),
    "topic": Target(take_topic, lambda: [b"ds/1/policy", TOPIC.encode(), b"ds/1/e/acme.cbd/in/acme.docks"]),
}
