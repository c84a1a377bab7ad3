"""What nodes log of what administrators do, and the cloud's hold on the ends of edges' logs."""

from typing import Any

import pytest
from sqlalchemy import delete, update

from datasync.domain.ids import NodeName
from datasync.nodes.auditing import INTERVAL_MS, difference, opened, own_heads
from datasync.nodes.node import Activate, ConsentInput, StartHandover
from datasync.protocol import cbor, envelope, topics
from datasync.protocol.messages import Countersigned, Heads
from datasync.protocol.parts import HeadStatement, LogHead
from datasync.store import audit, decisions, heads, registers, tables
from datasync.store.audit import Event
from datasync.store.decisions import Decision
from datasync.store.heads import Said
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, START_MS, WATCH, Wire

OPENED = Decision(
    at_ms=START_MS,
    event="opened",
    worker="coach",
    collection="steps",
    purpose="test.run",
    revision=1,
    digest="d" * 64,
    code="ALLOW",
)


def events(net: Wire, name: NodeName) -> list[tuple[str, str, str]]:
    with net.nodes[name].database.read() as tx:
        assert audit.verify(tx) is None
        return [(each.event, each.actor, each.subject) for each in audit.page(tx)]


def said(net: Wire, edge: NodeName = CBD, log: str = "audit") -> Said | None:
    with net.nodes[CLOUD].database.read() as tx:
        return heads.get(tx, edge, log)


def countersigned(net: Wire, edge: NodeName = CBD) -> list[LogHead]:
    node = net.nodes[edge]
    with node.database.read() as tx:
        taken = heads.countersignature(tx)
        return [] if taken is None else opened(taken, node.kit.trust, CLOUD, edge).heads


def log_something(net: Wire, edge: NodeName = CBD) -> None:
    with net.nodes[edge].database.write() as tx:
        audit.append(tx, Event.WORKER_ENROLLED, audit.ADMINISTRATOR, "coach", {}, net.now.wall_ms)


def rewrite(net: Wire, change: dict[str, Any], edge: NodeName = CBD) -> None:
    """Change the first entry of an edge's audit log, and all hashes so that it is whole again."""
    with net.nodes[edge].database.write() as tx:
        entries = audit.page(tx)
        tx.execute(delete(tables.audit))
        tx.execute(delete(tables.counters).where(tables.counters.c.name == "audit"))
        registers.put(tx, "audit head", [0, ""])
        for each in entries:
            fields = {"actor": each.actor, "subject": each.subject} | (change if each is entries[0] else {})
            audit.append(tx, Event(each.event), **fields, detail=each.detail, at_ms=each.at_ms)
        assert audit.verify(tx) is None


def test_policies_handovers_and_consents_are_logged_where_they_are_done(net: Wire) -> None:
    activated = ("policy-activated", audit.ADMINISTRATOR)
    assert [each[:2] for each in events(net, CLOUD)] == [activated]
    assert [each[:2] for each in events(net, CBD)] == [("policy-activated", "acme/policy")]
    net.give(CBD, StartHandover(5, WATCH, DOCKS))
    net.give(WATCH, ConsentInput(6, "test.research", False))
    assert events(net, CBD)[-1] == ("handover-started", audit.ADMINISTRATOR, WATCH)
    assert events(net, WATCH)[-1] == ("consent-said", WATCH, "test.research")


def test_what_was_refused_is_not_logged_as_done(net: Wire) -> None:
    before = events(net, CBD)
    net.give(CBD, StartHandover(5, NodeName("nobody"), DOCKS))
    net.give(WATCH, ConsentInput(6, "no.such", False))
    assert events(net, CBD) == before
    assert [each[0] for each in events(net, WATCH)] == ["policy-activated"]


def test_a_refused_policy_is_logged_but_cannot_flood_the_log(net: Wire) -> None:
    for ticket in range(20):
        net.give(CLOUD, Activate(ticket, b"no policy: \xf0\x9f\x94\x91" * 200))
    refused = [each for each in events(net, CLOUD) if each[0] == "policy-refused"]
    assert refused == [("policy-refused", "a policy given here", "policy")]


def test_the_cloud_countersigns_where_the_logs_of_edges_end(net: Wire) -> None:
    net.wait(INTERVAL_MS, step_ms=5_000)
    with net.nodes[CBD].database.read() as tx:
        ends = own_heads(tx)
    assert [each.log for each in ends] == ["audit"]
    assert countersigned(net) == ends
    assert said(net) == Said(node=CBD, log="audit", number=1, hash=ends[0].hash, said_ms=said(net).said_ms)  # type: ignore[union-attr]
    assert countersigned(net, DOCKS)


