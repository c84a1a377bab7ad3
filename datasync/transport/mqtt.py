"""The link to an MQTT 3.1.1 broker, on paho-mqtt driven by the event loop.

paho encodes, decodes and counts; the socket belongs to the event loop, which dials it, reads when it is readable
and writes at once. paho's own thread would need a wake through a socket pair and two hand-overs of the
interpreter lock for each packet; here a callback runs where the node runs, so that nothing is shared and an
exception cannot vanish in a thread.

Invariants:

- A connection is one paho client. Nothing outlives it: what was in flight is forgotten, because the caller sends
  again from its database, and an acknowledgement of an earlier connection cannot hit a message of the present one.
- paho never queues: a packet is offered to it only while packets and bytes in flight are under their limits
  (a PUBACK frees a slot and means nothing else).
- A packet that arrives is acknowledged to the broker when ``Received.acknowledge`` is called and not before, so the
  broker's own in-flight limit (Mosquitto: 20 unless ``max_inflight_messages`` says otherwise) paces what arrives.
  Reading never stops, since PUBACKs come on the same socket and a publisher that waits for one may be what the
  receiver waits for. A broker without a limit meets ours: beyond ``UNACKNOWLEDGED_MAX`` packets or
  ``UNACKNOWLEDGED_BYTES_MAX`` bytes a packet is dropped, as an oversized one is: acknowledged, counted, logged.
  paho assembles a packet before its size can be seen here; brokers should have a ``message_size_limit``.
"""

import asyncio
import itertools
import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from datasync.domain.errors import ConfigError, LinkError, MessageTooLarge, SubscriptionRefused
from datasync.domain.limits import MESSAGE_BYTES_MAX
from datasync.transport.link import Packet, Received, is_filter

UNACKNOWLEDGED_MAX = 4_096
UNACKNOWLEDGED_BYTES_MAX = 8 * MESSAGE_BYTES_MAX
IN_FLIGHT_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
KEEPALIVE_S = 15
CONNECT_S = 10.0
"""How long dialling, and then the broker's answers to CONNECT and SUBSCRIBE, may each take."""

RECONNECT_S = 0.2
RECONNECT_S_MAX = 10.0
STABLE_S = 5.0
"""A connection that lasted this long was a good one: the wait before the next starts small again."""

TICK_S = 1.0
LOG_S = 10.0
READS_PER_WAKE = 32

_log = logging.getLogger(__name__)


class MqttLink:
    """A :class:`datasync.transport.link.Link` to the broker at ``mqtt://host:port``, everything at QoS 1."""

    def __init__(
        self,
        url: str,
        client_id: str,
        subscriptions: Sequence[str],
        *,
        durable_session: bool = False,
        in_flight_max: int = 64,
        packet_bytes_max: int = MESSAGE_BYTES_MAX,
        keepalive_s: int = KEEPALIVE_S,
    ) -> None:
        """Describe the link; :meth:`run` opens it. Raises ConfigError for a URL or filter that cannot work.

        A broker keeps the session of ``client_id`` while it is away when ``durable_session`` is set: the
        subscriptions, and what was not acknowledged.
        """
        host, port = _address(url)
        for bad in (text for text in subscriptions if not is_filter(text)):
            raise ConfigError(f"{bad!r} is no topic filter", fix="'+' fills a whole level, '#' the whole last one")
        self._settings = _Settings(
            host, port, client_id, tuple(subscriptions), durable_session, in_flight_max, packet_bytes_max, keepalive_s
        )
        self._connection: _Connection | None = None
        self._reports = _Reports(f"{client_id} at {host}:{port}")

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
                self._reports.report(error.code, str(error))
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
        """Connect, serve and always end: by raising LinkError or being cancelled."""
        connection = _Connection(self._settings, await _dial(self._settings), receive, self._reports)
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


@dataclass(frozen=True, slots=True)
class _Settings:
    host: str
    port: int
    client_id: str
    subscriptions: tuple[str, ...]
    durable_session: bool
    in_flight_max: int
    packet_bytes_max: int
    keepalive_s: int

    @property
    def broker(self) -> str:
        return f"{self.host}:{self.port}"


class _Reports:
    """Counts every trouble by its code, and logs each code at most once per interval."""

    def __init__(self, where: str) -> None:
        self.counts: Counter[str] = Counter()
        self._where = where
        self._logged: dict[str, tuple[float, int]] = {}

    def report(self, code: str, detail: str, *, error: bool = False) -> None:
        """Count ``code``; log it with the exception being handled when ``error`` says there is one."""
        self.counts[code] += 1
        now = time.monotonic()
        last, counted = self._logged.get(code, (-LOG_S, 0))
        if now - last < LOG_S:
            return
        self._logged[code] = (now, self.counts[code])
        times = self.counts[code] - counted
        more = f", {times} times since last logged" if times > 1 else ""
        _log.warning("%s: %s: %s%s", code, self._where, detail, more, exc_info=error)


