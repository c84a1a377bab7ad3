"""How a node comes to know which certificates count no longer, and what it then ends.

An authority's list reaches a node where the authorities' certificates are, through its HTTP API, or by a retained
topic; the cloud passes it on to edges and an edge to its devices. Whoever brings it need not be believed. What the
node takes it keeps, so that a broker cannot make it forget; a list that is older than the known one is refused. From
then on nothing that the revoked signed is taken; nobody else's epoch or session changes.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection

from datasync.domain.errors import MessageError, RevocationStale
from datasync.domain.ids import NodeName
from datasync.nodes.node import Node, Outgoing, Turn
from datasync.protocol import revocations, topics
from datasync.security.certificates import AuthorityCertificate
from datasync.security.revocation import RevocationList
from datasync.store import audit, registers

NAMES_LOGGED_MAX = 16

_KEPT = "revoked"
"""By authority, the list as it was signed."""

End = Callable[[Turn, frozenset[NodeName]], None]


class Revoking:
    """The lists that one node knows.

    ``link`` is where it passes them on, None where nobody is below; ``end`` is told whom a list names.
    """

    def __init__(self, node: Node, link: str | None, end: End = lambda _turn, _names: None) -> None:
        self._node = node
        self._link = link
        self._end = end

    def begin(self, turn: Turn) -> None:
        """Take up the lists of before, and those that were put in place meanwhile."""
        kept = [b64decode(text) for text in _kept(turn.tx).values()]
        for signed in kept:
            with suppress(MessageError):  # an authority that is trusted no longer has nothing to revoke
                self._node.kit.trust.revoke(*revocations.read(signed, self._node.kit.trust))
        for signed in self._node.kit.revocations:
            with suppress(RevocationStale):
                self._adopt(turn, signed)
        named = {each.name for listed in self._node.kit.trust.revocations for each in listed.revoked}
        self._end(turn, frozenset(named))

    def install(self, turn: Turn, signed: bytes) -> RevocationList:
        """Take a list that an administrator gave, and return it. Raises MessageError and its kinds."""
        return self._adopt(turn, signed, audit.ADMINISTRATOR)

    def take(self, turn: Turn) -> None:
        """Take a list that arrived, unless it is known: brokers repeat what they retain. Raises MessageError."""
        if b64encode(turn.arrival.payload).decode() not in _kept(turn.tx).values():
            self._adopt(turn, turn.arrival.payload, topic=turn.arrival.topic)

    def pass_on(self, turn: Turn) -> None:
        """Publish all lists, for who connects later too."""
        for text in _kept(turn.tx).values():
            self._publish(turn, b64decode(text))

    def is_revoked(self, certificate: bytes) -> bool:
        """Whether a certificate (DER) was revoked."""
        return self._node.kit.trust.is_revoked(certificate)

    def _adopt(self, turn: Turn, signed: bytes, actor: str = "", topic: str = "") -> RevocationList:
        trust, kept = self._node.kit.trust, _kept(turn.tx)
        authority, listed = revocations.read(signed, trust)
        if topic not in ("", topics.revoked(listed.operator)):
            raise MessageError(f"the list of {listed.operator} was said on {topic}")
        before = {each.serial for known in trust.revocations for each in known.revoked}
        text = b64encode(signed).decode()
        if not trust.revoke(authority, listed) and kept.get(_key(authority)) == text:
            return listed
        registers.put(turn.tx, _KEPT, kept | {_key(authority): text})
        new = [each.name for each in listed.revoked if each.serial not in before]
        detail = {"number": listed.number, "certificates": len(listed.revoked), "new": new[:NAMES_LOGGED_MAX]}
        event = audit.Event.NODE_REVOKED
        audit.append(turn.tx, event, actor or listed.operator, listed.operator, detail, turn.now.wall_ms)
        turn.count("revoked", "lists")
        self._end(turn, frozenset(each.name for each in listed.revoked))
        self._publish(turn, signed)
        return listed

    def _publish(self, turn: Turn, signed: bytes) -> None:
        if self._link is not None:
            _, listed = revocations.read(signed, self._node.kit.trust)
            turn.effects.send.append(Outgoing(self._link, topics.revoked(listed.operator), signed, retain=True))


def _kept(tx: Connection) -> dict[str, str]:
    kept: dict[str, str] = registers.get(tx, _KEPT, {})
    return kept


def _key(authority: AuthorityCertificate) -> str:
    return authority.verify_key.public_bytes_raw().hex()
