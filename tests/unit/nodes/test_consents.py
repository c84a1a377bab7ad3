"""Consent on its way: said at the device, obeyed at its edge and at the next one, whatever happens meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from datasync.domain.ids import NodeName
from datasync.handover.states import EdgeState
from datasync.nodes.links import BACKBONE
from datasync.nodes.node import Activate, ConsentInput, Move, Outgoing
from datasync.policy import decide
from datasync.protocol import topics
from datasync.store import consents, streams
from datasync.views.plan import plan
from datasync.views.read import read
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, POLICY, WATCH, Wire, wire

RESEARCH = "test.research"
SCHOLAR = b"  scholar: {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [test.research]}\n"


@pytest.fixture
def net(folder: Path, template: Path) -> Iterator[Wire]:
    """The usual nodes, and a worker that reads for a purpose of which the subject may opt out."""
    with wire(folder, template) as made:
        policy = POLICY.replace(b"revision: 1", b"revision: 2").replace(b"rules:\n", SCHOLAR + b"rules:\n")
        rule = b"  - {id: R2, effect: allow, to: {worker: scholar}, data: steps, fields: [number, label]}\n"
        made.give(CLOUD, Activate(1, policy.replace(b"consent:\n", rule + b"consent:\n")))
        made.wait(500)
        yield made


def seen(net: Wire, edge: NodeName) -> int:
    """Return how many rows the scholar sees at an edge."""
    wired = net.nodes[edge]
    policy = wired.node.policy
    assert policy is not None
    view = plan(policy, decide.worker(policy, "scholar"), "steps", RESEARCH)
    with wired.database.read() as tx:
        return sum(chunk.batch.num_rows for chunk in read(tx, wired.kit.vault, view, net.now))


def say(net: Wire, given: bool, purpose: str = RESEARCH) -> None:
    net.give(WATCH, ConsentInput(9, purpose, given))
    assert net.answers[9] is None


def held(net: Wire, name: NodeName, purpose: str = RESEARCH) -> set[bool]:
    """Return what a node holds of the purpose, over all streams."""
    with net.nodes[name].database.read() as tx:
        device = None if name == CLOUD else WATCH
        known = [each.stream for each in streams.of_device(tx, device)] if device else _all_streams(net)
        return {each.given for each in consents.of_streams(tx, known, purpose)}


def _all_streams(net: Wire) -> list:
    with net.nodes[WATCH].database.read() as tx:
        return [each.stream for each in streams.of_device(tx, WATCH)]


def test_a_withdrawal_holds_at_the_edge_and_reaches_the_cloud(net: Wire) -> None:
    net.record(1, 2, 3)
    assert seen(net, CBD) == 3
    say(net, given=False)
    assert seen(net, CBD) == 0
    net.wait(2_000)
    assert held(net, CLOUD) == {False}
    say(net, given=True)
    assert seen(net, CBD) == 3


@pytest.mark.parametrize("planned", [True, False])
def test_a_withdrawal_moves_with_the_device(net: Wire, planned: bool) -> None:
    net.record(1, 2, 3)
    say(net, given=False)
    net.give(WATCH, Move(5, DOCKS, planned=planned))
    net.wait(2_000)
    assert net.state(DOCKS) is EdgeState.ACTIVE
    assert (net.nodes[DOCKS].shown()["edge-private"], seen(net, DOCKS)) == (3, 0)


@pytest.mark.parametrize("planned", [True, False])
def test_a_withdrawal_during_the_move_is_known_at_the_next_edge_before_it_shows_anything(
    net: Wire, planned: bool
) -> None:
    net.record(1, 2, 3)
    net.lose = lambda each: topics.device_up(WATCH) == each.topic and each.link == DOCKS  # it cannot attach yet
    net.give(WATCH, Move(5, DOCKS, planned=planned))
    net.wait(1_000)
    assert net.device.whereabouts.edge == DOCKS
    say(net, given=False)
    net.lose = lambda _: False
    for _ in range(30):
        net.wait(250)
        assert seen(net, DOCKS) == 0
    assert (net.nodes[DOCKS].shown()["edge-private"], held(net, DOCKS)) == (3, {False})


def test_what_a_silent_source_sends_late_is_not_shown_against_the_subjects_will(net: Wire) -> None:
    net.record(1, 2, 3)
    say(net, given=False)
    from_source = topics.edge_in(DOCKS, CBD)
    from_device = topics.device_up(WATCH)
    attached: list[Outgoing] = []

    def lose(each: Outgoing) -> bool:
        if each.topic == from_device and each.link == DOCKS:
            attached.append(each)
            return len(attached) > 1  # the attach comes through, and nothing that is said after it
        return each.link == BACKBONE and each.topic == from_source

    net.lose = lose
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(6_000)
    assert (net.state(DOCKS), held(net, DOCKS)) == (EdgeState.ACTIVE, {False})
    net.lose = lambda each: each.topic == from_device and each.link == DOCKS
    for _ in range(40):
        net.wait(500)
        assert seen(net, DOCKS) == 0
    assert net.nodes[DOCKS].shown()["edge-private"] == 3


def test_the_last_word_counts_wherever_it_was_said(net: Wire) -> None:
    net.record(1, 2, 3)
    say(net, given=False)
    net.give(WATCH, Move(5, DOCKS, planned=True))
    net.wait(2_000)
    say(net, given=True)
    assert seen(net, DOCKS) == 3
    net.give(WATCH, Move(6, CBD, planned=True))
    net.wait(2_000)
    assert seen(net, CBD) == 3
    say(net, given=False)
    net.wait(2_000)
    assert (seen(net, CBD), held(net, CBD), held(net, CLOUD)) == (0, {False}, {False})


def test_roaming_can_be_allowed_like_a_purpose_and_nothing_else_can(net: Wire) -> None:
    net.record(1)
    say(net, given=True, purpose="roaming")
    assert held(net, CBD, "roaming") == {True}
    net.give(WATCH, ConsentInput(9, "test.guessed", True))
    assert net.answers[9].code == "NOT_FOUND"
