"""The topics of the wire, version 1.

A name's slash would split a topic level, so ``acme/cbd`` is written ``acme.cbd`` in a topic. :func:`parse` gives
the address that a topic stands for, and :func:`may_publish` whether a signer may speak there: identity comes
from the signature, and topic and signer must agree.
"""

from dataclasses import dataclass
from typing import Literal

from datasync.domain.errors import MessageError
from datasync.domain.ids import NodeName, dotted, node_name

POLICY = "ds/1/policy"
REVOKED = "ds/1/revoked/+"
BEACONS = "ds/1/edge/+/beacon"
UPLINKS = ("ds/1/d/+/up", "ds/1/d/+/seg", "ds/1/d/+/json/+")
TO_CLOUD = "ds/1/cloud/in/+"

_NOBODY = NodeName("")

Kind = Literal["policy", "revoked", "beacon", "up", "dn", "seg", "json", "edge", "cloud"]


@dataclass(frozen=True, slots=True)
class Address:
    """What a topic stands for: whose box it is (``owner``), and for an edge's or the cloud's box, who puts in."""

    kind: Kind
    owner: NodeName = _NOBODY
    source: NodeName = _NOBODY
    collection: str = ""


def revoked(operator: str) -> str:
    """Return the topic of an operator's retained revocation list."""
    return f"ds/1/revoked/{operator}"


def beacon(name: NodeName) -> str:
    """Return the topic of a node's retained beacon."""
    return f"ds/1/edge/{dotted(name)}/beacon"


def device_up(device: NodeName) -> str:
    """Return the topic for control messages from a device."""
    return f"ds/1/d/{device}/up"


def device_down(device: NodeName) -> str:
    """Return the topic for control messages to a device."""
    return f"ds/1/d/{device}/dn"


def device_segments(device: NodeName) -> str:
    """Return the topic for segments from a device."""
    return f"ds/1/d/{device}/seg"


def device_json(device: NodeName) -> str:
    """Return the filter for all that a plain device publishes."""
    return f"ds/1/d/{device}/json/+"


def edge_in(edge: NodeName, source: NodeName) -> str:
    """Return the topic by which ``source``, an edge or the cloud, reaches ``edge``."""
    return f"ds/1/e/{dotted(edge)}/in/{dotted(source)}"


def edge_inbox(edge: NodeName) -> str:
    """Return the filter for all that reaches ``edge`` over the backbone."""
    return f"ds/1/e/{dotted(edge)}/in/+"


def cloud_in(edge: NodeName) -> str:
    """Return the topic by which ``edge`` reaches the cloud."""
    return f"ds/1/cloud/in/{dotted(edge)}"


def parse(topic: str) -> Address:
    """Return the address of a topic. Raises MessageError for one that is not of this protocol."""
    try:
        match topic.split("/"):
            case ["ds", "1", "policy"]:
                return Address("policy")
            case ["ds", "1", "revoked", operator]:
                return Address("revoked", owner=node_name(operator))
            case ["ds", "1", "edge", edge, "beacon"]:
                return Address("beacon", owner=_name(edge))
            case ["ds", "1", "d", device, ("up" | "dn" | "seg") as kind]:
                return Address(kind, owner=node_name(device))
            case ["ds", "1", "d", device, "json", collection] if collection:
                return Address("json", owner=node_name(device), collection=collection)
            case ["ds", "1", "e", edge, "in", source]:
                return Address("edge", owner=_name(edge), source=_name(source))
            case ["ds", "1", "cloud", "in", edge]:
                return Address("cloud", source=_name(edge))
    except ValueError as error:
        raise MessageError(f"topic {topic[:200]!r}: {error}") from error
    raise MessageError(f"topic {topic[:200]!r} is not one of ds/1")


def may_publish(signer: NodeName, address: Address) -> bool:
    """Whether ``signer`` may speak at this address; roles are checked by what handles the message."""
    match address.kind:
        case "beacon" | "up" | "seg":
            return signer == address.owner
        case "edge" | "cloud":
            return signer == address.source
        case "policy" | "dn":
            return True
        case "json" | "revoked":
            return False


def _name(level: str) -> NodeName:
    return node_name(level.replace(".", "/"))
