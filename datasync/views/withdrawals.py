"""Withdrawals: the streams that their subject took back, so that nobody may read them for any purpose.

Whether a purpose may read is the very condition of the views. A purpose that needs a consent and was never given one
does not keep a stream; one that needs none does. Without any withdrawal nothing was taken back.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, FromClause, ScalarSelect, and_, func, or_, select

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.store import ageing, tables
from datasync.views.consent import condition


def withdrawn(
    tx: Connection, streams: Iterable[StreamId], bases: Mapping[str, str], before: HybridTime
) -> set[StreamId]:
    """Return those of the streams that hold something, and of which all was taken back before a time.

    ``bases`` are the purposes for which anyone may read the streams, with what each is based on; streams that nobody
    may read at all are not concerned.
    """
    if not bases:
        return set()
    asked, segments = tables.streams, tables.segments
    readable = or_(*(condition(basis, purpose, asked) for purpose, basis in bases.items()))
    holds = select(segments.c.id).where(segments.c.stream_id == asked.c.stream_id).correlate(asked).exists()
    old = _last_withdrawal(asked, bases) < before.pack()
    chosen = asked.c.stream_id.in_(list(streams))
    return set(tx.scalars(select(asked.c.stream_id).where(chosen, holds, old, ~readable)))


def _last_withdrawal(asked: FromClause, purposes: Iterable[str]) -> ScalarSelect[int]:
    """Return the stamp of the newest withdrawal of any of the purposes; null when there is none."""
    said, other = tables.consents, tables.streams.alias("other")
    spoken = and_(said.c.stream_id == other.c.stream_id, said.c.purpose.in_(list(purposes)), said.c.given.is_(False))
    newest = select(func.max(said.c.stamp)).select_from(other.join(said, spoken))
    return newest.where(ageing.together(asked, other)).correlate(asked).scalar_subquery()
