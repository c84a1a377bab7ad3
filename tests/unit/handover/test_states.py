"""The state tables."""

import itertools

import pytest

from datasync.domain.errors import EventUnexpected
from datasync.handover.states import (
    DEVICE,
    EDGE,
    DeviceEvent,
    DeviceState,
    EdgeEvent,
    EdgeState,
    device_next,
    edge_next,
)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(EdgeState, EdgeEvent)))
def test_an_edge_follows_the_table_and_nothing_else(state: EdgeState, event: EdgeEvent) -> None:
    if (state, event) in EDGE:
        assert edge_next(state, event) is EDGE[state, event]
    else:
        with pytest.raises(EventUnexpected, match=f"{state}.*{event}"):
            edge_next(state, event)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(DeviceState, DeviceEvent)))
def test_a_device_follows_the_table_and_nothing_else(state: DeviceState, event: DeviceEvent) -> None:
    if (state, event) in DEVICE:
        assert device_next(state, event) is DEVICE[state, event]
    else:
        with pytest.raises(EventUnexpected):
            device_next(state, event)


def test_only_a_token_that_names_the_edge_thaws_it() -> None:
    left = [event for event in EdgeEvent if edge_next_or_same(EdgeState.FROZEN, event) is EdgeState.CATCHING_UP]
    assert left == [EdgeEvent.ATTACH]
    assert (EdgeState.FROZEN, EdgeEvent.EXPIRE) not in EDGE


def test_an_edge_becomes_active_only_by_catching_up() -> None:
    assert [pair for pair, after in EDGE.items() if after is EdgeState.ACTIVE] == [
        (EdgeState.CATCHING_UP, EdgeEvent.CAUGHT_UP)
    ]


def test_every_state_of_an_edge_that_serves_is_frozen_by_a_newer_token() -> None:
    for state in (EdgeState.CATCHING_UP, EdgeState.ACTIVE, EdgeState.FROZEN):
        assert EDGE[state, EdgeEvent.FENCE] is EdgeState.FROZEN


def edge_next_or_same(state: EdgeState, event: EdgeEvent) -> EdgeState:
    return EDGE.get((state, event), state)
