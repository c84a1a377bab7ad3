"""What a change does to what may be known: it narrows it, widens it, or cannot be said to do either.

Whoever may know less or as much after a change as before is at no new risk, and only that is worth proving. So two
proofs are tried, that the new gives no more than the old and that the old gives no more than the new, and what has
neither counts as widening, because nobody proved otherwise.
"""

import enum
from collections.abc import Iterable, Set


class Effect(enum.StrEnum):
    """What a change does."""

    NOTHING = "nothing"
    NARROWS = "narrows"
    WIDENS = "widens"
    CHANGES = "changes"
    """Neither is contained in the other, or nobody can tell."""

    @property
    def may_widen(self) -> bool:
        """Whether somebody should sign it off."""
        return self in (Effect.WIDENS, Effect.CHANGES)


def proven(*, no_more: bool, no_less: bool) -> Effect:
    """Return the effect of a change of which it is proven that the new gives no more, or no less, than the old."""
    if no_more:
        return Effect.NOTHING if no_less else Effect.NARROWS
    return Effect.WIDENS if no_less else Effect.CHANGES


def ranked(old: float, new: float) -> Effect:
    """Return the effect of a change from one rank to another, where higher gives more."""
    return proven(no_more=new <= old, no_less=new >= old)


def contained(old: Set[str] | None, new: Set[str] | None) -> Effect:
    """Return the effect of a change from one set to another; None is the set of all."""
    return proven(
        no_more=old is None or (new is not None and new <= old),
        no_less=new is None or (old is not None and old <= new),
    )


def joined(effects: Iterable[Effect]) -> Effect:
    """Return what changes that come together do: what some widen and others narrow just changes."""
    found = {*effects} - {Effect.NOTHING}
    if not found:
        return Effect.NOTHING
    return found.pop() if len(found) == 1 else Effect.CHANGES
