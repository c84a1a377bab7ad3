"""One connection to an MQTT broker, from CONNECT to its loss: paho-mqtt driven by the event loop.

paho encodes, decodes and counts; the socket belongs to the event loop, which reads when it is readable and writes at
once. paho's own thread would wake through a socket pair and hand the interpreter lock over twice for each packet.
Measured through a local Mosquitto on 2 cores, loop against thread: round trip of 100 B 0.15 against 0.19 ms, of 100 kB
0.21 against 0.24 ms; CPU of a receiver for each packet of 100 B 33 against 57 us, of 100 kB 138 against 212 us (with
glibc's trimming of the heap out of the way, which costs the main thread some 0.2 ms for each 100 kB). Here nothing is
shared between threads either, and an exception cannot vanish in one.

Invariants:

- A connection is one paho client, and nothing outlives it: an acknowledgement of an earlier connection cannot hit
  a message of the present one.
- paho never queues: a packet is offered to it only while packets and bytes in flight are under their limits
  (a PUBACK frees a slot and means nothing else).
- A packet that arrives is acknowledged to the broker when ``Received.acknowledge`` is called and not before, so the
  broker's own in-flight limit (Mosquitto: 20 unless ``max_inflight_messages`` says otherwise) paces what arrives.
  Reading never stops, since PUBACKs come on the same socket and a publisher that waits for one may be what the
  receiver waits for. A broker without a limit meets ours: beyond ``UNACKNOWLEDGED_MAX`` packets or
  ``UNACKNOWLEDGED_BYTES_MAX`` bytes a packet is dropped, as an oversized one is: acknowledged, counted, logged.
  paho assembles a packet before its size can be seen here; brokers should have a ``message_size_limit``.
- A peer is there while its socket gives or takes bytes, not while it answers pings in time: an answer waits behind
  a large packet on a slow line.
"""

import asyncio
import itertools
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from datasync.domain.errors import LinkError, MessageTooLarge, PeerRefused, SubscriptionRefused
from datasync.domain.limits import MESSAGE_BYTES_MAX
from datasync.security.tls import Caller
from datasync.transport.link import Packet, Received
from datasync.transport.tls import TlsSocket

UNACKNOWLEDGED_MAX = 4_096
UNACKNOWLEDGED_BYTES_MAX = 8 * MESSAGE_BYTES_MAX
IN_FLIGHT_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
CONNECT_S = 10.0
"""How long dialling, and then the broker's answers to CONNECT and SUBSCRIBE, may each take."""

TICK_S = 0.5
LOG_S = 10.0
READS_PER_WAKE = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a link was told; the same for all its connections."""

    host: str
    port: int
    client_id: str
    subscriptions: tuple[str, ...]
    durable_session: bool
    in_flight_max: int
    packet_bytes_max: int
    keepalive_s: int
    caller: Caller | None = None
    """Who the broker must be, and how to speak TLS with it; None for no TLS."""

    @property
    def broker(self) -> str:
        """The broker's address, for messages."""
        return f"{self.host}:{self.port}"


class Reports:
    """Counts every trouble of a link by its code, and logs each code at most once in ``LOG_S``."""

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
        more = f" ({times} times since this was last logged)" if times > 1 else ""
        _log.warning("%s: %s: %s%s", code, self._where, detail, more, exc_info=error)


class _SocketClient(Client):
    """paho's client on a socket that is connected already; its own way to connect would block the event loop."""

    def __init__(self, sock: socket.socket, settings: Settings) -> None:
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

    def ping(self) -> None:
        """Send a PINGREQ. paho's ``loop_misc`` would send one too, and give up a line that is slow but alive."""
        self._send_pingreq()


