"""Consent as a condition on segments, so that what a subject does not allow is never fetched or decrypted.

Consent is stated per stream and purpose and signed with the stream's key. The streams that one device has for one
collection speak for the same subject, so the latest statement of any of them counts for all; where the device of a
stream is not known, as in the cloud, a stream speaks for itself. At the same stamp a withdrawal beats a consent. The
condition is part of every query, so a withdrawal takes effect with the next chunk that is read.
"""

from sqlalchemy import ColumnElement, Connection, FromClause, ScalarSelect, and_, case, func, select, true

from datasync.domain.errors import NotFound
from datasync.domain.ids import StreamId
from datasync.store import consents, streams, tables
from datasync.store.consents import Consent

NEVER = -1
"""The stamp of a statement that was never made; real stamps are 0 or more."""


def condition(basis: str, purpose: str, asked: FromClause = tables.segments) -> ColumnElement[bool]:
    """Return the condition on ``asked``, a table of ``stream_id``, for a purpose of this basis.

    The bases are contract, opt_in and opt_out.
    """
    match basis:
        case "contract":
            return true()
        case "opt_in":
            return _latest(asked, purpose, given=True) > _latest(asked, purpose, given=False)
        case "opt_out":
            withdrawn = _latest(asked, purpose, given=False)
            return (withdrawn == NEVER) | (_latest(asked, purpose, given=True) > withdrawn)
        case _:
            raise ValueError(f"there is no consent basis {basis!r}")


def allowed(tx: Connection, basis: str, purpose: str, stream: StreamId) -> bool:
    """Return whether the subject of a stream allows the purpose: the very condition, asked of one stream."""
    held = select(condition(basis, purpose, tables.streams)).where(tables.streams.c.stream_id == stream)
    return bool(tx.scalar(held))


def deciding(tx: Connection, purpose: str, stream: StreamId) -> Consent | None:
    """Return the statement that decides for a stream: the latest of those that count; None when there is none."""
    return max(
        consents.of_streams(tx, _speaking(tx, stream), purpose),
        key=lambda said: (said.stamp, not said.given),
        default=None,
    )


def stream_of(tx: Connection, subject: str, collection: str) -> StreamId:
    """Return a stream of this collection that speaks for a subject, who is named by a stream or by a device.

    Raises NotFound when the node holds none.
    """
    named = streams.get(tx, [StreamId(subject)])
    known = list(named.values()) or streams.of_device(tx, subject)
    found = next((each.stream for each in known if each.collection == collection), None)
    if found is None:
        raise NotFound(f"there is no stream of {collection} here that {subject} names", fix="name a stream or a device")
    return found


def _speaking(tx: Connection, stream: StreamId) -> list[StreamId]:
    """Return the streams whose statements count for a stream: its own, and those of its device's collection."""
    known = streams.get(tx, [stream]).get(stream)
    if known is None or known.device is None:
        return [stream]
    return [each.stream for each in streams.of_device(tx, known.device) if each.collection == known.collection]


def _latest(asked: FromClause, purpose: str, *, given: bool) -> ColumnElement[int]:
    # Two subqueries, each by primary key or index, rather than one with an OR that would scan all consents.
    own, device = _latest_own(asked, purpose, given), _latest_of_device(asked, purpose, given)
    return case((own > device, own), else_=device)


def _latest_own(asked: FromClause, purpose: str, given: bool) -> ScalarSelect[int]:
    said = tables.consents
    own = and_(said.c.stream_id == asked.c.stream_id, said.c.purpose == purpose, said.c.given == given)
    return select(func.coalesce(func.max(said.c.stamp), NEVER)).where(own).correlate(asked).scalar_subquery()


def _latest_of_device(asked: FromClause, purpose: str, given: bool) -> ScalarSelect[int]:
    said = tables.consents
    mine, other = tables.streams.alias("mine"), tables.streams.alias("other")
    same_subject = and_(other.c.device == mine.c.device, other.c.collection == mine.c.collection)
    return (
        select(func.coalesce(func.max(said.c.stamp), NEVER))
        .select_from(mine.join(other, same_subject).join(said, said.c.stream_id == other.c.stream_id))
        .where(mine.c.stream_id == asked.c.stream_id, said.c.purpose == purpose, said.c.given == given)
        .correlate(asked)
        .scalar_subquery()
    )
