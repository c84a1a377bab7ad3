"""What becomes of a model when something that it was trained on is erased: ``erasure.models`` of the policy, by label.

A label that the policy does not mention, or a node without a policy, deletes: who must keep a model says so.
"""

import enum

from datasync.domain.tiers import Tier
from datasync.policy.compiled import Policy


class Fate(enum.IntEnum):
    """Comparable, later is stricter."""

    REPORT = 1
    """It is kept, and is known to be trained on what was erased."""
    RETRAIN = 2
    """It is kept and marked, until another takes its place."""
    DELETE = 3


def fate(policy: Policy | None, label: Tier) -> Fate:
    """Return what the policy does to a model with this label."""
    erasure = None if policy is None else policy.document.erasure
    if erasure is not None:
        for said, what in erasure.models.items():
            if said == label.label:
                return Fate[what.upper()]
    return Fate.DELETE
