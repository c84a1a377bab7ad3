"""How a node comes by its policy, and what keeps a wrong one out.

A policy travels as a *bundle*: source, revision and digest under the signature of the policy key, a key of its own
that an operator's authority certified for nothing else. Who holds a node, even the cloud, can therefore pass policies
on and make none. A bundle is taken from the policy key of the operator that the node obeys; its revision must
increase, its content be what was signed, and its own tests pass. The new policy is compiled beside the old one, which
stays in force until the transaction is committed, or for good when anything fails.
"""

from collections.abc import Callable

from datasync.domain.errors import (
    MessageError,
    PolicyDigestMismatch,
    PolicyRevisionConflict,
    SignerForeign,
)
from datasync.domain.limits import BUNDLE_BYTES_MAX
from datasync.nodes.node import Node, Turn
from datasync.policy.compiled import Policy
from datasync.policy.loading import load
from datasync.protocol import bundle, envelope, topics
from datasync.protocol.messages import PolicyBundle, decode
from datasync.security.identity import Identity, Role
from datasync.security.trust import Peer
from datasync.store import audit, policies
from datasync.store.audit import Event


class Rollout:
    """One node's way from policy to policy.

    ``operator`` is whose policy key the node obeys. ``finish`` is called before a policy is replaced, ``pass_on`` with
    the bundle of the new one after it.
    """

    def __init__(
        self, node: Node, operator: str, finish: Callable[[Turn], None], pass_on: Callable[[Turn, bytes], None]
    ) -> None:
        self._node = node
        self._operator = operator
        self._finish = finish
        self._pass_on = pass_on

    def activate(self, turn: Turn, source: bytes, key: Identity | None = None) -> Policy:
        """Adopt a policy by this node's own authority, signed if there is a key, and return it. Raises PolicyError."""
        policy = self._newer(source)
        self._adopt(turn, policy, b"" if key is None else bundle.sign(key, policy), audit.ADMINISTRATOR)
        return policy

    def install(self, turn: Turn, signed: bytes) -> Policy:
        """Adopt the policy of a bundle and return it. Raises MessageError and its kinds, PolicyError."""
        opened = envelope.verify(signed, topics.POLICY, self._node.kit.trust, turn.now, bytes_max=BUNDLE_BYTES_MAX)
        said = decode(opened.body)
        if not isinstance(said, PolicyBundle):
            raise MessageError(f"a {said.t} is no policy")
        self._check_signer(opened.peer)
        policy = self._signed(said)
        self._adopt(turn, policy, signed, audit.ADMINISTRATOR)
        return policy

    def take(self, turn: Turn, peer: Peer, said: PolicyBundle) -> None:
        """Adopt the policy of a bundle that arrived, unless it is the active one: brokers repeat what they retain."""
        self._check_signer(peer)
        active = self._node.policy
        if active is None or (said.revision, said.digest) != (active.revision, active.digest):
            self._adopt(turn, self._signed(said), turn.arrival.payload, peer.name)

    def _check_signer(self, peer: Peer) -> None:
        if peer.role is not Role.POLICY:
            raise SignerForeign(f"{peer.role} {peer.name} signed the policy, which is for a policy key to do")
        if peer.operator != self._operator:
            raise SignerForeign(f"{self._node.name} takes its policy from {self._operator}, not from {peer.operator}")

    def _signed(self, said: PolicyBundle) -> Policy:
        active = self._node.policy
        if active is not None and said.revision == active.revision and said.digest != active.digest:
            raise PolicyRevisionConflict(
                f"revision {active.revision} is active with digest {active.digest}, not {said.digest}",
                fix=f"write revision: {active.revision + 1} or more, and sign that",
            )
        policy = self._newer(said.source)
        if (policy.revision, policy.digest) != (said.revision, said.digest):
            raise PolicyDigestMismatch(
                f"revision {said.revision} with digest {said.digest} was signed, and what came with it is "
                f"revision {policy.revision} with digest {policy.digest}",
                fix="sign the file again",
            )
        return policy

    def _newer(self, source: bytes) -> Policy:
        """Load a policy that could become the active one, which runs its own tests. Raises PolicyError."""
        active = self._node.policy
        return load(source, name="policy", after_revision=None if active is None else active.revision)

    def _adopt(self, turn: Turn, policy: Policy, signed: bytes, actor: str) -> None:
        self._finish(turn)
        policies.add(
            turn.tx,
            policies.StoredPolicy(
                revision=policy.revision,
                digest=policy.digest,
                source=policy.source,
                bundle=signed,
                received_ms=turn.now.wall_ms,
            ),
        )
        policies.activate(turn.tx, policy.revision)
        detail = {"id": policy.document.id[:128], "revision": policy.revision}
        audit.append(turn.tx, Event.POLICY_ACTIVATED, actor, policy.digest, detail, turn.now.wall_ms)
        self._node.policy = policy
        self._pass_on(turn, signed)
