"""Who asks: the administrator, a worker, or nobody.

A caller is known by a client certificate, by a bearer token, or by both, which then must be the same caller's. A
certificate was verified by TLS when the connection began; whether it still counts is asked at every request, so one
that is revoked opens nothing more on a connection that is open. A token is looked up by its SHA-256, which is all that
a node keeps of it. A worker's certificate opens what its registration at this node opens, until when that ends.

The node's own certificate, which is on its machine alone, says nothing about who asks: it lets a prober or a proxy
there connect, and a token then says who it is. What a caller may open is written at each route as one of
:class:`Access`; what a worker may read is the policy's to say, not this module's.
"""

import enum
import hmac
import ssl
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from datasync.api.audit import log_asked
from datasync.api.backend import STARTING
from datasync.api.problems import NotReady
from datasync.api.service import Service
from datasync.domain.errors import (
    CertificateForeign,
    CertificateRefused,
    CertificateRevoked,
    CredentialsDiffer,
    Forbidden,
    PurposeForbidden,
    SignerRevoked,
    SignerUntrusted,
    Unauthenticated,
)
from datasync.security.certificates import NODES, Role
from datasync.security.trust import Peer
from datasync.store import workers
from datasync.store.workers import WorkerToken

TOKEN_CHARACTERS_MAX = 512


class Access(enum.Enum):
    """Who may call a route."""

    OPEN = enum.auto()
    WORKER = enum.auto()
    ADMIN = enum.auto()
    WORKER_OR_ADMIN = enum.auto()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is by: the administrator, a worker, or nobody where that does not matter."""

    is_admin: bool = False
    worker: str | None = None
    purposes: tuple[str, ...] | None = None

    def check_purpose(self, purpose: str) -> None:
        """Raise PurposeForbidden when the worker was registered for other purposes."""
        if self.purposes is not None and purpose not in self.purposes:
            raise PurposeForbidden(
                f"worker {self.worker} is registered here for {', '.join(self.purposes)}, not for {purpose}",
                fix="have it registered for that purpose, too",
            )


async def admit(request: web.Request, service: Service, access: Access) -> Caller:
    """Return who asks.

    Raises Unauthenticated and its kinds when nothing valid says who, Forbidden and its kinds for somebody else, and
    NotReady for certificates until the node knows which were revoked.
    """
    try:
        peer = proved(request, service)
        return Caller() if access is Access.OPEN else await _admit(request, service, access, peer)
    except (Unauthenticated, Forbidden) as refused:
        if access is not Access.WORKER and ("Authorization" in request.headers or _certificate(request) is not None):
            await service.refused_sign_ins.add(request, refused.code)
        raise


def proved(request: web.Request, service: Service) -> Peer | None:
    """Return who a request's connection is, unless it is nobody in particular: without a certificate, or the node.

    Raises CertificateRefused, or CertificateRevoked of its kind, when the certificate counts no longer.
    """
    certificate, backend = _certificate(request), service.backend
    if certificate is None:
        return None
    try:
        peer = backend.trust.verify(certificate, backend.now())
    except SignerRevoked as error:
        raise CertificateRevoked(error.detail) from error
    except SignerUntrusted as error:
        raise CertificateRefused(error.detail, fix=error.fix) from error
    return None if peer.name == backend.name and peer.role in NODES else peer


def _certificate(request: web.Request) -> bytes | None:
    """Return the certificate (DER) that TLS verified."""
    tls: ssl.SSLObject | None = request.get_extra_info("ssl_object")
    return None if tls is None else tls.getpeercert(binary_form=True)


async def _admit(request: web.Request, service: Service, access: Access, peer: Peer | None) -> Caller:
    caller = await _caller(request, service, peer)
    if caller.is_admin and access is Access.WORKER:
        raise Forbidden("this is for workers; an administrator opens no view")
    if not caller.is_admin and access is Access.ADMIN:
        raise Forbidden(f"this is for the administrator; who asks is worker {caller.worker}")
    if caller.is_admin and peer is not None and request.method != "GET":
        await log_asked(service.backend, request, peer.name)
    return caller


async def _caller(request: web.Request, service: Service, peer: Peer | None) -> Caller:
    if peer is None:
        return await _by_token(_token(request), service)
    if STARTING in service.backend.ready():
        raise NotReady([STARTING])  # the lists of revoked certificates are not read yet
    shown = await _by_certificate(peer, service)
    if "Authorization" in request.headers and await _by_token(_token(request), service) != shown:
        raise CredentialsDiffer(f"the token is not that of {peer.role} {peer.name}, whose certificate was shown")
    return shown


async def _by_token(token: str, service: Service) -> Caller:
    hashed = workers.token_hash(token)
    if hmac.compare_digest(hashed, service.backend.admin_token_hash):
        return Caller(is_admin=True)
    found = await service.read(partial(workers.by_token, hashed=hashed, now=service.backend.now()))
    if found is None:
        raise Unauthenticated("the token is unknown here, was revoked or has expired")
    return _worker(found)


async def _by_certificate(peer: Peer, service: Service) -> Caller:
    match peer.role:
        case Role.ADMIN if peer.operator == service.backend.operator:
            return Caller(is_admin=True)
        case Role.WORKER:
            return await _registered(peer, service)
        case Role.ADMIN:
            raise CertificateForeign(f"{peer.name} administers nothing of {service.backend.name}")
        case _:
            raise CertificateForeign(f"the certificate is that of {peer.role} {peer.name}, which is no caller here")


async def _registered(peer: Peer, service: Service) -> Caller:
    policy, worker = service.backend.policy(), peer.name.partition("/")[2]
    named = None if policy is None else policy.workers.get(worker)
    if named is not None and named.operator != peer.operator:
        raise CertificateForeign(f"worker {worker} is {named.operator}'s, and {peer.operator} certified this one")
    found = await service.read(partial(workers.valid, worker_id=worker, now=service.backend.now()))
    if found is None:
        raise Unauthenticated(
            f"worker {worker} is not registered here, or its registration has expired",
            fix=f"an administrator registers it with: datasync enroll worker {worker}",
        )
    return _worker(found)


def _worker(registration: WorkerToken) -> Caller:
    return Caller(worker=registration.worker_id, purposes=registration.purposes)


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("this needs a token: send the header 'Authorization: Bearer TOKEN'")
    if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
        raise Unauthenticated("the token is none that a node gives out")
    return token
