"""TLS on a socket that an event loop watches.

The kernel tells of bytes that arrived, not of bytes that OpenSSL has decrypted already: who stops reading while
``pending()`` is above zero is not woken for the rest. And OpenSSL takes one record of 16 KiB in a call, where a socket
takes all it has room for; :class:`TlsSocket` takes as many as there is room for, so that a large packet is not cut up
and copied again for each of them.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from datasync.domain.errors import PeerRefused
from datasync.security.tls import Caller

_WAIT = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsSocket(ssl.SSLSocket):
    """The socket of a connection; ``refusal`` says, if the other end ended it so, why."""

    refusal = ""

    def send(self, data: Any, flags: int = 0) -> int:
        """Send what there is room for; what was not sent must be offered again, and first."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[super().send(rest, flags) :]
            except _WAIT:
                if len(rest) == len(data):
                    raise
                break
        return len(data) - len(rest)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Return what arrived. With TLS 1.3 it is here that a client hears that its certificate was not taken."""
        try:
            return super().recv(buflen, flags)
        except _WAIT:
            raise
        except ssl.SSLError as error:
            self.refusal = error.reason or str(error)
            raise


async def secured(sock: socket.socket, caller: Caller) -> TlsSocket:
    """Return ``sock``, connected and non-blocking, with TLS to the node that was meant. Raises PeerRefused, OSError."""
    caller.context.sslsocket_class = TlsSocket
    tls = caller.context.wrap_socket(sock, do_handshake_on_connect=False)
    assert isinstance(tls, TlsSocket)
    try:
        await _shake_hands(tls)
        caller.check(tls.getpeercert(binary_form=True))
    except ssl.SSLError as error:
        tls.close()
        raise PeerRefused(f"no TLS with {caller.name or 'a node'}: {error.reason or error}") from error
    except BaseException:
        tls.close()
        raise
    return tls


async def _shake_hands(tls: TlsSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            tls.do_handshake()
            return
        except ssl.SSLWantReadError:
            await _when(loop.add_reader, loop.remove_reader, tls)
        except ssl.SSLWantWriteError:
            await _when(loop.add_writer, loop.remove_writer, tls)


async def _when(watch: Callable[..., Any], unwatch: Callable[..., Any], tls: TlsSocket) -> None:
    ready = asyncio.Event()
    watch(tls, ready.set)
    try:
        await ready.wait()
    finally:
        unwatch(tls)
