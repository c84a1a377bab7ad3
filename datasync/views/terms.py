"""Terms as a condition on segments: what another operator gave is shown for the purposes that it was given for.

A segment of a derived stream (:mod:`datasync.store.terms`) is in a view only if its terms name the view's purpose and
its time is not over, also when it was not erased yet. Segments without terms are not concerned. The condition is asked
of the base layer; the layers that are joined to it were given on the same terms, or by the device itself.
"""

from sqlalchemy import ColumnElement

from datasync.domain.clock import Instant
from datasync.store import terms


def condition(purpose: str, now: Instant) -> ColumnElement[bool]:
    """Return the condition on ``tables.segments`` for reading for a purpose."""
    return terms.allows(purpose, now.wall_ms)
