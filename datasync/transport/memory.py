"""A broker as plain data: who is subscribed to what, which packets are retained, and so who gets a packet.

For the deterministic simulator and for tests. Every call returns the deliveries it causes, in an order that depends
on the earlier calls alone; losing, doubling, delaying and reordering them is the caller's business, as is
acknowledging. A session ends with its connection. Topics match as in MQTT 3.1.1, section 4.7.
"""

from collections.abc import Iterable
from typing import NamedTuple

from datasync.domain.errors import LinkError
from datasync.transport.link import Packet, is_filter


class Delivery(NamedTuple):
    """``packet`` goes to ``client``; its ``retain`` says that it was kept from before the subscription."""

    client: str
    packet: Packet


class MemoryBroker:
    """Clients, their subscriptions and retained packets, in the order in which they came."""

    def __init__(self) -> None:
        self._filters: dict[str, list[str]] = {}
        self._retained: dict[str, Packet] = {}

    @property
    def clients(self) -> tuple[str, ...]:
        """The clients connected now."""
        return tuple(self._filters)

    def connect(self, client: str) -> None:
        """Begin a new session, without subscriptions; one that ``client`` still had ends."""
        self._filters.pop(client, None)
        self._filters[client] = []

    def disconnect(self, client: str) -> None:
        """End the session of ``client``; a client that has none is no error."""
        self._filters.pop(client, None)

    def subscribe(self, client: str, filters: Iterable[str]) -> list[Delivery]:
        """Add subscriptions; return the retained packets that match, once for each filter, as brokers do.

        Raises LinkError for a client that is not connected, ValueError for what is no filter (shared
        subscriptions are none here).
        """
        mine = self._session(client)
        wanted = list(filters)
        for bad in (text for text in wanted if not is_filter(text) or text.startswith("$share/")):
            raise ValueError(f"{bad!r} is no topic filter")
        mine.extend(text for text in wanted if text not in mine)
        kept = self._retained.values()
        return [Delivery(client, packet) for text in wanted for packet in kept if matches(text, packet.topic)]

    def publish(self, client: str, packet: Packet) -> list[Delivery]:
        """Return one delivery for each client with a matching subscription, the publisher included.

        A packet to be retained replaces the one of its topic; an empty one removes it.
        Raises LinkError for a client that is not connected.
        """
        self._session(client)
        if packet.retain:
            self._retained.pop(packet.topic, None)
            if packet.payload:
                self._retained[packet.topic] = packet
        sent = Packet(packet.topic, packet.payload)
        return [
            Delivery(other, sent)
            for other, filters in self._filters.items()
            if any(matches(text, packet.topic) for text in filters)
        ]

    def _session(self, client: str) -> list[str]:
        try:
            return self._filters[client]
        except KeyError:
            raise LinkError(f"{client!r} is not connected", where="memory broker") from None


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a packet to ``topic`` reaches a subscription to ``topic_filter``.

    ``+`` stands for one level, ``#`` at the end for any number, none included; neither stands for a first level
    that starts with ``$``.
    """
    if topic.startswith("$") and topic_filter.startswith(("+", "#")):
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))
