"""amqtt 0.12's broker with what would break a run put right. Import it through :mod:`datasync.transport.embedded`.

Each method names the fault that it is here for; all of them were seen happening:

- Every client that connects is sent every retained message that matches a filter of *any* client; and as that
  walks the table of filters while others subscribe, it kills the connection ("dictionary changed size during
  iteration") whenever clients connect at the same time.
- A second client with the same id leaves the first connected, deaf, and unaware (MQTT-3.1.4-2 wants it closed).
- A durable session, taken over or not, loses what was in flight, and after a take-over receives nothing more; so
  there are none here: a session ends with its connection, and CONNACK says so.
- A message that is not acknowledged within 5 s, or whose client goes away, puts a traceback in the log.
- What waits for a client that does not acknowledge has no bound.
"""

import asyncio
import logging
from typing import Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import OutgoingApplicationMessage, Session

QUEUED_MAX = 1_000
"""Messages sent to one client and not acknowledged; beyond it they are dropped, as Mosquitto does."""

_log = logging.getLogger(__name__)


class RepairedBroker(Broker):  # type: ignore[misc]  # amqtt is not typed
    """The broker; connections are handed to its public ``external_connected``."""

    def __init__(self) -> None:
        super().__init__(
            {
                "listeners": {"default": {"type": "external"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        self._subscribing: set[str | None] = set()

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        _, session = await super()._initialize_client_session(reader, writer, remote_address, remote_port)
        if session.parent:
            await self._delete_session(session.client_id)
            session = _anew(session)
        return _Handler(self.plugins_manager, loop=self._loop), session

    async def _delete_session(self, client_id: str) -> None:
        _, handler = self._sessions.get(client_id, (None, None))
        await super()._delete_session(client_id)
        if handler is not None:
            await self._stop_handler(handler)

    async def _handle_subscription(
        self, client_session: Session, handler: BrokerProtocolHandler, subscribe_waiter: asyncio.Future[Any]
    ) -> None:
        self._subscribing.add(client_session.client_id)
        try:
            await super()._handle_subscription(client_session, handler, subscribe_waiter)
        finally:
            self._subscribing.discard(client_session.client_id)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        if session.client_id in self._subscribing:
            await super()._publish_retained_messages_for_subscription(subscription, session)


class _Handler(BrokerProtocolHandler):  # type: ignore[misc]
    async def mqtt_publish(
        self, topic: str, data: bytes | bytearray, qos: int | None, retain: bool, ack_timeout: int | None = None
    ) -> OutgoingApplicationMessage:
        if self.session is not None and len(self.session.inflight_out) < QUEUED_MAX:
            try:
                return await super().mqtt_publish(topic, data, qos, retain, ack_timeout)
            except Exception as error:
                _log.debug("a client did not take or not acknowledge a message: %r", error)
        else:
            _log.debug("a client is behind or gone, a message for it was dropped")
        return OutgoingApplicationMessage(None, topic, qos, data, retain)


def _anew(session: Session) -> Session:
    """Return a session for the same client, as its CONNECT described it, without any history."""
    fresh = Session()
    for name in ("client_id", "clean_session", "keep_alive", "username", "password", "remote_address", "remote_port"):
        setattr(fresh, name, getattr(session, name))
    for name in ("will_flag", "will_message", "will_qos", "will_retain", "will_topic"):
        setattr(fresh, name, getattr(session, name))
    return fresh
