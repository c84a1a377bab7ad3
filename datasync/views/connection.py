"""A connection to a node's HTTP API, over TLS to the node that was meant.

The node's certificate is verified by its operator's authority, and must be a node's: a broker's has the same name and
host, and must not be given tokens. Then it must carry the node's name, or, where no name is given, the host of the
address, which ``datasync enroll … --host`` puts into it. Without an authority the address is
believed as a browser would: by the authorities that this machine trusts, as for a proxy with a certificate of theirs.
"""

import http.client
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, PeerRefused
from datasync.domain.ids import node_name
from datasync.security.tls import NODES, Caller, calling
from datasync.security.trust import Trust

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Known:
    """How a node is to be known: ``ca`` is the file with its operator's authority, ``peer`` its name."""

    ca: Path | None = None
    peer: str = ""


def connection(address: SplitResult, known: Known) -> http.client.HTTPConnection:
    """Return a connection to a node, which opens with its first request. Raises ConfigError, later PeerRefused."""
    host, port = address.hostname or "", address.port
    if address.scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    if known.ca is None:
        if known.peer:
            raise ConfigError(f"{known.peer} cannot be known without its operator's authority", fix="give its ca")
        return _NodeConnection(host, port, ssl.create_default_context(), None)
    trust = Trust.load(known.ca)
    context = calling(trust)
    context.check_hostname = not known.peer
    return _NodeConnection(host, port, context, _caller(known.peer, trust, context))


def is_address(url: str) -> bool:
    """Whether ``url`` could be a node's."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


class _NodeConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, port: int | None, context: ssl.SSLContext, caller: Caller | None) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S, context=context)
        self._caller = caller

    def connect(self) -> None:
        """Connect, and check who is there before anything is said."""
        try:
            super().connect()
            if self._caller is not None:
                self._caller.check(self.sock.getpeercert(binary_form=True))
        except ssl.SSLCertVerificationError as error:
            raise PeerRefused(
                error.verify_message or str(error),
                where=self.host,
                fix="give the authority's PEM that vouches for the node, and the node's name if it has no such host",
            ) from error
        except PeerRefused:
            self.close()
            raise


def _caller(peer: str, trust: Trust, context: ssl.SSLContext) -> Caller:
    try:
        name = node_name(peer) if peer else None
        return Caller(name, trust, context, lambda: Instant(time.time_ns() // 1_000_000, 0), NODES)
    except ValueError as error:
        raise ConfigError(str(error)) from error
