"""One message of every kind, by the names of fields: a new kind whose fields are all known here needs nothing more."""

from itertools import product
from typing import Any, get_args

from pydantic import ValidationError

from datasync.domain.ids import node_name, stream_id
from datasync.domain.ranges import RangeSet
from datasync.protocol.messages import AnyMessage, Message
from datasync.protocol.parts import (
    ConsentKey,
    ConsentStatement,
    DerivedStream,
    EraseStatement,
    LogHead,
    SealedSegment,
    StreamNote,
)

KINDS: tuple[type[Message], ...] = get_args(AnyMessage)

WATCH, CBD, DOCKS = node_name("watch-7"), node_name("acme/cbd"), node_name("acme/docks")
KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
STREAM, DIGEST, HEX, STAMP = stream_id(KEY), "d" * 64, "a" * 32, 1_750_000_000_000 << 16
COVERAGE = {STREAM: RangeSet.of([(0, 9), (20, 29)])}

SEALED = SealedSegment(
    stream=STREAM,
    collection="trips",
    tier=1,
    seq_first=0,
    seq_last=9,
    rows=10,
    captured=STAMP,
    time_min_ms=None,
    time_max_ms=5,
    policy_digest=DIGEST,
    meta={"region": "melbourne"},
    hash=DIGEST,
    safe=False,
    key_id=HEX,
    body=b"ciphertext",
)
DERIVED = DerivedStream(
    public_key=KEY,
    collection="trips",
    tier=1,
    stands_for=STREAM,
    purposes=["service.routing"],
    retain_ms=1_000,
    onward=False,
    operator="globex",
    rule="H1",
    revision=1,
)
CONSENT = ConsentStatement(public_key=KEY, purpose="improve.train", given=True, stamp=STAMP, signature=bytes(64))

VALUES: dict[str, tuple[Any, ...]] = {
    "candidates": ([DOCKS],),
    "certificate": (b"certificate",),
    "checkpoints": ([b"checkpoint"],),
    "code": ("NOT_ATTACHED",),
    "complete": (True,),
    "consents": ([CONSENT], [ConsentKey(stream=STREAM, purpose="improve.train", stamp=STAMP)]),
    "derived": ([DERIVED],),
    "detail": ("because",),
    "device": (WATCH,),
    "digest": (DIGEST,),
    "durable": (COVERAGE,),
    "epoch": (3,),
    "full": (True,),
    "handover": (HEX,),
    "has": (COVERAGE,),
    "heads": ([LogHead(log="audit", number=7, hash=DIGEST)],),
    "hot": (False,),
    "incarnation": (0,),
    "load": (0.25,),
    "manifest": (COVERAGE,),
    "missing": ([DOCKS],),
    "mode": ("degraded",),
    "name": (CBD,),
    "nonce": (bytes(16),),
    "of": ("attach",),
    "pending": ([DOCKS],),
    "reason": ("full",),
    "receipts": ([b"receipt"],),
    "revision": (2,),
    "root": (DIGEST,),
    "safe": (COVERAGE,),
    "segments": ([SEALED], [b"segment", b"another"]),
    "session": (b"session keys",),
    "signed": (COVERAGE,),
    "source": (b"schema: datasync.policy/v1",),
    "stamp": (STAMP,),
    "statement": (b"statement",),
    "statements": ([CONSENT], [EraseStatement(public_key=KEY, generation=0, stamp=STAMP, signature=bytes(64))]),
    "streams": ([StreamNote(public_key=KEY, collection="trips", tier=1)], [STREAM]),
    "target": (DOCKS,),
    "token": (b"token",),
}
"""By field, what may be its value: where kinds differ the first that a kind takes."""


def sample(kind: type[Message]) -> Message:
    """Return a message of a kind. Raises KeyError for a field that is not known here."""
    fields = [field for field in kind.model_fields if field != "t"]
    for values in product(*(VALUES[field] for field in fields)):
        try:
            return kind(**dict(zip(fields, values, strict=True)))
        except ValidationError:
            continue
    raise AssertionError(f"{kind.__name__} takes none of the values that are known here")
