"""Who asks: the administrator, a worker, or nobody.

A bearer token is looked up by its SHA-256, which is all that a node keeps of it. What a caller may open is written at
each route as one of :class:`Access`; what a worker may read is the policy's to say, not this module's.
"""

import enum
import hmac
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from datasync.api.service import Service
from datasync.domain.errors import Forbidden, PurposeForbidden, Unauthenticated
from datasync.store import workers

TOKEN_CHARACTERS_MAX = 512


class Access(enum.Enum):
    """Who may call a route."""

    OPEN = enum.auto()
    WORKER = enum.auto()
    ADMIN = enum.auto()
    WORKER_OR_ADMIN = enum.auto()


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token came with a request: the administrator's, a worker's, or nobody's where none is needed."""

    is_admin: bool = False
    worker: str | None = None
    purposes: tuple[str, ...] | None = None

    def check_purpose(self, purpose: str) -> None:
        """Raise PurposeForbidden when the token was given for other purposes."""
        if self.purposes is not None and purpose not in self.purposes:
            raise PurposeForbidden(
                f"the token of worker {self.worker} is for {', '.join(self.purposes)}, not for {purpose}",
                fix="use the token that was given for it",
            )


async def admit(request: web.Request, service: Service, access: Access) -> Caller:
    """Return who asks. Raises Unauthenticated without a valid token, Forbidden with somebody else's."""
    if access is Access.OPEN:
        return Caller()
    try:
        return await _admit(request, service, access)
    except (Unauthenticated, Forbidden) as refused:
        if access is not Access.WORKER and "Authorization" in request.headers:
            await service.refused_sign_ins.add(request, refused.code)
        raise


async def _admit(request: web.Request, service: Service, access: Access) -> Caller:
    caller = await _caller(_token(request), service)
    if caller.is_admin and access is Access.WORKER:
        raise Forbidden("this is for workers; the administrator's token opens no view")
    if not caller.is_admin and access is Access.ADMIN:
        raise Forbidden(f"this is for the administrator; the token is worker {caller.worker}'s")
    return caller


async def _caller(token: str, service: Service) -> Caller:
    hashed = workers.token_hash(token)
    if hmac.compare_digest(hashed, service.backend.admin_token_hash):
        return Caller(is_admin=True)
    found = await service.read(partial(workers.by_token, hashed=hashed, now=service.backend.now()))
    if found is None:
        raise Unauthenticated("the token is unknown here, was revoked or has expired")
    return Caller(worker=found.worker_id, purposes=found.purposes)


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("this needs a token: send the header 'Authorization: Bearer TOKEN'")
    if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
        raise Unauthenticated("the token is none that a node gives out")
    return token
