"""Consent as a condition on segments, so that what a subject does not allow is never fetched or decrypted.

Consent is stated per stream and purpose and signed with the stream's key. The streams that one device has for one
collection speak for the same subject, so the latest statement of any of them counts for all; where the device of a
stream is not known, as in the cloud, a stream speaks for itself. At the same stamp a withdrawal beats a consent. The
condition is part of every query, so a withdrawal takes effect with the next chunk that is read.
"""

from sqlalchemy import ColumnElement, ScalarSelect, and_, case, func, select, true

from datasync.store import tables

NEVER = -1
"""The stamp of a statement that was never made; real stamps are 0 or more."""


def condition(basis: str, purpose: str) -> ColumnElement[bool]:
    """Return the condition on ``tables.segments`` for a purpose of this basis (contract, opt_in or opt_out)."""
    match basis:
        case "contract":
            return true()
        case "opt_in":
            return _latest(purpose, given=True) > _latest(purpose, given=False)
        case "opt_out":
            withdrawn = _latest(purpose, given=False)
            return (withdrawn == NEVER) | (_latest(purpose, given=True) > withdrawn)
        case _:
            raise ValueError(f"there is no consent basis {basis!r}")


def _latest(purpose: str, *, given: bool) -> ColumnElement[int]:
    # Two subqueries, each by primary key or index, rather than one with an OR that would scan all consents.
    own, device = _latest_own(purpose, given), _latest_of_device(purpose, given)
    return case((own > device, own), else_=device)


def _latest_own(purpose: str, given: bool) -> ScalarSelect[int]:
    said, segments = tables.consents, tables.segments
    own = and_(said.c.stream_id == segments.c.stream_id, said.c.purpose == purpose, said.c.given == given)
    return select(func.coalesce(func.max(said.c.stamp), NEVER)).where(own).correlate(segments).scalar_subquery()


def _latest_of_device(purpose: str, given: bool) -> ScalarSelect[int]:
    said, segments = tables.consents, tables.segments
    mine, other = tables.streams.alias("mine"), tables.streams.alias("other")
    same_subject = and_(other.c.device == mine.c.device, other.c.collection == mine.c.collection)
    return (
        select(func.coalesce(func.max(said.c.stamp), NEVER))
        .select_from(mine.join(other, same_subject).join(said, said.c.stream_id == other.c.stream_id))
        .where(mine.c.stream_id == segments.c.stream_id, said.c.purpose == purpose, said.c.given == given)
        .correlate(segments)
        .scalar_subquery()
    )
