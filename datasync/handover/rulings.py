"""Rulings: what becomes of one collection when a device goes to an operator's edge, by verdict and by consent.

What a verdict requires is asked of the statements that the source has when the device has left, with those that came
with its attach: of those of all the device's streams of the collection the latest counts, and at the same stamp a
refusal beats a consent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from datasync.policy.answers import without_consent
from datasync.policy.compiled import Policy, Verdict
from datasync.policy.verdicts import BETWEEN, WITHIN, moved, verdict
from datasync.store.consents import Consent

DROP = "drop"

NO_POLICY, NO_CONSENT, NO_RULE, BY_RULE, NO_FIELD = "no policy", "no consent", "no rule", "by rule", "no field"
"""Why nothing of a collection moves."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of one collection. ``why`` says what keeps it here, and is empty when something moves."""

    verdict: Verdict
    why: str = ""

    @property
    def action(self) -> str:
        """What is done: the verdict's action, or nothing."""
        return DROP if self.why else self.verdict.action

    @property
    def is_plain(self) -> bool:
        """Whether the original segments move, on no terms."""
        asked = replace(self.verdict, rule=None, requires=frozenset(), action="move")
        return self.action in ("move", "copy") and asked == WITHIN


def rule(policy: Policy | None, giver: str, taker: str, collection: str, said: Sequence[Consent]) -> Ruling:
    """Return what becomes of a collection of which the device's streams said this, from operator to operator."""
    if policy is None:
        return Ruling(WITHIN) if giver == taker else Ruling(BETWEEN, NO_POLICY)
    found = verdict(policy, giver, taker, collection)
    if found.action == DROP:
        return Ruling(found, NO_RULE if found.rule is None else BY_RULE)
    if any(not _is_given(policy, word, said) for word in found.requires):
        return Ruling(found, NO_CONSENT)
    schema = policy.collections.get(collection)
    if schema is not None and not moved(found, schema):
        return Ruling(found, NO_FIELD)
    return Ruling(found)


def _is_given(policy: Policy, word: str, said: Sequence[Consent]) -> bool:
    of_word = [each for each in said if each.purpose == word]
    latest = max(of_word, key=lambda each: (each.stamp, not each.given), default=None)
    return without_consent(policy, word, {} if latest is None else {word: latest.given}) is None
