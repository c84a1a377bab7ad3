"""What an edge notes about handovers, for administrators and for the figures of how long each part took.

Both edges of a handover note it under the same id. What a target decides by its record is only whom it was prepared by.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection

from datasync.domain.ids import HandoverId, NodeName
from datasync.handover.machine import Account, Order
from datasync.handover.passage import Passage
from datasync.protocol.parts import AttachToken, DerivedStream
from datasync.store import handovers
from datasync.store.handovers import VERDICTS, Handover

BY_TERMS = "terms"
"""What keeps something of a collection that moves."""


def handover_id(tx: Connection, token: AttachToken) -> HandoverId:
    """Return the id of the handover that a token completes.

    One without preparation, or under the id of another device's, has it from its order.
    """
    if token.handover is not None:
        record = handovers.get(tx, token.handover)
        if record is None or record.device == token.device:
            return HandoverId(token.handover)
    text = f"datasync/handover/{token.device}/{token.incarnation}/{token.epoch}"
    return HandoverId(hashlib.sha256(text.encode()).hexdigest()[:32])


def prepare(
    tx: Connection, handover: HandoverId, role: str, device: NodeName, peer: NodeName, order: Order, now_ms: int
) -> None:
    """Note a planned handover, at its source or its target."""
    phase = "preparing" if role == "source" else "prepared"
    handovers.put(tx, _record(handover, role, device, peer, phase, order, planned=True, now_ms=now_ms))


def freeze(tx: Connection, account: Account, token: AttachToken, now_ms: int) -> None:
    """Note at the source that the device has left."""
    _begin(tx, account, token, "source", token.edge, "frozen", now_ms)


def attach(tx: Connection, account: Account, token: AttachToken, now_ms: int) -> None:
    """Note at the target that the device has come."""
    _begin(tx, account, token, "target", account.cold[-1] if account.cold else None, "catching-up", now_ms)


def serve(tx: Connection, account: Account, now_ms: int) -> None:
    """Note at the target that it serves the device, and when it has everything."""
    record = _get(tx, account.handover)
    if record is not None:
        finished_ms = None if account.pending else now_ms
        active_ms = record.active_ms or now_ms
        handovers.put(tx, replace(record, phase=account.mode, active_ms=active_ms, finished_ms=finished_ms))


@dataclass(frozen=True, slots=True)
class Ruled:
    """What became of one collection at its source; ``why`` says what kept it there, as far as anything did."""

    action: str
    rule: str | None
    why: str
    given_segments: int
    given_rows: int
    kept_segments: int
    kept_rows: int


def rule(tx: Connection, handover: HandoverId | None, passage: Passage) -> list[Ruled]:
    """Note at the source what becomes of each collection, and by which rule; return what was not noted before."""
    record = _get(tx, handover)
    ruled = {name: _ruled(passage, name) for name in passage.rulings}
    if record is None or VERDICTS in record.detail:
        return []
    detail = {**record.detail, VERDICTS: {name: asdict(each) for name, each in ruled.items()}}
    handovers.put(tx, replace(record, detail=detail))
    return list(ruled.values())


def take(tx: Connection, handover: HandoverId | None, derived: Iterable[DerivedStream]) -> None:
    """Note at the target by which rules of which operators it has what was made for it, by collection."""
    record = _get(tx, handover)
    told = {each.collection: {"action": "derived", "rule": each.rule, "by": each.operator} for each in derived}
    noted = {} if record is None else record.detail.get(VERDICTS, {})
    if record is not None and told and noted != noted | told:
        handovers.put(tx, replace(record, detail={**record.detail, VERDICTS: noted | told}))


def hold(tx: Connection, account: Account, now_ms: int) -> None:
    """Note at the source that the target has everything."""
    record = _get(tx, account.handover)
    if record is not None:
        handovers.put(tx, replace(record, phase="held", active_ms=now_ms))


def erase(tx: Connection, account: Account, now_ms: int) -> None:
    """Note that a copy is gone."""
    record = _get(tx, account.handover)
    if record is not None:
        handovers.put(tx, replace(record, phase="erased", finished_ms=now_ms))


def set_phase(tx: Connection, handover: HandoverId, phase: str) -> None:
    """Note how far a preparation is."""
    record = _get(tx, handover)
    if record is not None and record.phase != phase:
        handovers.put(tx, replace(record, phase=phase))


def add_up(tx: Connection, handover: HandoverId | None, segments: int, rows: int, size_bytes: int) -> None:
    """Add to what moved."""
    record = _get(tx, handover)
    if record is not None and segments:
        more = (record.segments + segments, record.rows + rows, record.bytes + size_bytes)
        handovers.put(tx, replace(record, segments=more[0], rows=more[1], bytes=more[2]))


def abandon(tx: Connection) -> None:
    """Note that what was being prepared when the node stopped is not any more."""
    for record in handovers.all(tx, phases=["preparing", "ready"]):
        if record.role == "source":
            handovers.put(tx, replace(record, phase="expired"))


def _ruled(passage: Passage, name: str) -> Ruled:
    ruling, tally = passage.rulings[name], passage.tallies[name]
    why = ruling.why or (BY_TERMS if tally.kept_segments else "")
    return Ruled(ruling.action, ruling.verdict.rule, why, **asdict(tally))


def _get(tx: Connection, handover: HandoverId | None) -> Handover | None:
    return None if handover is None else handovers.get(tx, handover)


def _begin(
    tx: Connection,
    account: Account,
    token: AttachToken,
    role: str,
    peer: NodeName | None,
    phase: str,
    now_ms: int,
) -> None:
    assert account.handover is not None
    planned = token.handover is not None
    record = handovers.get(tx, account.handover) or _record(
        account.handover, role, token.device, peer, phase, token.order, planned=planned, now_ms=now_ms
    )
    incarnation, epoch = token.order
    handovers.put(tx, replace(record, phase=phase, incarnation=incarnation, epoch=epoch, frozen_ms=now_ms))


def _record(
    handover: HandoverId,
    role: str,
    device: NodeName,
    peer: NodeName | None,
    phase: str,
    order: Order,
    *,
    planned: bool,
    now_ms: int,
) -> Handover:
    return Handover(
        handover=handover,
        device=device,
        role=role,
        peer=peer,
        phase=phase,
        incarnation=order[0],
        epoch=order[1],
        planned=planned,
        started_ms=now_ms,
    )
