"""Cursors: how far a view is read.

A cursor is a position of the store: a segment gets its position when it becomes visible, positions only rise, and a
number is never given twice. So a reader who resumes after a cursor sees what became visible since and nothing twice.
Where a read ends is fixed before it begins, so that the end can be told to the client up front.
"""

from sqlalchemy import Connection, case, func, select

from datasync.domain.clock import Instant
from datasync.store import tables
from datasync.views.plan import ViewPlan

_T = tables.segments


def newest(tx: Connection, plan: ViewPlan, after: int) -> int:
    """Return the position of the newest segment of the plan's base layer, or ``after`` when that is no newer."""
    base = (_T.c.collection == plan.collection, _T.c.tier == int(plan.base))
    return max(after, tx.scalar(select(func.max(_T.c.position)).where(*base)) or 0)


def page_end(tx: Connection, plan: ViewPlan, now: Instant, after: int, rows_max: int) -> int:
    """Return the position to read up to for at most ``rows_max`` rows in whole segments, but at least one segment.

    Rows are counted before rules hide some; segments that the plan's conditions exclude are not counted.
    """
    base = (_T.c.collection == plan.collection, _T.c.tier == int(plan.base), _T.c.position > after)
    ahead = select(_T.c.position, _T.c.rows).where(*base, *plan.conditions(now)).order_by(_T.c.position)
    bounded = ahead.limit(rows_max).subquery("bounded")
    total = func.sum(bounded.c.rows).over(order_by=bounded.c.position).label("total")
    summed = select(bounded.c.position, total).subquery("summed")
    fitting = func.max(case((summed.c.total <= rows_max, summed.c.position)))
    first, last_fitting = tx.execute(select(func.min(summed.c.position), fitting)).one()
    return newest(tx, plan, after) if first is None else int(last_fitting or first)
