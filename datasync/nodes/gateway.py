"""A gateway for plain MQTT devices, which publish JSON and neither split nor sign.

The edge captures for them: the same split, with keys that it derives for each of them. What is above the edge's own
tier is dropped at once; the device is taken for who its topic says, which is as good as the broker's access control.
The broker keeps a message until it is committed here, and may deliver it again after a crash: a plain device's rows
arrive at least once.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from datasync.domain import limits
from datasync.domain.errors import (
    CollectionUnknown,
    MessageTooLarge,
    NotAttached,
    PolicyMissing,
    RecordError,
)
from datasync.domain.ids import NodeName
from datasync.domain.tiers import Place, Tier
from datasync.handover.machine import NEVER, Account
from datasync.handover.states import EdgeState
from datasync.nodes.node import Node, Turn
from datasync.nodes.roster import Roster
from datasync.policy.projection import to_batch
from datasync.protocol.topics import Address
from datasync.store.checkpoints import Standing
from datasync.sync.capture import Captor, own_streams
from datasync.sync.signing import sign


class Gateway:
    """Captures for the plain devices at one edge."""

    def __init__(self, node: Node, roster: Roster) -> None:
        self._node = node
        self._roster = roster

    def take(self, turn: Turn, address: Address) -> None:
        """Capture the JSON object or array in a message.

        Raises MessageTooLarge, RecordError and its kinds, PolicyMissing, NotAttached, EdgeFull.
        """
        rows = _rows(turn.arrival.payload)
        policy = self._node.policy
        if policy is None:
            raise PolicyMissing("there is no policy yet that says what may be captured")
        collection = policy.collections.get(address.collection)
        if collection is None:
            raise CollectionUnknown(f"the policy has no collection {address.collection!r}")
        try:
            batch = to_batch(collection, rows)
        except RecordError as error:
            raise error.hiding_value() from None  # this goes to the log, and the value may be private to its user
        account = self._roster.load(turn, address.owner)
        if account.known != NEVER or account.state is EdgeState.PREPARED:
            raise NotAttached(f"{address.owner} is a device that signs for itself; it may not publish JSON")
        self._roster.check_room(account)
        stamp = self._node.stamp(turn.now)
        self._captor(address.owner).capture(turn.tx, policy, address.collection, batch, stamp, turn.now)
        layers = own_streams(turn.tx, address.owner, address.collection).values()
        sign(turn.tx, layers, self.stream_key(address.owner), lambda _: Standing.KNOWN)
        turn.count("captured", address.collection, len(rows))
        if account.state is not EdgeState.ACTIVE:
            served = Account(address.owner, state=EdgeState.ACTIVE, registered=True, since_ms=turn.now.wall_ms)
            self._roster.save(turn, served)

    def stream_key(self, device: NodeName) -> Callable[[str, Tier, int], Ed25519PrivateKey]:
        """Return what gives the keys of a plain device's streams."""
        identity = self._node.kit.identity
        return lambda collection, tier, generation: identity.stream_key(f"{device}/{collection}", tier, generation)

    def _captor(self, device: NodeName) -> Captor:
        identity = self._node.kit.identity

        def pseudonym_key(transform: str, period: int) -> bytes:
            return identity.pseudonym_key(f"{device}/{transform}", period)

        return Captor(device, Place.EDGE, self._node.kit.vault, self.stream_key(device), pseudonym_key, {})


def _rows(payload: bytes) -> list[dict[str, Any]]:
    if len(payload) > limits.JSON_BYTES_MAX:
        raise MessageTooLarge(f"{len(payload)} bytes of JSON: send at most {limits.JSON_BYTES_MAX}")
    try:
        value = json.loads(payload, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the payload is no JSON: {error}") from error
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise RecordError("the payload is no JSON object and no array of objects")
    if not 0 < len(rows) <= limits.JSON_ROWS_MAX:
        raise RecordError(f"{len(rows)} rows in one message: send 1 to {limits.JSON_ROWS_MAX}")
    return rows


def _finite(text: str) -> float:
    """Return a number as JSON writes it; Python alone also reads NaN and Infinity, and makes them of 1e999."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number
