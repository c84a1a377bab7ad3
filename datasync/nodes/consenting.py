"""Consent statements on their way.

Each is signed with its stream's key, so that whoever passes it on need not be believed.
"""

from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from datasync.domain.clock import HybridTime
from datasync.domain.errors import SignatureInvalid
from datasync.domain.ids import StreamId, stream_id
from datasync.domain.tiers import Place
from datasync.protocol import cbor
from datasync.protocol.parts import ConsentKey, ConsentStatement
from datasync.store import consents
from datasync.store.consents import Consent
from datasync.store.segments import State
from datasync.store.streams import Stream
from datasync.sync.receiver import arrival_state


def take_consents(
    tx: Connection, place: Place, statements: Iterable[ConsentStatement], known: Mapping[StreamId, Stream]
) -> list[ConsentKey]:
    """Store the statements of known streams and return which those are; the others are to be sent again.

    Raises SignatureInvalid when one was not signed by its stream; then none was stored.
    """
    ours = [each for each in statements if stream_id(each.public_key) in known]
    for each in ours:
        _verify(each)
    taken = []
    for each in ours:
        stream = known[stream_id(each.public_key)]
        consents.put(tx, as_stored(stream.stream, each, arrival_state(place, stream.tier)))
        taken.append(ConsentKey(stream=stream.stream, purpose=each.purpose, stamp=each.stamp))
    return taken


def as_stored(stream: StreamId, statement: ConsentStatement, state: State) -> Consent:
    """Return a statement as the store keeps it."""
    stamp, signed = HybridTime.unpack(statement.stamp), cbor.dumps(statement.model_dump())
    return Consent(stream, statement.purpose, statement.given, stamp, signed, state)


def _verify(statement: ConsentStatement) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(statement.public_key)
        key.verify(statement.signature, statement.signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise SignatureInvalid(f"the consent for {statement.purpose!r} is not signed by its stream") from error