class _SocketClient(Client):
    """paho's client on a socket that is connected already; its own way to connect would block the event loop."""

    def __init__(self, sock: socket.socket, settings: _Settings) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=not settings.durable_session,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        self.connected_socket = sock
        self.max_inflight_messages = settings.in_flight_max
        self.max_queued_messages = settings.in_flight_max

    def _create_socket(self) -> socket.socket:
        return self.connected_socket


class _Connection:
    """One connection from CONNECT to its loss. All of it runs on the event loop's thread.

    ``gone`` resolves with the reason once the connection is lost; ``room`` is set while a slot is free, and
    for good once the connection is gone.
    """

    def __init__(
        self, settings: _Settings, sock: socket.socket, receive: Callable[[Received], None], reports: _Reports
    ) -> None:
        self._settings = settings
        self._socket = sock
        self._receive = receive
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[LinkError] = self._loop.create_future()
        self.room = asyncio.Event()
        self._in_flight: dict[int, int] = {}
        self._in_flight_bytes = 0
        self._unacknowledged: dict[int, tuple[int, int, int]] = {}
        self._unacknowledged_bytes = 0
        self._serials = itertools.count()
        self._handled = 0
        self._write_soon: asyncio.Handle | None = None
        self._client = self._new_client()

    def _new_client(self) -> _SocketClient:
        client = _SocketClient(self._socket, self._settings)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_socket_register_write
        return client

    async def open(self) -> None:
        """Return once the broker accepted the connection and every subscription. Raises LinkError."""
        self._client.connect(self._settings.host, self._settings.port, self._settings.keepalive_s)
        self._loop.add_reader(self._socket, self._read)
        either: set[asyncio.Future[Any]] = {self._ready, self.gone}
        await asyncio.wait(either, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            self._lose(LinkError(f"no answer within {CONNECT_S:.0f} s", where=self._settings.broker))
            raise self.gone.result()
        self.room.set()

    async def serve(self) -> None:
        """Keep the connection alive until it is lost. Raises LinkError."""
        while not self.gone.done():
            await asyncio.wait({self.gone}, timeout=TICK_S)
            self._guarded(self._client.loop_misc)
        raise self.gone.result()

    def close(self) -> None:
        """Say goodbye if the socket takes it at once, and let go of everything."""
        if not self.gone.done():
            self._lose(LinkError("closed here", where=self._settings.broker))
            self._client.disconnect()
            self._write()
        client = self._client
        client.on_connect = client.on_subscribe = client.on_publish = client.on_message = None
        client.on_disconnect = client.on_socket_close = client.on_socket_register_write = None
        self._unhook()
        self._socket.close()

    def offer(self, packet: Packet) -> bool:
        """Send ``packet`` if the limits allow it now."""
        size = len(packet.payload)
        full = len(self._in_flight) >= self._settings.in_flight_max
        if full or (self._in_flight and self._in_flight_bytes + size > IN_FLIGHT_BYTES_MAX):
            self.room.clear()
            return False
        info = self._client.publish(packet.topic, packet.payload, qos=1, retain=packet.retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lose(LinkError(f"paho refused a packet: {info.rc.name}", where=self._settings.broker))
            return False
        self._in_flight[info.mid] = size
        self._in_flight_bytes += size
        self._write()
        return True

    def _lose(self, error: LinkError) -> None:
        if not self.gone.done():
            self.gone.set_result(error)
            self.room.set()

    def _guarded(self, step: Callable[[], object]) -> None:
        """Take one of paho's steps; what it raises, on a malformed packet say, ends the connection."""
        try:
            step()
        except Exception as error:
            self._lose(LinkError(f"{type(error).__name__}: {error}", where=self._settings.broker))

    def _read(self) -> None:
        """Handle what arrived; paho handles few packets a call and does not say whether there were more."""
        for _ in range(READS_PER_WAKE):
            before = self._handled
            self._guarded(self._client.loop_read)
            if self._handled == before or self.gone.done():
                break

    def _write(self) -> None:
        """Write what there is to write; what the socket does not take now follows when it does."""
        if self._write_soon is not None:
            self._write_soon.cancel()
            self._write_soon = None
        self._guarded(self._client.loop_write)
        if self._client.socket() is None:
            return
        if self._client.want_write():
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _unhook(self) -> None:
        if self._write_soon is not None:
            self._write_soon.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)

    def _on_socket_close(self, _client: Client, _userdata: Any, _sock: object) -> None:
        self._unhook()

    def _on_socket_register_write(self, _client: Client, _userdata: Any, _sock: object) -> None:
        if self._write_soon is None:
            self._write_soon = self._loop.call_soon(self._write)

    def _on_connect(
        self, client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._handled += 1
        if reason.is_failure:
            self._lose(LinkError(f"the broker refused the connection: {reason}", where=self._settings.broker))
        elif self._settings.subscriptions:
            client.subscribe([(text, 1) for text in self._settings.subscriptions])
        else:
            self._make_ready()

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._handled += 1
        refused = [
            text for text, reason in zip(self._settings.subscriptions, reasons, strict=False) if reason.value > 2
        ]
        if refused or len(reasons) != len(self._settings.subscriptions):
            self._lose(SubscriptionRefused(f"the broker refused {refused}", where=self._settings.broker))
        else:
            self._make_ready()

    def _make_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _on_disconnect(
        self, _client: Client, _userdata: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        self._lose(LinkError(f"the connection was lost: {reason}", where=self._settings.broker))

    def _on_publish(self, _client: Client, _userdata: Any, mid: int, _reason: ReasonCode, _properties: Any) -> None:
        self._handled += 1
        self._in_flight_bytes -= self._in_flight.pop(mid, 0)
        self.room.set()

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        self._handled += 1
        if self.gone.done():
            return
        trouble = self._trouble(message)
        if trouble is not None:
            self._reports.report(*trouble)
            self._client.ack(message.mid, message.qos)
            return
        serial = next(self._serials)
        self._unacknowledged[serial] = (message.mid, message.qos, len(message.payload))
        self._unacknowledged_bytes += len(message.payload)
        try:
            self._receive(Received(message.topic, bytes(message.payload), partial(self._acknowledge, serial)))
        except Exception:
            self._reports.report("RECEIVER_FAILED", f"receiving from {message.topic} raised", error=True)

    def _trouble(self, message: MQTTMessage) -> tuple[str, str] | None:
        """Return the code and detail of why ``message`` is not handed up, or None."""
        size = len(message.payload)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return "TOPIC_INVALID", "dropped a packet whose topic is not UTF-8"
        if size > self._settings.packet_bytes_max:
            return MessageTooLarge.code, f"dropped {size} bytes from {topic}, at most {self._settings.packet_bytes_max}"
        waiting = len(self._unacknowledged)
        if waiting >= UNACKNOWLEDGED_MAX or self._unacknowledged_bytes + size > UNACKNOWLEDGED_BYTES_MAX:
            return "RECEIVER_BEHIND", f"dropped {size} bytes from {topic}: {waiting} packets are unacknowledged"
        return None

    def _acknowledge(self, serial: int) -> None:
        """Acknowledge from any thread, however late: a loop that is closed has no connection left."""
        if threading.get_ident() == self._thread:
            self._acknowledge_now(serial)
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._acknowledge_now, serial)

    def _acknowledge_now(self, serial: int) -> None:
        mid, qos, size = self._unacknowledged.pop(serial, (0, 0, 0))
        self._unacknowledged_bytes -= size
        if mid and not self.gone.done():
            self._client.ack(mid, qos)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port or 1883
    except ValueError:
        port = 0
    if parts.scheme != "mqtt" or not parts.hostname or not port or "@" in parts.netloc or parts.path.strip("/"):
        raise ConfigError(f"{url!r} is no broker's address", fix="write mqtt://host:port")
    return parts.hostname, port


async def _dial(settings: _Settings) -> socket.socket:
    """Return a connected socket, tried at each address of the host. Raises LinkError."""
    try:
        async with asyncio.timeout(CONNECT_S):
            found = await _resolve(settings)
            for family, kind, protocol, _, address in found[:-1]:
                with suppress(OSError):
                    return await _connected(socket.socket(family, kind, protocol), address)
            family, kind, protocol, _, address = found[-1]
            return await _connected(socket.socket(family, kind, protocol), address)
    except TimeoutError as error:
        raise LinkError(f"not reached within {CONNECT_S:.0f} s", where=settings.broker) from error
    except OSError as error:
        raise LinkError(f"not reached: {error}", where=settings.broker) from error


async def _resolve(settings: _Settings) -> list[tuple[Any, Any, int, str, Any]]:
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
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
