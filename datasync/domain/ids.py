"""Names and fingerprints.

A node is named by ``operator/name`` (a device, which belongs to no operator, by its name alone). A stream is
named by the fingerprint of its public key, so that a segment can be checked against its stream by anyone
who holds it, without learning whose stream it is.
"""

import hashlib
import re
from typing import NewType

NodeName = NewType("NodeName", str)
"""``acme/cbd`` for an edge, ``acme/cloud`` for a cloud, ``watch-7`` for a device."""

StreamId = NewType("StreamId", str)
"""32 hexadecimal digits: the first 16 bytes of SHA-256 over the stream's raw Ed25519 public key."""

HandoverId = NewType("HandoverId", str)
"""32 hexadecimal digits, drawn by whoever starts the handover."""

_PART = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HEX = re.compile(r"[0-9a-f]{32}")


def node_name(text: str) -> NodeName:
    """Return ``text`` as a node's name. Raises ValueError unless it is ``name`` or ``operator/name``."""
    parts = text.split("/")
    if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"{text!r} is no name: write lower-case letters, digits, '_' and '-', as in acme/cbd")
    return NodeName(text)


def operator_of(name: NodeName) -> str:
    """Return the operator in a node's name, or the empty string for a device."""
    return name.split("/")[0] if "/" in name else ""


def dotted(name: NodeName) -> str:
    """Return a name as one level of a topic, and as a certificate's common name: ``acme.cbd``."""
    return name.replace("/", ".")


def stream_id(public_key: bytes) -> StreamId:
    """Return the id of the stream that signs with this raw Ed25519 public key (32 bytes)."""
    if len(public_key) != 32:
        raise ValueError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
    return StreamId(hashlib.sha256(public_key).hexdigest()[:32])


def is_hex_id(text: str) -> bool:
    """Whether ``text`` has the form of a stream or handover id."""
    return _HEX.fullmatch(text) is not None
