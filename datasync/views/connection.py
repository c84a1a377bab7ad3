"""A connection to a node's HTTP API, over TLS to the node that was meant.

The node's certificate is verified by its operator's authority, and must be a node's: a broker's has the same name and
host, and must not be given tokens. Then it must carry the node's name, or, where no name is given, the host of the
address, which ``datasync enroll … --host`` puts into it. Without an authority the address is
believed as a browser would: by the authorities that this machine trusts, as for a proxy with a certificate of theirs.

The client shows a certificate of its own if it has one. With TLS 1.3 it hears only after its own handshake whether the
node takes that, and this node's server then ends the connection without a word.
"""

import http.client
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, PeerRefused
from datasync.domain.ids import node_name
from datasync.security.certificates import NODES
from datasync.security.tls import Caller, calling, show
from datasync.security.trust import Trust

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Known:
    """How both ends of a connection know each other.

    ``ca`` is the file with the authority of the node's operator, ``peer`` the node's name; ``identity`` the folder with
    the certificate and key that are shown to it, made by ``datasync enroll``.
    """

    ca: Path | None = None
    peer: str = ""
    identity: Path | None = None


def connection(address: SplitResult, known: Known) -> http.client.HTTPConnection:
    """Return a connection to a node, which opens with its first request. Raises ConfigError, later PeerRefused."""
    host, port = address.hostname or "", address.port
    if address.scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    if known.ca is None:
        if known.peer:
            raise ConfigError(f"{known.peer} cannot be known without its operator's authority", fix="give its ca")
        context = ssl.create_default_context()
        if known.identity is not None:
            show(context, known.identity)
        return _NodeConnection(host, port, context, None, known.identity)
    trust = Trust.load(known.ca)
    context = calling(trust, known.identity)
    context.check_hostname = not known.peer
    return _NodeConnection(host, port, context, _caller(known.peer, trust, context), known.identity)


def is_address(url: str) -> bool:
    """Whether ``url`` could be a node's."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def require_credentials(url: str, token: str | None, known: Known) -> None:
    """Raise ConfigError unless there is a token, or a certificate and TLS to show it in."""
    if not token and (known.identity is None or urlsplit(url).scheme != "https"):
        fix = "give a token (--token-file or DATASYNC_TOKEN), or over https a certificate (--cert or DATASYNC_CERT)"
        raise ConfigError("nothing says who asks", fix=fix)


class _NodeConnection(http.client.HTTPSConnection):
    def __init__(
        self, host: str, port: int | None, context: ssl.SSLContext, caller: Caller | None, identity: Path | None
    ) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S, context=context)
        self._caller = caller
        self._identity = identity

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

    def request(self, *arguments: Any, **options: Any) -> None:
        """Send a request. Raises PeerRefused, as :meth:`getresponse`."""
        if self.sock is None:
            self.connect()
        with self._taken():
            super().request(*arguments, **options)

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the answer. Raises PeerRefused when there is none, as when the node does not take the certificate."""
        with self._taken():
            return super().getresponse()

    @contextmanager
    def _taken(self) -> Iterator[None]:
        try:
            yield
        except (ssl.SSLError, ConnectionError) as error:
            self.close()
            shown = "no certificate was shown" if self._identity is None else f"the one in {self._identity} was shown"
            raise PeerRefused(
                f"the node ended the connection before it answered: {shown}, and it may ask for another",
                where=self.host,
                fix="show one that its operator trusts and that is valid now: --cert FOLDER or DATASYNC_CERT",
            ) from error


def _caller(peer: str, trust: Trust, context: ssl.SSLContext) -> Caller:
    try:
        name = node_name(peer) if peer else None
        return Caller(name, trust, context, lambda: Instant(time.time_ns() // 1_000_000, 0), NODES)
    except ValueError as error:
        raise ConfigError(str(error)) from error
