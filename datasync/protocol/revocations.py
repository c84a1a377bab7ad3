"""A revocation list as it travels: a COSE_Sign1 under the key of the authority whose certificates it revokes.

No node vouches for it, so any node can pass it on and none can make one. It carries its authority's certificate, which
must be one that the reader trusts.
"""

from typing import Annotated

from pydantic import Field

from datasync.domain.errors import MessageError, MessageTooLarge
from datasync.protocol import cbor, cose
from datasync.protocol.parts import Counter, Model, Moment, Name, Node, decode_part
from datasync.security.certificates import AuthorityCertificate
from datasync.security.revocation import REVOKED_MAX, RevocationList, Revoked
from datasync.security.trust import Authority, Trust

MEDIA_TYPE = "application/cose"
LIST_BYTES_MAX = 4 << 20
"""Every certificate that a list may have, with the longest of names."""

_CONTEXT = b"datasync/revoked"
_HEADERS = frozenset({cose.HEADER_X5CHAIN})


class _Entry(Model):
    serial: Annotated[bytes, Field(min_length=1, max_length=20)]
    name: Node
    until_ms: Moment
    revoked_ms: Moment


class _List(Model):
    operator: Name
    number: Counter
    issued_ms: Moment
    revoked: Annotated[list[_Entry], Field(max_length=REVOKED_MAX)]


def sign(authority: Authority, listed: RevocationList) -> bytes:
    """Return a list under its authority's signature."""
    entries = [
        {"serial": _serial(each.serial), "name": each.name, "until_ms": each.until_ms, "revoked_ms": each.revoked_ms}
        for each in listed.revoked
    ]
    said = {
        "operator": listed.operator,
        "number": listed.number,
        "issued_ms": listed.issued_ms,
        "revoked": entries,
    }
    return cose.sign(authority.key, _CONTEXT, cbor.dumps(said), {cose.HEADER_X5CHAIN: authority.certificate})


def read(data: bytes, trust: Trust) -> tuple[AuthorityCertificate, RevocationList]:
    """Return what an authority that is trusted has revoked.

    Raises MessageTooLarge, MessageError (malformed), SignerUntrusted or SignatureInvalid.
    """
    if len(data) > LIST_BYTES_MAX:
        raise MessageTooLarge(f"the list has {len(data)} bytes, more than {LIST_BYTES_MAX}")
    signed = cose.parse_signed(data, _HEADERS)
    certificate = signed.headers[cose.HEADER_X5CHAIN]
    if not isinstance(certificate, bytes):
        raise MessageError("the certificate is no byte string")
    authority = trust.authority(certificate)
    signed.verify(authority.verify_key, _CONTEXT)
    said = decode_part(_List, signed.payload)
    if said.operator != authority.operator:
        raise MessageError(f"the authority of {authority.operator} revokes nothing of {said.operator}")
    entries = (
        Revoked(int.from_bytes(each.serial, "big"), each.name, each.until_ms, each.revoked_ms) for each in said.revoked
    )
    return authority, RevocationList(said.operator, said.number, said.issued_ms, tuple(entries))


def _serial(number: int) -> bytes:
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")
