"""A device crosses from one operator's edge to another's: what goes along, on which terms, and what becomes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasync.domain.ids import NodeName, node_name, stream_id
from datasync.domain.tiers import Tier
from datasync.handover.states import EdgeState
from datasync.nodes.links import BACKBONE
from datasync.nodes.node import Activate, ConsentInput, Move
from datasync.policy.decide import worker
from datasync.protocol import segment, topics
from datasync.protocol.messages import Delta, Prepare
from datasync.protocol.parts import DerivedStream
from datasync.store import handovers, segments, streams, terms
from datasync.store.segments import State
from datasync.views.plan import plan
from datasync.views.read import read
from tests.unit.nodes.wire import CBD, CLOUD, POLICY, WATCH, Wire, wire

PIER, QUAY = node_name("globex/pier"), node_name("globex/quay")
NARROW = (
    "{id: H1, from: acme, to: globex, data: steps, action: pseudonymise, fields: [who, number],"
    " purposes: [test.run], requires: [roaming], retain: 60s, onward: false}"
)


def crossing(*rules: str, revision: int = 1) -> bytes:
    """Return the wire's policy for two operators, with rules of handover."""
    source = POLICY.decode()
    for old, new in (
        ("revision: 1", f"revision: {revision}"),
        ("operators: [acme]", "operators: [acme, globex]"),
        (
            "rules:",
            "  guest: {place: edge, operator: globex, kind: infer, clearance: edge-private,"
            " purposes: [test.run, test.research]}\nrules:",
        ),
        (
            "consent:",
            "  - {id: R2, effect: allow, to: {worker: guest}, data: steps, fields: [who, number, label]}\nconsent:",
        ),
    ):
        source = source.replace(old, new, 1)
    return (source + "handover:" + "".join(f"\n  - {rule}" for rule in rules) + "\n" if rules else source).encode()


@pytest.fixture
def net(folder: Path, template: Path) -> Iterator[Wire]:
    """Acme's edge, where the device is, and two of another operator; what crosses is narrowed."""
    with wire(folder, template, (CBD, PIER, QUAY), crossing(NARROW)) as made:
        yield made


def cross(net: Wire, to: NodeName = PIER, *, roaming: bool | None = True) -> None:
    """Record three rows, say whether they may cross, and go to another edge."""
    if roaming is not None:
        net.give(WATCH, ConsentInput(7, "roaming", roaming))
    net.record(1, 2, 3)
    net.give(WATCH, Move(5, to, planned=False))
    net.wait(1_500)


def columns(net: Wire, name: NodeName) -> list[tuple[str, dict[str, Any]]]:
    """Return everything that can be read at a node, by tier, whether it may be seen or not."""
    wired, found = net.nodes[name], []
    with wired.database.read() as tx:
        for each in segments.page(tx, after_id=0, limit=1_000):
            body = segments.bodies(tx, [each.id])[each.id]
            plain = wired.kit.vault.decrypt(each.stream, each.key_id, each.seq_first, body)
            batch, _ = segment.rows(segment.parse(plain))
            found += [(each.tier.label, row) for row in (batch.to_pylist() or [{}] * each.rows)]
            found += [(each.tier.label, {})] * (each.rows - batch.num_rows)
    return found


def seen(net: Wire, name: NodeName, purpose: str = "test.run") -> list[dict[str, Any]]:
    """Return what the guest's view shows at a node."""
    wired = net.nodes[name]
    policy = wired.node.policy
    assert policy is not None
    made = plan(policy, worker(policy, "guest"), "steps", purpose, operator="globex")
    with wired.database.read() as tx:
        return [row for chunk in read(tx, wired.kit.vault, made, net.now) for row in chunk.batch.to_pylist()]


def verdicts(net: Wire, name: NodeName) -> dict[str, Any]:
    with net.nodes[name].database.read() as tx:
        return dict(handovers.all(tx, device=WATCH)[0].detail["verdicts"]["steps"])


def test_what_crosses_is_what_the_rule_lists_under_other_pseudonyms(net: Wire) -> None:
    net.record(9)
    before = {row["who"] for tier, row in columns(net, CBD) if tier == "edge-private"}
    cross(net)
    assert net.device.whereabouts.mode == "full"
    there = columns(net, PIER)
    assert sorted(row["number"] for tier, row in there if tier == "edge-private") == [1, 2, 3, 9]
    names = {row["who"] for tier, row in there if tier == "edge-private"}
    assert len(names) == 1
    assert not names & before
    assert [row for tier, row in there if tier == "public"] == [{}] * 4  # labels are not listed


def test_the_others_view_shows_it_for_the_purposes_of_the_rule_alone(net: Wire) -> None:
    cross(net)
    assert [row["number"] for row in seen(net, PIER)] == [1, 2, 3]
    assert {row["label"] for row in seen(net, PIER)} == {None}
    assert seen(net, PIER, "test.research") == []
    net.record(4)  # what the device itself brings is here on no terms
    assert [row["label"] for row in seen(net, PIER, "test.research")] == ["row 4"]


