"""A bundle: a policy as it travels, under the signature of an operator's policy key."""

from datasync.policy.compiled import Policy
from datasync.protocol import envelope, topics
from datasync.protocol.messages import PolicyBundle
from datasync.security.identity import Identity

MEDIA_TYPE = "application/cose"
"""What a bundle is over HTTP."""


def sign(key: Identity, policy: Policy) -> bytes:
    """Return the bundle of a policy."""
    bundle = PolicyBundle(revision=policy.revision, digest=policy.digest, source=policy.source)
    return envelope.sign(key, topics.POLICY, bundle.encode())
