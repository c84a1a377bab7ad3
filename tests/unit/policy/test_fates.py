"""What a policy does to models whose data is erased, by their label; what it does not mention is deleted."""

import pytest

from datasync.domain.tiers import Tier
from datasync.policy import fates
from datasync.policy.fates import Fate
from datasync.policy.loading import load

POLICY = """
schema: datasync.policy/v1
id: fates
revision: 1
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme]
purposes: [improve]
transforms: {}
collections: {steps: {kind: stream, subject: who, fields: {who: {type: string, tier: public}}}}
workers: {coach: {place: edge, operator: acme, kind: train, clearance: public, purposes: [improve]}}
rules: [{id: R1, effect: allow, to: {worker: coach}, data: steps, fields: '*'}]
"""


@pytest.mark.parametrize(
    ("erasure", "expected"),
    [
        ("", (Fate.DELETE, Fate.DELETE, Fate.DELETE)),
        ("erasure: {shred: immediately, compact: 24h}", (Fate.DELETE, Fate.DELETE, Fate.DELETE)),
        (
            "erasure: {shred: immediately, compact: 24h, models: {edge-private: retrain, public: report}}",
            (Fate.REPORT, Fate.RETRAIN, Fate.DELETE),
        ),
    ],
)
def test_a_label_has_the_fate_that_the_policy_says(erasure: str, expected: tuple[Fate, ...]) -> None:
    policy = load((POLICY + erasure).encode())
    assert tuple(fates.fate(policy, tier) for tier in Tier) == expected


def test_without_a_policy_all_are_deleted() -> None:
    assert {fates.fate(None, tier) for tier in Tier} == {Fate.DELETE}
