"""A running node as its HTTP API sees it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from datasync.api.backend import STARTING
from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, StreamId, node_name, operator_of
from datasync.domain.tiers import Place
from datasync.nodes.node import Activate, Change, ConsentInput, Erase, Install, Revoke, StartHandover
from datasync.nodes.shell import Shell, system_clock
from datasync.policy.compiled import Policy
from datasync.protocol import envelope
from datasync.security.revocation import RevocationList
from datasync.security.trust import Trust
from datasync.security.vault import Vault
from datasync.store.database import Database

T = TypeVar("T")


class NodeBackend:
    """Implements :class:`datasync.api.backend.Backend` over a shell: changes become part of its transactions."""

    def __init__(
        self, shell: Shell, database: Database, vault: Vault, registry: CollectorRegistry, admin_token_hash: str
    ) -> None:
        self._shell = shell
        self.database = database
        self.vault = vault
        self.registry = registry
        self.admin_token_hash = admin_token_hash

    @property
    def name(self) -> NodeName:
        """The node's name."""
        return self._shell.node.name

    @property
    def place(self) -> Place:
        """Where the node runs."""
        return self._shell.node.place

    @property
    def operator(self) -> str:
        """Whose node it is."""
        return operator_of(self.name)

    @property
    def trust(self) -> Trust:
        """Whose certificates the node believes, and which of them were revoked."""
        return self._shell.node.kit.trust

    def policy(self) -> Policy | None:
        """Return the active policy."""
        return self._shell.policy

    def now(self) -> Instant:
        """Return the present moment."""
        return system_clock()

    def sign(self, context: str, body: bytes) -> bytes:
        """Return ``body`` as the node signs it for a context."""
        return envelope.sign(self._shell.node.kit.identity, context, body)

    def ready(self) -> list[str]:
        """Return the codes of what keeps the node from serving."""
        missing = [] if self._shell.started.is_set() else [STARTING]
        if self._shell.trouble:
            missing.append(self._shell.trouble)
        if self.policy() is None:
            missing.append("POLICY_MISSING")
        fixed = [name for name in self._shell.node.subscriptions if name]  # a device does its work without its edge
        missing += [f"LINK_DOWN_{name.upper()}" for name in fixed if not self._is_up(name)]
        return missing

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run a change inside the node's next transaction and return its result after the commit."""
        result: T = await self._shell.ask(lambda ticket: Change(ticket, change))
        return result

    async def activate_policy(self, source: bytes) -> Policy:
        """Check, store, activate and pass on a policy. Raises PolicyError; the active policy then stays."""
        policy: Policy = await self._shell.ask(lambda ticket: Activate(ticket, source))
        return policy

    async def install_policy(self, bundle: bytes) -> Policy:
        """Check, store, activate and pass on a signed policy. Raises MessageError and its kinds, PolicyError."""
        policy: Policy = await self._shell.ask(lambda ticket: Install(ticket, bundle))
        return policy

    @property
    def certificate_expires_ms(self) -> int:
        """Until when the node's certificate is valid."""
        return self._shell.node.kit.identity.validity.last_ms

    def revocations(self) -> Sequence[RevocationList]:
        """Return the revocation lists that the node knows."""
        return self.trust.revocations

    async def revoke(self, revocations: bytes) -> RevocationList:
        """Take a signed revocation list and pass it on. Raises MessageError and its kinds."""
        listed: RevocationList = await self._shell.ask(lambda ticket: Revoke(ticket, revocations))
        return listed

    async def say_consent(self, purpose: str, given: bool) -> None:
        """Note, at a device, that its subject allows a purpose or no longer does. Raises NotFound, PolicyMissing."""
        await self._shell.ask(lambda ticket: ConsentInput(ticket, purpose, given))

    async def erase(self, device: NodeName, collection: str | None, everything: bool) -> Sequence[StreamId]:
        """Erase a device's streams here and everywhere; return which. Raises ErasureForeign, NotFound."""
        erased: Sequence[StreamId] = await self._shell.ask(lambda ticket: Erase(ticket, device, collection, everything))
        return erased

    async def start_handover(self, device: str, target: str) -> None:
        """Begin to move a device to another edge. Raises NotFound or HandoverError when that cannot be."""
        names = node_name(device), node_name(target)
        await self._shell.ask(lambda ticket: StartHandover(ticket, *names))

    def _is_up(self, name: str) -> bool:
        return name in self._shell.links_up
