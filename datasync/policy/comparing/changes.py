"""One thing that a new policy does differently, for people and for programs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datasync.policy.comparing.effects import Effect
from datasync.policy.comparing.sights import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Whom or what is concerned, what the change does, and why.

    ``scope`` and ``name`` are as in worker edge-router, place cloud, purpose improve.train. ``old`` and ``new`` are
    the forms that are seen or held, high to low; empty: none, or this is not about forms.
    """

    effect: Effect
    scope: str
    name: str
    collection: str | None = None
    field: str | None = None
    purpose: str | None = None
    old: tuple[Sight, ...] = ()
    new: tuple[Sight, ...] = ()
    reasons: tuple[str, ...] = ()

    def to_data(self) -> Mapping[str, Any]:
        """Return the change as plain data."""
        return {
            "effect": self.effect.value,
            "scope": self.scope,
            "name": self.name,
            "collection": self.collection,
            "field": self.field,
            "purpose": self.purpose,
            "old": [_form(sight) for sight in self.old],
            "new": [_form(sight) for sight in self.new],
            "reasons": list(self.reasons),
        }


def term(
    effect: Effect, scope: str, name: str, reason: str, collection: str | None = None, field: str | None = None
) -> Iterator[Change]:
    """Yield the change of one term, unless it changes nothing."""
    if effect is not Effect.NOTHING:
        yield Change(
            effect=effect, scope=scope, name=name, collection=collection, field=field, reasons=(reason,)
        )  # fmt: skip


def _form(sight: Sight) -> Mapping[str, Any]:
    return {
        "tier": sight.form.tier.label,
        "chain": list(sight.form.chain),
        "made": sight.words,
        "rows": list(sight.rows.texts),
    }
