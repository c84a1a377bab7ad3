"""An MQTT broker inside this process, for the demo and for tests: nothing to install and no port to agree on.

It is amqtt (:mod:`datasync.transport.amqtt_broker` says what had to be put right), reached over real sockets by the
same link as any broker. What it does not do: keep anything for a client that is away (a durable session is a
plain one here), send again what was delivered but not acknowledged, notice a peer that vanished without closing
its socket, or limit what is in flight by bytes. The nodes need none of that, since they send again from their
databases, but a deployment should have a real broker. With TLS it lets in whom the context lets in, and has no access
list: whoever is in may use every topic.
"""

import asyncio
import logging
import ssl
from types import TracebackType
from typing import TYPE_CHECKING, Self

from datasync.domain.errors import DependencyMissing, LinkError

if TYPE_CHECKING:
    from datasync.transport.amqtt_broker import RepairedBroker

LISTENER = "default"
BACKLOG = 256

_log = logging.getLogger(__name__)


class EmbeddedBroker:
    """A broker for anyone who reaches ``host``: ``async with EmbeddedBroker() as broker: broker.url``."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None) -> None:
        """Describe the broker, TLS if it has a context for it; entering it opens it. Port 0 takes a free one."""
        self._host = host
        self._port = port
        self._context = context
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        """The address that clients use, for example ``mqtt://127.0.0.1:40123``; known once the broker runs."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'mqtts' if self._context else 'mqtt'}://{host}:{self._port}"

    async def __aenter__(self) -> Self:
        """Start listening. Raises DependencyMissing without amqtt, LinkError when the port cannot be had."""
        self._broker = _broker()
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._port, backlog=BACKLOG, ssl=self._context
            )
        except OSError as error:
            raise LinkError(f"cannot listen: {error}", where=f"{self._host}:{self._port}") from error
        self._port = self._server.sockets[0].getsockname()[1]
        await self._broker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the listener and every connection, and wait until nothing is left running.

        What clients have not read yet is lost: flushing it would wait for one that stopped reading.
        """
        self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        await self._broker.shutdown()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter

        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            await self._broker.external_connected(StreamReaderAdapter(reader), StreamWriterAdapter(writer), LISTENER)
        except Exception as error:
            _log.warning("%s: the embedded broker dropped a client: %r", LinkError.code, error)
        finally:
            del self._connections[task]
            writer.transport.abort()


def _broker() -> "RepairedBroker":
    """Return amqtt's broker, its loggers at WARNING unless someone set them: below that it logs payloads."""
    try:
        from datasync.transport.amqtt_broker import RepairedBroker
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("amqtt"):
            raise
        raise DependencyMissing("the embedded broker needs amqtt", fix="pip install 'datasync[demo]'") from error
    for name in ("amqtt", "transitions"):
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
    return RepairedBroker()