@pytest.mark.parametrize("roaming", [False, None])
def test_without_the_consent_that_is_required_nothing_crosses_and_no_public_row_is_lost(
    net: Wire, roaming: bool | None
) -> None:
    cross(net, roaming=roaming)
    assert net.device.whereabouts.mode == "full"
    assert columns(net, PIER) == []
    assert net.nodes[CLOUD].rows() == {"public": 3}
    assert verdicts(net, CBD) | {"given_rows": 0} == {
        "action": "drop",
        "rule": "H1",
        "why": "no consent",
        "given_segments": 0,
        "given_rows": 0,
        "kept_segments": 2,
        "kept_rows": 6,
    }
    assert net.count("kept rows", "no consent") == 6


def test_a_consent_that_was_withdrawn_is_none(net: Wire) -> None:
    net.give(WATCH, ConsentInput(7, "roaming", True))
    net.record(1)
    cross(net, roaming=False)
    assert columns(net, PIER) == []


def test_what_no_rule_lists_stays(folder: Path, template: Path) -> None:
    with wire(folder, template, (CBD, PIER), crossing()) as net:
        cross(net)
        assert columns(net, PIER) == []
        assert net.device.whereabouts.mode == "full"
        said = [each for each in net.said(Delta) if each.streams or each.derived or each.consents]
        assert said == []  # not even which streams there are
        assert verdicts(net, CBD)["why"] == "no rule"


def test_a_rule_without_terms_moves_the_originals(folder: Path, template: Path) -> None:
    rule = "{id: H2, from: acme, to: globex, data: steps, action: move, onward: true}"
    with wire(folder, template, (CBD, PIER), crossing(rule)) as net:
        net.record(1)
        ours = {each.stream for each in net.nodes[CBD].segments()}
        cross(net)
        assert {each.stream for each in net.nodes[PIER].segments()} == ours
        assert verdicts(net, CBD)["action"] == "move"
        assert net.nodes[CLOUD].rows() == {"public": 4}


def test_the_source_keeps_nothing_of_what_crossed_or_stayed(net: Wire) -> None:
    cross(net)
    assert net.state(CBD) is EdgeState.HELD
    net.wait(6_000)
    assert net.state(CBD) is EdgeState.ERASED
    assert net.nodes[CBD].rows() == {}


