"""Sightings: which streams a worker who trains was shown, in views of which positions.

They are written before the first row of a stream leaves, so whatever the worker read is in here. There is one row for
each worker, collection, purpose and stream, which widens with every reading: of what lies between two readings it says
too much, never too little. A stream that is erased stays listed: what was learned from it is still to be found.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, case, select

from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.store import statements, tables

_T = tables.sightings


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading of a view by a worker: the positions above ``after`` up to ``until``."""

    worker: str
    collection: str
    purpose: str
    after: int
    until: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """A stream that was shown, its tier, and the digest of the policy that let it be shown last."""

    stream: StreamId
    tier: Tier
    policy_digest: str


def add(tx: Connection, reading: Reading, streams: Mapping[StreamId, Tier], policy_digest: str) -> None:
    """Note that a reading under this policy shows these streams."""
    rows = [
        {
            "worker": reading.worker,
            "collection": reading.collection,
            "purpose": reading.purpose,
            "stream_id": stream,
            "tier": int(tier),
            "first": reading.after + 1,
            "last": reading.until,
            "policy_digest": policy_digest,
        }
        for stream, tier in streams.items()
    ]
    made = statements.insert(tx.dialect.name, _T)
    new = made.excluded
    widened = {
        "first": case((_T.c.first < new.first, _T.c.first), else_=new.first),
        "last": case((_T.c.last > new.last, _T.c.last), else_=new.last),
        "policy_digest": new.policy_digest,
    }
    if rows:
        tx.execute(made.on_conflict_do_update(index_elements=list(_T.primary_key), set_=widened), rows)


def within(tx: Connection, reading: Reading) -> list[Sighting]:
    """Return what the worker was shown in these positions for this purpose, by stream."""
    same = [_T.c[name] == getattr(reading, name) for name in ("worker", "collection", "purpose")]
    query = select(_T.c.stream_id, _T.c.tier, _T.c.policy_digest).where(
        *same, _T.c.first <= reading.until, _T.c.last > reading.after
    )
    return [
        Sighting(StreamId(row.stream_id), Tier(row.tier), row.policy_digest)
        for row in tx.execute(query.order_by(_T.c.stream_id))
    ]
