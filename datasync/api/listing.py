"""What the administrator's lists show: queries over several tables, one page at a time.

A list of a million devices costs as much per page as a list of ten: pages go by key, never by offset.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from datasync.api import models
from datasync.domain.errors import RequestError
from datasync.domain.ids import NodeName, operator_of
from datasync.store import audit, decisions, revisions, tables
from datasync.store.handovers import VERDICTS
from datasync.store.segments import State

T = TypeVar("T")


def devices(tx: Connection, page: models.Page) -> models.Devices:
    """Return attached and known devices by name, each with what of its data waits here."""
    key = tables.attachments.c.device
    rows, following = _page(tx, select(tables.attachments), key, page)
    names = [row.device for row in rows]
    waiting, follow = _waiting(tx, names), revisions.of(tx, names)
    listed = [
        models.Device.model_validate(row).model_copy(
            update={
                "waiting": waiting.get(row.device, models.Waiting()),
                "policy_revision": follow.get(row.device),
            }
        )
        for row in rows
    ]
    return models.Devices(devices=listed, next=following)


def edges(tx: Connection, page: models.Page) -> models.Edges:
    """Return the edges by name, each with how many devices it serves."""
    known, attached = tables.peers, tables.attachments
    served = (
        select(attached.c.edge, func.count().label("devices"))
        .where(attached.c.edge.is_not(None))
        .group_by(attached.c.edge)
        .subquery("served")
    )
    query = (
        select(
            known.c.name,
            known.c.address,
            known.c.load,
            known.c.seen_ms,
            func.coalesce(served.c.devices, 0).label("devices"),
        )
        .outerjoin_from(known, served, served.c.edge == known.c.name)
        .where(known.c.role == "edge")
    )
    rows, following = _page(tx, query, known.c.name, page)
    follow = revisions.of(tx, [row.name for row in rows])
    listed = [
        models.Edge(
            name=row.name,
            operator=operator_of(NodeName(row.name)),
            address=row.address,
            load=row.load,
            policy_revision=follow.get(row.name),
            seen_ms=row.seen_ms,
            devices=row.devices,
        )
        for row in rows
    ]
    return models.Edges(edges=listed, next=following)


def workers(tx: Connection, page: models.Page, in_policy: frozenset[str]) -> models.Workers:
    """Return the registered workers by name; ``in_policy`` are those that the active policy names."""
    table = tables.workers
    query = select(table.c.worker_id.label("worker"), table.c.created_ms, table.c.expires_ms, table.c.purposes)
    rows, following = _page(tx, query, table.c.worker_id, page)
    listed = [
        models.WorkerSummary(
            worker=row.worker,
            created_ms=row.created_ms,
            expires_ms=row.expires_ms,
            purposes=None if row.purposes is None else json.loads(row.purposes),
            in_policy=row.worker in in_policy,
        )
        for row in rows
    ]
    return models.Workers(workers=listed, next=following)


def policies(tx: Connection) -> models.Policies:
    """Return every revision, the newest first, without its text."""
    table = tables.policies
    query = select(table.c.revision, table.c.digest, table.c.received_ms, table.c.active)
    rows = tx.execute(query.order_by(table.c.revision.desc()).limit(models.PAGE_MAX))
    return models.Policies(policies=[models.PolicySummary.model_validate(row) for row in rows])


def handovers(tx: Connection, page: models.HandoverPage) -> models.Handovers:
    """Return the handovers, the newest first."""
    table = tables.handovers
    conditions: list[ColumnElement[bool]] = []
    if page.device is not None:
        conditions.append(table.c.device == page.device)
    if page.phase is not None:
        conditions.append(table.c.phase == page.phase)
    if page.after is not None:
        started_ms, handover = _handover_key(page.after)
        same = and_(table.c.started_ms == started_ms, table.c.handover > handover)
        conditions.append(or_(table.c.started_ms < started_ms, same))
    order = (table.c.started_ms.desc(), table.c.handover)
    found = tx.execute(select(table).where(*conditions).order_by(*order).limit(page.limit + 1)).all()
    rows, more = found[: page.limit], len(found) > page.limit
    listed = [
        models.Handover.model_validate({**row._mapping, "verdicts": json.loads(row.detail).get(VERDICTS, {})})
        for row in rows
    ]
    return models.Handovers(handovers=listed, next=f"{rows[-1].started_ms}.{rows[-1].handover}" if more else None)


def log(tx: Connection, page: models.LogPage) -> models.Log:
    """Return the log of views or of administration in its order."""
    if page.kind != "views":
        event = None if page.kind == "administration" else page.kind
        logged = audit.page(tx, after=page.after, limit=page.limit, event=event)
        return models.Log(entries=[], administration=[models.AuditEntry.model_validate(each) for each in logged])
    entries = [
        models.LogEntry.model_validate({"number": entry.number, "hash": entry.hash} | asdict(entry.decision))
        for entry in decisions.page(tx, after=page.after, limit=page.limit)
    ]
    return models.Log(entries=entries, administration=[])


def _page(
    tx: Connection, query: Select[Any], key: ColumnElement[str], page: models.Page
) -> tuple[Sequence[Any], str | None]:
    if page.after is not None:
        query = query.where(key > page.after)
    found = tx.execute(query.add_columns(key.label("page_key")).order_by(key).limit(page.limit + 1)).all()
    rows = found[: page.limit]
    return rows, rows[-1].page_key if len(found) > page.limit else None


def _waiting(tx: Connection, names: Sequence[str]) -> dict[str, models.Waiting]:
    streams, segments = tables.streams, tables.segments
    sums = (
        func.count().label("segments"),
        func.sum(segments.c.rows).label("rows"),
        func.sum(segments.c.bytes).label("bytes"),
    )
    query = (
        select(streams.c.device, *sums)
        .join_from(streams, segments, segments.c.stream_id == streams.c.stream_id)
        .where(streams.c.device.in_(names), segments.c.state == int(State.WAITING))
        .group_by(streams.c.device)
    )
    return {row.device: models.Waiting.model_validate(row) for row in tx.execute(query)}


def _handover_key(after: str) -> tuple[int, str]:
    started_ms, _, handover = after.partition(".")
    if not started_ms.isdecimal() or len(started_ms) > 18 or not handover:
        raise RequestError("the parameter 'after' is not the `next` of another page")
    return int(started_ms), handover
