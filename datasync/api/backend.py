"""What a node offers the API; the shell implements it.

The API never writes by itself: a node has one writer, its shell, and a change is handed to it to become part of its
next transaction. Reading has no such need and takes read transactions of its own.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Place
from datasync.policy.compiled import Policy
from datasync.security.revocation import RevocationList
from datasync.security.trust import Trust
from datasync.security.vault import Vault
from datasync.store.database import Database

T = TypeVar("T")

STARTING = "STARTING"
"""The code for a node that has not taken up its state yet, the lists of revoked certificates included."""


class Backend(Protocol):
    """One node, as its API sees it."""

    @property
    def name(self) -> NodeName:
        """The node's name, for example ``acme/cbd``."""
        ...

    @property
    def place(self) -> Place:
        """Where the node runs."""
        ...

    @property
    def operator(self) -> str:
        """Whose node it is."""
        ...

    @property
    def admin_token_hash(self) -> str:
        """SHA-256 of the administrator's token in hexadecimal; empty when there is no administrator."""
        ...

    @property
    def trust(self) -> Trust:
        """Whose certificates the node believes, and which of them were revoked."""
        ...

    @property
    def database(self) -> Database:
        """The node's database."""
        ...

    @property
    def vault(self) -> Vault:
        """What opens the segments at rest."""
        ...

    @property
    def registry(self) -> CollectorRegistry:
        """Where the node's metrics are kept; one application may be made for each registry."""
        ...

    def policy(self) -> Policy | None:
        """Return the active policy; None denies all."""
        ...

    def now(self) -> Instant:
        """Return the present moment."""
        ...

    def sign(self, context: str, body: bytes) -> bytes:
        """Return ``body`` as the node signs it for a context: a COSE_Sign1 with its certificate."""
        ...

    def ready(self) -> list[str]:
        """Return the codes of what keeps the node from serving; empty when it is ready."""
        ...

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run ``change`` inside the node's next transaction and return its result after the commit."""
        ...

    async def activate_policy(self, source: bytes) -> Policy:
        """Check, store, activate and pass on a policy. Raises PolicyError; the active policy then stays."""
        ...

    async def install_policy(self, bundle: bytes) -> Policy:
        """Do the same with a policy that was signed elsewhere. Raises MessageError and its kinds, PolicyError."""
        ...

    @property
    def certificate_expires_ms(self) -> int:
        """Until when the node's certificate is valid, wall time in milliseconds since 1970."""
        ...

    def revocations(self) -> Sequence[RevocationList]:
        """Return the revocation lists that the node knows."""
        ...

    async def revoke(self, revocations: bytes) -> RevocationList:
        """Take a signed revocation list and pass it on. Raises MessageError and its kinds."""
        ...

    async def say_consent(self, purpose: str, given: bool) -> None:
        """Note, at a device, that its subject allows a purpose or no longer does. Raises NotFound, PolicyMissing."""
        ...

    async def erase(self, device: NodeName, collection: str | None, everything: bool) -> Sequence[StreamId]:
        """Erase a device's streams, of one collection or of all, here and everywhere; return which those are.

        When it returns, their keys are destroyed here. Raises ErasureForeign where the device's keys are not, NotFound.
        """
        ...

    async def start_handover(self, device: str, target: str) -> None:
        """Begin to move a device to another edge. Raises NotFound or HandoverError when that cannot be."""
        ...