def test_public_rows_that_the_cloud_lacks_outlive_the_hold_and_are_erased_when_it_has_them(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.cloud_in(CBD)
    cross(net, roaming=False)
    net.wait(10_000)
    assert net.state(CBD) is EdgeState.ERASED
    assert net.nodes[CBD].rows() == {"public": 3}
    net.restart(CBD)
    net.lose = lambda _: False
    net.wait(20_000)
    assert net.nodes[CBD].rows() == {}
    assert net.nodes[CLOUD].rows() == {"public": 3}


def test_the_other_operator_forwards_nothing_of_what_it_was_given(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.cloud_in(CBD)
    cross(net)
    with net.nodes[PIER].database.read() as tx:
        given = set(terms.of_device(tx, WATCH))
    assert {each.state for each in net.nodes[PIER].segments() if each.stream in given} == {State.SAFE}
    net.wait(4_000)
    with net.nodes[CLOUD].database.read() as tx:
        assert streams.get(tx, given) == {}
    assert net.nodes[CLOUD].rows() == {"public": 3}  # which the device brought along


def test_what_was_given_for_a_time_is_erased_after_it_and_not_taken_again(net: Wire) -> None:
    cross(net)
    given = net.said(Delta)[0]
    net.wait(61_000, step_ms=5_000)
    assert net.nodes[PIER].rows() == {}
    assert seen(net, PIER) == []
    assert net.count("derived segments", "expired") == 2
    with net.nodes[PIER].database.read() as tx:
        known = [each for each in streams.of_device(tx, WATCH) if each.stream in terms.of_device(tx, WATCH)]
    assert known
    assert all(each.have for each in known)
    vault = net.nodes[PIER].kit.vault
    assert not any(vault.has(each.stream, each.key_id) for each in given.segments)


def test_what_may_not_go_on_goes_to_nobody_not_even_within_that_operator(net: Wire) -> None:
    cross(net)
    net.record(4)
    net.give(WATCH, Move(6, QUAY, planned=False))
    net.wait(1_500)
    assert {row["number"] for tier, row in columns(net, QUAY) if tier == "edge-private"} == {4}
    net.wait(6_000)
    assert net.nodes[PIER].rows() == {}


def test_what_may_go_on_goes_on_by_the_terms_that_it_came_on(folder: Path, template: Path) -> None:
    rule = NARROW.replace("onward: false", "onward: true")
    with wire(folder, template, (CBD, PIER, QUAY), crossing(rule)) as net:
        cross(net)
        net.give(WATCH, Move(6, QUAY, planned=True))
        net.wait(3_000)
        assert net.device.whereabouts.edge == QUAY
        assert [row["number"] for row in seen(net, QUAY)] == [1, 2, 3]
        assert seen(net, QUAY, "test.research") == []
        with net.nodes[QUAY].database.read() as tx:
            assert {each.rule for each in terms.of_device(tx, WATCH).values()} == {"H1"}


@pytest.mark.parametrize("first", ["given", "brought"])
def test_of_a_row_that_the_device_also_brings_itself_only_the_original_shows(net: Wire, first: str) -> None:
    net.give(WATCH, ConsentInput(7, "roaming", True))
    net.lose = lambda each: each.topic == topics.device_down(WATCH)  # it never hears that its edge has the rows
    net.record(1, 2, 3)
    held_up = topics.device_segments(WATCH) if first == "given" else topics.edge_in(PIER, CBD)
    net.lose = lambda each: each.topic == held_up
    net.give(WATCH, Move(5, PIER, planned=False))
    net.wait(5_000)
    net.lose = lambda _: False
    net.wait(20_000)
    assert sorted(row["number"] for tier, row in columns(net, PIER) if tier == "edge-private") == [1, 2, 3]
    assert [row["label"] for row in seen(net, PIER, "test.research")] == ["row 1", "row 2", "row 3"]
    assert net.device.whereabouts.mode == "full"
    assert net.count("derived segments", "replaced") == (2 if first == "given" else 0)


def test_a_planned_move_to_another_operator_goes_without_preparation(net: Wire) -> None:
    net.give(WATCH, ConsentInput(7, "roaming", True))
    net.record(1, 2)
    net.give(WATCH, Move(5, PIER, planned=True))
    net.wait(3_000)
    assert net.device.whereabouts.edge == PIER
    assert net.said(Prepare) == []
    assert [row["number"] for row in seen(net, PIER)] == [1, 2]


def test_a_policy_that_narrows_while_rows_cross_decides_for_the_rest(net: Wire) -> None:
    net.give(WATCH, ConsentInput(7, "roaming", True))
    net.record(1, 2)
    net.lose = lambda each: each.topic == topics.edge_in(PIER, CBD)
    net.give(WATCH, Move(5, PIER, planned=False))
    net.wait(500)
    net.give(CLOUD, Activate(8, crossing(revision=2)))
    net.lose = lambda _: False
    net.wait(6_000)
    assert columns(net, PIER) == []
    assert net.device.whereabouts.mode == "full"


def test_the_records_and_counters_of_both_sides_say_what_was_given_and_by_which_rule(net: Wire) -> None:
    cross(net)
    assert verdicts(net, CBD) == {
        "action": "pseudonymise",
        "rule": "H1",
        "why": "",
        "given_segments": 2,
        "given_rows": 6,
        "kept_segments": 0,
        "kept_rows": 0,
    }
    assert verdicts(net, PIER) == {"action": "derived", "rule": "H1", "by": "acme"}
    assert net.count("given rows", "pseudonymise") == 6


@pytest.mark.parametrize("bad", ["an original", "for itself", "for a derived one", "another collection", "too high"])
def test_a_derived_stream_that_cannot_be_one_is_refused_and_changes_nothing(net: Wire, bad: str) -> None:
    net.lose = lambda each: each.link == BACKBONE and each.topic == topics.edge_in(CBD, PIER)  # acme hears of no fence
    cross(net)
    with net.nodes[CBD].database.read() as tx:
        original = next(each for each in streams.of_device(tx, WATCH) if each.tier is Tier.EDGE_PRIVATE)
    told = {"public_key": b"k" * 32, "collection": "steps", "tier": 1, "stands_for": original.stream}
    told |= {
        "an original": {"public_key": original.public_key},
        "for itself": {"stands_for": stream_id(b"k" * 32)},
        "for a derived one": {"stands_for": stream_id(b"j" * 32)},
        "another collection": {"collection": "walks"},
        "too high": {"tier": 2, "stands_for": "0" * 32},
    }[bad]
    account = net.account(PIER)
    rest = {"purposes": None, "retain_ms": None, "onward": True, "operator": "acme", "rule": None, "revision": 1}
    known = {"public_key": b"j" * 32, "collection": "steps", "tier": 1, "stands_for": original.stream}
    order = {"incarnation": account.served[0], "epoch": account.served[1]}
    for each in (known, told):
        before = net.nodes[PIER].held()
        derived = [DerivedStream(**each | rest)]
        delta = Delta(
            device=WATCH,
            **order,
            streams=[],
            derived=derived,
            segments=[],
            checkpoints=[],
            consents=[],
            hot=False,
            complete=False,
        )
        effects = net.say(net.identity(CBD), PIER, topics.edge_in(PIER, CBD), delta)
    refused = {code for (kind, code) in effects.counts if kind == "refused"}
    assert refused == {"TIER_FORBIDDEN" if bad == "too high" else "SEGMENT_INVALID"}
    assert net.nodes[PIER].held() == before
