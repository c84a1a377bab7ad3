"""TLS as datasync uses it: version 1.3 alone, and both ends known by certificates of the operators' authorities.

A node is the one that was meant because of who it is, not because of where it was reached: after the handshake its
certificate is verified as the signer of a message is, and must carry the name. Addresses change and resolvers lie;
names are what operators enrol. Only a client that knows no more than an address goes by the host names in a
certificate. OpenSSL checks the chain as well, and refuses before anything is said. No session is resumed, so every
connection shows its certificate anew.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, PeerRefused, SignerUntrusted
from datasync.domain.ids import NodeName
from datasync.security.certificates import NODES, Role
from datasync.security.files import read_private
from datasync.security.identity import CERTIFICATE_FILE, SIGNING_FILE
from datasync.security.trust import Trust

BROKERS = NODES | {Role.BROKER}
"""Who may answer for a node where its broker is called: the broker, or the node with a broker inside."""


@dataclass(frozen=True, slots=True)
class Caller:
    """How a node is called: what to show it, whom to believe, and who it must be.

    Without a ``name`` any node will do that has the host which the context checks.
    """

    name: NodeName | None
    trust: Trust = field(repr=False)
    context: ssl.SSLContext = field(repr=False)
    clock: Callable[[], Instant] = field(repr=False)
    roles: frozenset[Role] = BROKERS

    def check(self, certificate: bytes | None) -> None:
        """Raise PeerRefused unless the certificate (DER) that was shown is that of who was meant."""
        meant = self.name or "a node"
        if certificate is None:
            raise PeerRefused(f"{meant} was called, and showed no certificate")
        try:
            peer = self.trust.verify(certificate, self.clock())
        except SignerUntrusted as error:
            raise PeerRefused(f"{meant} was called, and who answered is not believed: {error}") from error
        if peer.name != (self.name or peer.name) or peer.role not in self.roles:
            raise PeerRefused(f"{meant} was called, and {peer.role} {peer.name} answered")


def calling(trust: Trust, identity: Path | None = None) -> ssl.SSLContext:
    """Return the context of connections to nodes, which show ``identity`` (a folder) if one is given.

    It checks no host name: :meth:`Caller.check` does what is needed instead, or ``check_hostname`` is set. Raises
    ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.hostname_checks_common_name = False
    return _completed(context, trust, identity)


def listening(identity: Path, clients: Trust | None = None, *, required: bool = True) -> ssl.SSLContext:
    """Return the context of a server that shows ``identity`` (a folder).

    With ``clients`` it takes only connections with a certificate of theirs; unless ``required``, those that show none
    besides. Raises ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return _completed(context, clients, identity)


def _completed(context: ssl.SSLContext, trust: Trust | None, identity: Path | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if trust is not None:
        context.load_verify_locations(cadata=b"".join(trust.certificates))
    if identity is not None:
        show(context, identity)
    return context


def show(context: ssl.SSLContext, identity: Path) -> None:
    """Have connections show ``identity``, a folder with a certificate and its key. Raises ConfigError."""
    certificate, key = identity / CERTIFICATE_FILE, identity / SIGNING_FILE
    for path in (certificate, key):
        read_private(path)
    try:
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"TLS cannot use the identity: {error}", where=str(identity)) from error