def test_both_logs_are_said_at_most_once_a_minute_and_only_when_they_grew(net: Wire) -> None:
    net.wait(2 * INTERVAL_MS, step_ms=5_000)
    before = len(net.said(Heads))
    net.wait(5 * INTERVAL_MS, step_ms=5_000)
    assert len(net.said(Heads)) == before
    for _ in range(10):
        with net.nodes[CBD].database.write() as tx:
            decisions.append(tx, OPENED)
        log_something(net)
        net.wait(6_000, step_ms=1_000)
    assert 1 <= len(net.said(Heads)) - before <= 2
    net.wait(INTERVAL_MS, step_ms=5_000)
    assert [(each.log, each.number) for each in countersigned(net)] == [("decisions", 10), ("audit", 11)]


def test_what_is_lost_is_said_again(net: Wire) -> None:
    net.lose = lambda each: each.topic == topics.cloud_in(CBD)
    log_something(net)
    net.wait(2 * INTERVAL_MS, step_ms=5_000)
    assert [each.number for each in countersigned(net)] == [1], "what it said before"
    net.lose = lambda _: False
    net.restart(CBD)
    net.wait(INTERVAL_MS, step_ms=5_000)
    assert [each.number for each in countersigned(net)] == [2]


def test_an_edge_that_rewrites_its_log_is_found_by_the_countersignature_and_by_the_cloud(net: Wire) -> None:
    net.wait(INTERVAL_MS, step_ms=5_000)
    rewrite(net, {"actor": "nobody"})
    with net.nodes[CBD].database.read() as tx:
        assert difference(tx, countersigned(net)) == "entry 1 of the log audit is another one"
    net.wait(INTERVAL_MS, step_ms=5_000)
    assert events(net, CLOUD)[-1] == ("log-contradicted", CLOUD, CBD)
    assert (found := said(net)) is not None
    assert found.contradicted_ms is not None


def test_an_edge_that_cuts_its_log_is_found_once_and_stays_noted(net: Wire) -> None:
    log_something(net)
    net.wait(INTERVAL_MS, step_ms=5_000)
    with net.nodes[CBD].database.write() as tx:
        tx.execute(delete(tables.audit).where(tables.audit.c.number == 2))
        tx.execute(update(tables.counters).where(tables.counters.c.name == "audit").values(last=1))
        registers.put(tx, "audit head", [1, audit.page(tx)[0].hash])
        assert difference(tx, countersigned(net)) == "entry 2 of the log audit is missing"
    net.wait(3 * INTERVAL_MS, step_ms=5_000)
    assert [each[0] for each in events(net, CLOUD)].count("log-contradicted") == 1
    for _ in range(2):
        log_something(net)
    net.wait(INTERVAL_MS, step_ms=5_000)
    assert (found := said(net)) is not None
    assert found.number == 3
    assert found.contradicted_ms is not None


def test_an_edge_that_empties_one_of_its_logs_is_found(net: Wire) -> None:
    with net.nodes[CBD].database.write() as tx:
        decisions.append(tx, OPENED)
    net.wait(INTERVAL_MS, step_ms=5_000)
    with net.nodes[CBD].database.write() as tx:
        tx.execute(delete(tables.audit))
        registers.put(tx, "audit head", [0, ""])
        decisions.append(tx, OPENED)
    net.wait(INTERVAL_MS, step_ms=5_000)
    assert events(net, CLOUD)[-1] == ("log-contradicted", CLOUD, CBD)


def test_an_old_word_that_a_broker_repeats_is_no_contradiction(net: Wire) -> None:
    net.wait(INTERVAL_MS, step_ms=5_000)
    old = net.carried(Heads, CLOUD)[0]
    log_something(net)
    net.wait(INTERVAL_MS, step_ms=5_000)
    sent = net.give(CLOUD, old, deliver=False)
    assert net.said(Countersigned, sent) == []
    assert (found := said(net)) is not None
    assert (found.number, found.contradicted_ms) == (2, None)


@pytest.mark.parametrize("who", ["another edge", "another cloud's edge", "another log"])
def test_a_countersignature_that_is_not_the_clouds_or_not_of_this_log_is_not_kept(net: Wire, who: str) -> None:
    net.wait(INTERVAL_MS, step_ms=5_000)
    before = countersigned(net)
    signer = net.identity(DOCKS if who == "another edge" else CLOUD)
    node = DOCKS if who == "another cloud's edge" else CBD
    ends = [LogHead(log="audit", number=9, hash="0" * 64)] if who == "another log" else before
    statement = HeadStatement(node=node, heads=ends, stamp=1 << 60)
    forged = envelope.sign(signer, HeadStatement.CONTEXT, cbor.dumps(statement.model_dump()))
    net.say(net.identity(CLOUD), CBD, topics.edge_in(CBD, CLOUD), Countersigned(statement=forged))
    assert net.count("refused", "MESSAGE_INVALID") + net.count("refused", "SIGNER_FOREIGN") == 1
    assert countersigned(net) == before


def test_only_edges_say_heads(net: Wire) -> None:
    heads_of_mine = Heads(heads=[LogHead(log="audit", number=1, hash="0" * 64)], stamp=1)
    net.say(net.identity(WATCH), CBD, topics.device_up(WATCH), heads_of_mine)
    assert net.count("refused", "SIGNER_FOREIGN") == 1
