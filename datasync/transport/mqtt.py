"""The link to an MQTT 3.1.1 broker: dial, subscribe, serve, and again when the connection is lost.

What holds while connected is in :mod:`datasync.transport.mqtt_connection`. Between connections nothing is kept:
what was in flight is forgotten, because the caller sends again from its database.
"""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from datasync.domain.errors import ConfigError, LinkError, MessageTooLarge
from datasync.domain.limits import MESSAGE_BYTES_MAX
from datasync.security.tls import Caller
from datasync.transport.link import Packet, Received, is_filter
from datasync.transport.mqtt_connection import CONNECT_S, Connection, Reports, Settings
from datasync.transport.tls import secured

PORTS = {"mqtt": 1883, "mqtts": 8883}
"""The ports that are meant where a URL has none, by scheme."""

IN_FLIGHT_MAX = 64
KEEPALIVE_S = 15
RECONNECT_S = 0.2
RECONNECT_S_MAX = 5.0
STABLE_S = 5.0
"""A connection that lasted this long was a good one: the wait before the next starts small again."""

NOT_SENT_BYTES = 256 << 10
"""What the kernel takes beyond what is on its way, so that a socket that takes more shows that a peer is there."""


class MqttLink:
    """A :class:`datasync.transport.link.Link` to the broker at ``mqtt://host:port``, everything at QoS 1.

    With ``mqtts://`` it is TLS, to the node that ``caller`` means or to its broker, and to nobody else.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        subscriptions: Sequence[str],
        *,
        caller: Caller | None = None,
        durable_session: bool = False,
        in_flight_max: int = IN_FLIGHT_MAX,
        packet_bytes_max: int = MESSAGE_BYTES_MAX,
        keepalive_s: int = KEEPALIVE_S,
    ) -> None:
        """Describe the link; :meth:`run` opens it. Raises ConfigError for a URL or filter that cannot work.

        With ``durable_session`` the broker keeps the session of ``client_id`` while it is away: the
        subscriptions, and what arrives or was not acknowledged, within the broker's limits.
        """
        host, port, is_tls = _address(url)
        if is_tls != (caller is not None):
            raise ConfigError(f"{url} is TLS with a node that is known, or not TLS", fix="write mqtts://host:port")
        for bad in (text for text in subscriptions if not is_filter(text)):
            raise ConfigError(f"{bad!r} is no topic filter", fix="'+' fills a whole level, '#' the whole last one")
        self._settings = Settings(
            host,
            port,
            client_id,
            tuple(subscriptions),
            durable_session,
            in_flight_max,
            packet_bytes_max,
            keepalive_s,
            caller,
        )
        self._connection: Connection | None = None
        self._reports = Reports(f"{client_id} at {self._settings.broker}")

    @property
    def counts(self) -> dict[str, int]:
        """How often each trouble was met, by its code, for metrics."""
        return dict(self._reports.counts)

    async def run(self, receive: Callable[[Received], None], changed: Callable[[bool], None]) -> None:
        """Keep connected and subscribed until cancelled; see :class:`datasync.transport.link.Link`."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await self._connect_once(receive, changed)
            except LinkError as error:
                self._reports.report(error.code, error.detail)
            failures = 1 if time.monotonic() - started >= STABLE_S else failures + 1
            await asyncio.sleep(reconnect_s(failures, random.SystemRandom().random()))

    async def publish(self, packet: Packet) -> bool:
        """Hand over one packet; see :class:`datasync.transport.link.Link`."""
        if len(packet.payload) > self._settings.packet_bytes_max:
            limit = self._settings.packet_bytes_max
            raise MessageTooLarge(f"{len(packet.payload)} bytes, at most {limit} fit a packet", where=packet.topic)
        connection = self._connection
        if connection is None:
            return False
        while not connection.gone.done():
            if connection.offer(packet):
                return True
            await connection.room.wait()
        return False

    async def _connect_once(self, receive: Callable[[Received], None], changed: Callable[[bool], None]) -> None:
        """Connect and serve; ends by raising LinkError or by being cancelled, never otherwise."""
        connection = Connection(self._settings, await _dial(self._settings), receive, self._reports)
        try:
            await connection.open()
            self._connection = connection
            self._tell(changed, True)
            await connection.serve()
        finally:
            connection.close()
            if self._connection is connection:
                self._connection = None
                self._tell(changed, False)

    def _tell(self, changed: Callable[[bool], None], connected: bool) -> None:
        try:
            changed(connected)
        except Exception:
            self._reports.report("RECEIVER_FAILED", f"changed({connected}) raised", error=True)


def reconnect_s(failures: int, draw: float) -> float:
    """Return how long to wait after so many failures in a row; ``draw`` in 0..1 spreads a crowd over half of it."""
    return min(RECONNECT_S * 2.0 ** min(failures - 1, 16), RECONNECT_S_MAX) * (1.0 - draw / 2)


def _address(url: str) -> tuple[str, int, bool]:
    """Return host and port of a broker, and whether it is to be TLS. Raises ConfigError."""
    parts = urlsplit(url)
    try:
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        port = 0
    if parts.scheme not in PORTS or not parts.hostname or not port or "@" in parts.netloc or parts.path.strip("/"):
        raise ConfigError(
            f"{url!r} is no broker's address", fix="write mqtts://host:port; without TLS mqtt://host:port"
        )
    return parts.hostname, port, parts.scheme == "mqtts"


async def _dial(settings: Settings) -> socket.socket:
    """Return a connected socket, with TLS if wanted, to the host's first address that answers. Raises LinkError."""
    try:
        async with asyncio.timeout(CONNECT_S):
            sock = await _reached(await _resolve(settings))
            return sock if settings.caller is None else await secured(sock, settings.caller)
    except TimeoutError as error:
        raise LinkError(f"not reached within {CONNECT_S:.0f} s", where=settings.broker) from error
    except OSError as error:
        raise LinkError(f"not reached: {error}", where=settings.broker) from error


async def _reached(found: list[tuple[Any, Any, int, str, Any]]) -> socket.socket:
    for family, kind, protocol, _, address in found[:-1]:
        with suppress(OSError):
            return await _connected(socket.socket(family, kind, protocol), address)
    family, kind, protocol, _, address = found[-1]
    return await _connected(socket.socket(family, kind, protocol), address)


async def _resolve(settings: Settings) -> list[tuple[Any, Any, int, str, Any]]:
    """Return the host's addresses; only a name that is no number costs a thread of the loop's pool."""
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        return socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=numeric)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)


async def _connected(sock: socket.socket, address: Any) -> socket.socket:
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