class Connection:
    """One connection. All of it but ``Received.acknowledge`` runs on the event loop's thread.

    ``gone`` resolves with the reason once the connection is lost; ``room`` is set while a slot is free, and
    for good once the connection is gone.
    """

    def __init__(
        self, settings: Settings, sock: socket.socket, receive: Callable[[Received], None], reports: Reports
    ) -> None:
        """Take over ``sock``, connected and non-blocking; :meth:`open` speaks first."""
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
        self._alive = self._loop.time()
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
        self._loop.add_reader(self._socket, self._on_readable)
        either: set[asyncio.Future[Any]] = {self._ready, self.gone}
        await asyncio.wait(either, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            self._lose(f"no answer within {CONNECT_S:.0f} s")
            raise self.gone.result()
        self.room.set()

    async def serve(self) -> None:
        """Keep the connection alive until it is lost. Raises LinkError."""
        keepalive_s = self._settings.keepalive_s
        pinged = self._loop.time()
        while not self.gone.done():
            await asyncio.wait({self.gone}, timeout=TICK_S)
            now = self._loop.time()
            if now - self._alive >= 2 * keepalive_s:
                self._lose(f"silent for {now - self._alive:.0f} s")
            elif now - pinged >= keepalive_s:
                self._client.ping()
                pinged = now
        raise self.gone.result()

    def close(self) -> None:
        """Say goodbye if the socket takes it at once, and let go of everything."""
        if not self.gone.done():
            self._lose("closed here")
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
            self._lose(f"paho refused a packet: {info.rc.name}")
            return False
        self._in_flight[info.mid] = size
        self._in_flight_bytes += size
        self._write()
        return True

    def _lose(self, reason: str, kind: type[LinkError] = LinkError) -> None:
        if not self.gone.done():
            self.gone.set_result(kind(reason, where=self._settings.broker))
            self.room.set()

    def _guarded(self, step: Callable[[], object]) -> None:
        """Take one of paho's steps; what it raises, on a malformed packet say, ends the connection."""
        try:
            step()
        except Exception as error:
            self._lose(f"{type(error).__name__}: {error}")

    def _on_readable(self) -> None:
        """Handle what arrived; paho handles few packets a call and does not say whether there were more."""
        self._alive = self._loop.time()
        for _ in range(READS_PER_WAKE):
            if self.gone.done():
                return
            before = self._handled
            self._guarded(self._client.loop_read)
            if self._handled == before and not self._decrypted():
                return
        if self._decrypted():
            self._loop.call_soon(self._on_readable)

    def _decrypted(self) -> int:
        """Return how many bytes arrived that the socket will not be readable for."""
        return self._socket.pending() if isinstance(self._socket, TlsSocket) and not self.gone.done() else 0

    def _on_writable(self) -> None:
        self._alive = self._loop.time()
        self._write()

    def _write(self) -> None:
        """Write what there is to write; what the socket does not take now follows when it does."""
        if self._write_soon is not None:
            self._write_soon.cancel()
            self._write_soon = None
        self._guarded(self._client.loop_write)
        if self._client.socket() is None:
            return
        if self._client.want_write():
            self._loop.add_writer(self._socket, self._on_writable)
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
            self._lose(f"the broker refused the connection: {reason}")
        elif self._settings.subscriptions:
            client.subscribe([(text, 1) for text in self._settings.subscriptions])
        else:
            self._ready.set_result(None)

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._handled += 1
        wanted = self._settings.subscriptions
        refused = [text for text, reason in zip(wanted, reasons, strict=False) if reason.is_failure]
        if refused or len(reasons) != len(wanted):
            self._lose(f"the broker refused to subscribe {refused}", SubscriptionRefused)
        elif not self._ready.done():
            self._ready.set_result(None)

    def _on_disconnect(
        self, _client: Client, _userdata: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        refusal = self._socket.refusal if isinstance(self._socket, TlsSocket) else ""
        if refusal:
            self._lose(f"the broker ended TLS: {refusal}", PeerRefused)
        self._lose(f"the connection was lost: {reason}")

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
            self._reports.report("RECEIVER_FAILED", f"receiving from {message.topic!r} raised", error=True)

    def _trouble(self, message: MQTTMessage) -> tuple[str, str] | None:
        """Return the code and detail of why ``message`` is not handed up, or None."""
        size, size_max = len(message.payload), self._settings.packet_bytes_max
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return "TOPIC_INVALID", "dropped a packet whose topic is not UTF-8"
        if size > size_max:
            return MessageTooLarge.code, f"dropped {size} bytes from {topic!r}, at most {size_max} fit a packet"
        waiting = len(self._unacknowledged)
        if waiting >= UNACKNOWLEDGED_MAX or self._unacknowledged_bytes + size > UNACKNOWLEDGED_BYTES_MAX:
            return "RECEIVER_BEHIND", f"dropped {size} bytes from {topic!r}: {waiting} packets are unacknowledged"
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
