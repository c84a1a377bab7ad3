"""What a node's shell needs of a network: send a packet, be handed packets, know whether anyone listens.

A link promises little, so that every broker can keep the promise: packets may be lost, doubled, delayed and
reordered. That a packet was published says nothing about its being durable anywhere; the nodes acknowledge
to each other after their commits and send again from their databases what was not acknowledged. What a link
does promise is bounds: on the size of a packet, on what is in flight and on what is handed up unacknowledged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

TOPIC_BYTES_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Packet:
    """One message to publish, at QoS 1. Raises ValueError for a topic that cannot be published to."""

    topic: str
    payload: bytes
    retain: bool = False

    def __post_init__(self) -> None:
        if not is_topic(self.topic):
            raise ValueError(f"{self.topic!r} is no topic: want 1 to {TOPIC_BYTES_MAX} bytes without '+', '#' and NUL")


@dataclass(frozen=True, slots=True)
class Received:
    """One message that arrived.

    ``acknowledge`` is called once what the message did is committed, from any thread; calling it again, or
    after the connection is gone, does nothing. Until then a broker with a durable session keeps the message
    and delivers it again after a crash.
    """

    topic: str
    payload: bytes
    acknowledge: Callable[[], None]


class Link(Protocol):
    """A connection to a broker that comes and goes."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each trouble was met, by its code, for metrics."""
        ...

    async def run(self, receive: Callable[[Received], None], changed: Callable[[bool], None]) -> None:
        """Keep connected and subscribed until cancelled.

        Both callbacks run on the event loop and return at once. ``changed(True)`` says that every subscription
        is in force and ``publish`` is open; each is followed by one ``changed(False)``. What a durable
        session kept may be received before ``changed(True)``.
        """
        ...

    async def publish(self, packet: Packet) -> bool:
        """Hand over one packet; waits while the in-flight limit is reached.

        Returns False, at once, when there is no connection or it is lost while waiting: the caller sends
        again from its database. True promises nothing about the packet's arrival.
        Raises MessageTooLarge for a packet over the link's size limit.
        """
        ...


def is_topic(topic: str) -> bool:
    """Whether a packet can be published to ``topic`` (MQTT 3.1.1, sections 1.5.3 and 4.7)."""
    return bool(topic) and not any(mark in topic for mark in "+#\0") and len(topic.encode()) <= TOPIC_BYTES_MAX


def is_filter(topic_filter: str) -> bool:
    """Whether ``topic_filter`` can be subscribed to: ``+`` fills a whole level, ``#`` the whole last one."""
    levels = topic_filter.split("/")
    return (
        0 < len(topic_filter.encode()) <= TOPIC_BYTES_MAX
        and "\0" not in topic_filter
        and all("+" not in level or level == "+" for level in levels)
        and all("#" not in level for level in levels[:-1])
        and ("#" not in levels[-1] or levels[-1] == "#")
    )
