"""A device's journeys: one record in the store for each attach, from the move to the edge that has everything."""

from dataclasses import replace

from sqlalchemy import Connection

from datasync.domain.ids import NodeName
from datasync.handover.whereabouts import Whereabouts
from datasync.protocol.messages import Attached
from datasync.store import handovers
from datasync.store.handovers import Handover


def begin(tx: Connection, moved: Whereabouts, origin: NodeName | None, now_ms: int) -> None:
    """Note that the device is on its way; ``origin`` is the edge that served it until now."""
    journey = Handover(
        handover=_name(moved.incarnation, moved.epoch),
        device=moved.device,
        role="device",
        peer=moved.edge,
        phase="attaching",
        incarnation=moved.incarnation,
        epoch=moved.epoch,
        planned=moved.handover is not None,
        started_ms=now_ms,
        frozen_ms=now_ms,
        detail={"from": origin},
    )
    handovers.put(tx, journey)


def end(tx: Connection, attached: Attached, now_ms: int) -> None:
    """Note that an edge serves the device, and when it has all of its state."""
    journey = handovers.get(tx, _name(attached.incarnation, attached.epoch))
    if journey is not None:
        active_ms = journey.active_ms or now_ms
        finished_ms = now_ms if attached.mode == "full" else None
        handovers.put(tx, replace(journey, phase=attached.mode, active_ms=active_ms, finished_ms=finished_ms))


def _name(incarnation: int, epoch: int) -> str:
    return f"{incarnation:016x}{epoch:016x}"
