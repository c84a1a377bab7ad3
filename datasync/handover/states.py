"""The states of an attachment, in one table.

The device is the authority on where it is: it signs a token with a strictly increasing (incarnation, epoch), and
every edge orders what it hears by that pair. An edge therefore never has to guess or to agree with anybody:

- a token that names the edge makes it *catch up* and then become *active*;
- a newer token that names another edge *freezes* it, whatever it was doing; it thaws only by a still newer token
  that names it again, never by a timer;
- a frozen edge gives what it has to the edge of the newer token, *holds* a copy for a while once that edge says
  that it has everything, and then *erases* it.

``PREPARED`` is a promise only: an edge that got ciphertext in advance may drop it at any time. An event that the
table does not list is a defect or an attack: it raises and changes nothing.

Leases will add ``LAPSE`` (active → frozen: the device was not heard of), escrow a second source beside the previous
edges in ``CAUGHT_UP``, and verdicts between operators a choice of what ``TARGET_ACTIVE`` leaves behind. On the
device, ``RECOVERING`` is for one that lost its counter and asks the registrar for a new incarnation.
"""

import enum

from datasync.domain.errors import EventUnexpected


class EdgeState(enum.StrEnum):
    """What an edge is to one device."""

    UNKNOWN = "unknown"
    PREPARED = "prepared"
    CATCHING_UP = "catching-up"
    ACTIVE = "active"
    FROZEN = "frozen"
    HELD = "held"
    ERASED = "erased"


class EdgeEvent(enum.StrEnum):
    """What can happen to an edge's account of a device."""

    PREPARE = "prepare"
    ATTACH = "attach"
    CAUGHT_UP = "caught-up"
    FENCE = "fence"
    TARGET_ACTIVE = "target-active"
    EXPIRE = "expire"
    REVOKE = "revoke"


class DeviceState(enum.StrEnum):
    """Where a device is in attaching."""

    DETACHED = "detached"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    RECOVERING = "recovering"


class DeviceEvent(enum.StrEnum):
    """What can happen to a device's attachment."""

    MOVE = "move"
    CONFIRM = "confirm"


_E, _V = EdgeState, EdgeEvent

EDGE: dict[tuple[EdgeState, EdgeEvent], EdgeState] = {
    (_E.UNKNOWN, _V.PREPARE): _E.PREPARED,
    (_E.UNKNOWN, _V.ATTACH): _E.CATCHING_UP,
    (_E.UNKNOWN, _V.FENCE): _E.ERASED,  # never knew it, or lost its disk: nothing here, and the epoch is now known
    (_E.PREPARED, _V.PREPARE): _E.PREPARED,
    (_E.PREPARED, _V.ATTACH): _E.CATCHING_UP,
    (_E.PREPARED, _V.FENCE): _E.ERASED,  # the attach never came: the copy in advance is no state of its own
    (_E.PREPARED, _V.TARGET_ACTIVE): _E.PREPARED,  # said again, of a move before the one that is prepared
    (_E.PREPARED, _V.EXPIRE): _E.ERASED,
    (_E.CATCHING_UP, _V.ATTACH): _E.CATCHING_UP,
    (_E.CATCHING_UP, _V.CAUGHT_UP): _E.ACTIVE,
    (_E.CATCHING_UP, _V.FENCE): _E.FROZEN,
    (_E.ACTIVE, _V.ATTACH): _E.CATCHING_UP,  # the same edge again, under a newer epoch
    (_E.ACTIVE, _V.FENCE): _E.FROZEN,
    (_E.CATCHING_UP, _V.REVOKE): _E.FROZEN,  # its certificate counts no longer, and so does its token: nobody has a
    (_E.ACTIVE, _V.REVOKE): _E.FROZEN,  # newer one, so nothing is given away and what is here stays in view
    (_E.FROZEN, _V.PREPARE): _E.FROZEN,
    (_E.FROZEN, _V.ATTACH): _E.CATCHING_UP,
    (_E.FROZEN, _V.FENCE): _E.FROZEN,  # a newer token redirects what is owed
    (_E.FROZEN, _V.TARGET_ACTIVE): _E.HELD,
    (_E.HELD, _V.PREPARE): _E.HELD,
    (_E.HELD, _V.ATTACH): _E.CATCHING_UP,
    (_E.HELD, _V.FENCE): _E.FROZEN,  # the next edge may ask us too: give it what is still held
    (_E.HELD, _V.TARGET_ACTIVE): _E.HELD,
    (_E.HELD, _V.EXPIRE): _E.ERASED,
    (_E.ERASED, _V.PREPARE): _E.PREPARED,
    (_E.ERASED, _V.ATTACH): _E.CATCHING_UP,
    (_E.ERASED, _V.FENCE): _E.ERASED,
    (_E.ERASED, _V.TARGET_ACTIVE): _E.ERASED,
}

_D, _W = DeviceState, DeviceEvent

DEVICE: dict[tuple[DeviceState, DeviceEvent], DeviceState] = {
    (_D.DETACHED, _W.MOVE): _D.ATTACHING,
    (_D.ATTACHING, _W.MOVE): _D.ATTACHING,
    (_D.ATTACHING, _W.CONFIRM): _D.ATTACHED,
    (_D.ATTACHED, _W.MOVE): _D.ATTACHING,
    (_D.ATTACHED, _W.CONFIRM): _D.ATTACHED,  # degraded became full
}


def edge_next(state: EdgeState, event: EdgeEvent) -> EdgeState:
    """Return the state after an event at an edge. Raises EventUnexpected when the table does not list it."""
    try:
        return EDGE[state, event]
    except KeyError:
        raise EventUnexpected(f"an edge that is {state} does not expect {event}") from None


def device_next(state: DeviceState, event: DeviceEvent) -> DeviceState:
    """Return the state after an event at a device. Raises EventUnexpected when the table does not list it."""
    try:
        return DEVICE[state, event]
    except KeyError:
        raise EventUnexpected(f"a device that is {state} does not expect {event}") from None
