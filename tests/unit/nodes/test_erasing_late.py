"""Erased streams that come back: late messages, old copies, and handovers under way; nothing of them is taken again."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasync.domain.ids import NodeName
from datasync.domain.tiers import Place
from datasync.handover.states import EdgeState
from datasync.nodes.node import Arrival, ConsentInput, Move, Outgoing
from datasync.protocol import envelope, messages, topics
from datasync.protocol.messages import Erased
from datasync.protocol.parts import EraseReceipt, EraseStatement, decode_part
from datasync.security.identity import Role
from datasync.store import erasures, segments, terms
from datasync.store.database import Database
from tests.unit.nodes.test_between_operators import NARROW, PIER, columns, crossing
from tests.unit.nodes.test_erasing import EVERYWHERE, erase, is_empty, known, pending, rows_deleted, tombstones
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, WATCH, Wire, wire

# --- what comes late


def test_what_comes_late_from_the_device_is_refused_and_the_rest_of_the_message_is_taken(net: Wire) -> None:
    net.record(1)
    late = signed(net)
    erase(net)
    net.lose = lambda each: each.topic == topics.device_segments(WATCH)
    net.record(2)
    here = net.device.whereabouts
    upload = messages.Upload(
        incarnation=here.incarnation, epoch=here.epoch, segments=[*late, *signed(net)], checkpoints=[]
    )
    for number in range(2):
        told = net.say(net.identity(WATCH), CBD, topics.device_segments(WATCH), upload, sealed=True)
        assert net.count("refused", "STREAM_ERASED") == number + 1
        assert len(net.said(messages.Erase, told)) == 1
        assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}, "what was recorded since"
        assert not tombstones(net, CBD).keys() & {each.stream for each in known(net, CBD)}
        net.restart(CBD)


def test_what_an_edge_forwards_late_is_refused_by_the_cloud_which_tells_the_edge_why(net: Wire) -> None:
    net.record(1)
    late = [each for each in net.sent if each.topic == topics.cloud_in(CBD)]
    erase(net)
    effects = [net.give(CLOUD, _arrival(net, CLOUD, each), deliver=False) for each in late]
    assert net.nodes[CLOUD].rows() == {}
    told = [message for each in effects for message in net.said(messages.Erase, each)]
    assert told
    assert net.count("refused", "STREAM_ERASED") > 0


def signed(net: Wire) -> list[bytes]:
    """Return the segments that the device has and edges may have, as they were signed."""
    wired, found = net.nodes[WATCH], []
    with wired.database.read() as tx:
        for each in segments.page(tx, after_id=0, limit=100):
            if each.tier <= Place.EDGE.highest_tier:
                body = segments.bodies(tx, [each.id])[each.id]
                found.append(wired.kit.vault.decrypt(each.stream, each.key_id, each.seq_first, body))
    return found


def _arrival(net: Wire, to: NodeName, each: Outgoing) -> Arrival:
    return Arrival(net._link(to, each), each.topic, each.payload)


@contextmanager
def as_of(net: Wire, name: NodeName, folder: Path) -> Iterator[None]:
    """After the block, a node has the databases that it had before it, as if restored from a copy."""
    wired = net.nodes[name]
    files = {each: _file(each) for each in (wired.database, wired.keys)}
    for database, path in files.items():
        database.checkpoint()
        shutil.copyfile(path, folder / f"copy-of-{path.name}")
    yield
    for database, path in files.items():
        database.checkpoint()
        with_content = (folder / f"copy-of-{path.name}").read_bytes()
        database.close()
        for stale in path.parent.glob(f"{path.name}-*"):
            stale.unlink()
        path.write_bytes(with_content)
    net.restart(name)


def _file(database: Database) -> Path:
    return Path(str(database._writer.url.database))


def test_a_device_that_is_restored_from_an_old_copy_erases_it_when_it_meets_an_edge(net: Wire, tmp_path: Path) -> None:
    net.record(1)
    net.lose = lambda each: each.topic == topics.device_segments(WATCH)
    net.record(2)  # which no edge has
    net.lose = lambda _: False
    with as_of(net, WATCH, tmp_path):
        erase(net)
    net.wait(30_000, step_ms=1_000)
    assert net.nodes[WATCH].rows() == {"user-private": 2}, "no edge knows of that stream"
    assert is_empty(net, CBD, CLOUD)
    net.record(3)
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}


def test_a_restored_device_that_owes_nothing_is_told_when_it_attaches_before_it_records_more(
    net: Wire, tmp_path: Path
) -> None:
    net.record(1)
    net.wait(1_000)
    with as_of(net, WATCH, tmp_path):
        erase(net)
    net.wait(3_000)
    assert net.nodes[WATCH].rows() == {"user-private": 1}
    net.record(2)
    assert net.nodes[WATCH].rows() == {"user-private": 2, "edge-private": 1, "public": 1}
    assert net.nodes[CBD].rows() == {"edge-private": 1, "public": 1}


def test_what_is_said_again_of_an_erasure_changes_nothing(net: Wire) -> None:
    net.record(1)
    erase(net)
    before = {name: net.nodes[name].held() for name in (WATCH, CBD, DOCKS, CLOUD)}
    kinds = (messages.Erase, messages.Erased)
    said = [(name, each) for name in before for kind in kinds for each in net.carried(kind, name)]
    assert {name for name, _ in said} == before.keys()
    for name, each in said:
        net.give(name, each, deliver=False)
    net.now_ms += 10
    assert before == {name: net.nodes[name].held() for name in before}


# --- handovers


def test_what_was_sent_in_advance_goes_too_and_what_is_sent_later_is_not_taken(net: Wire) -> None:
    net.record(1, 2)
    net.lose = lambda each: each.topic == topics.device_down(WATCH) and b"ready" in each.payload
    net.give(WATCH, Move(5, DOCKS, planned=True))
    net.wait(1_000)
    assert net.nodes[DOCKS].rows() == {"public": 2, "edge-private": 2}
    net.lose = lambda _: False
    in_advance = net.carried(messages.Segments, DOCKS)
    assert in_advance
    erase(net, wait_ms=20_000)
    assert is_empty(net, *EVERYWHERE)
    for each in in_advance:
        net.give(DOCKS, each)
    assert net.nodes[DOCKS].rows() == {}


def test_a_handover_that_is_under_way_is_finished_without_what_was_erased_meanwhile(net: Wire) -> None:
    net.record(1, 2)
    net.lose = lambda each: each.topic == topics.edge_in(DOCKS, CBD)  # what the source gives
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(5_000)
    assert net.device.whereabouts.mode == "degraded"
    net.record(3)
    erase(net)
    assert net.nodes[CBD].rows() == {}
    assert CBD in pending(net), "what it says is lost"
    deltas = net.carried(messages.Delta, DOCKS)
    assert any(decoded.segments for decoded in net.said(messages.Delta))
    for each in deltas:
        net.give(DOCKS, each)
    assert net.nodes[DOCKS].rows() == {}
    net.lose = lambda _: False
    net.wait(30_000, step_ms=500)
    assert net.device.whereabouts.mode == "full"
    assert (pending(net), net.state(CBD)) == (set(), EdgeState.ERASED)
    assert is_empty(net, *EVERYWHERE)


def test_a_source_that_has_not_heard_of_it_yet_gives_nothing_that_stays(net: Wire) -> None:
    net.record(1, 2)
    net.lose = lambda each: each.topic in (topics.edge_in(DOCKS, CBD), topics.edge_in(CBD, DOCKS))
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(5_000)
    erase(net)
    assert net.nodes[CBD].rows() == {"public": 2, "edge-private": 2}
    net.record(7)
    net.lose = lambda _: False
    net.wait(30_000, step_ms=500)
    assert net.device.whereabouts.mode == "full"
    assert is_empty(net, CBD)
    assert (net.nodes[DOCKS].rows(), net.nodes[CLOUD].rows()) == ({"public": 1, "edge-private": 1}, {"public": 1})
    assert pending(net) == set()


def test_what_another_operators_edge_was_given_in_the_place_of_a_stream_goes_with_it(
    folder: Path, template: Path
) -> None:
    with wire(folder, template, (CBD, PIER), crossing(NARROW)) as net:
        net.give(WATCH, ConsentInput(7, "roaming", True))
        net.record(1, 2, 3)
        net.give(WATCH, Move(5, PIER, planned=False))
        net.wait(1_500)
        assert len(columns(net, PIER)) == 6
        deltas = net.carried(messages.Delta, PIER)
        erase(net, wait_ms=20_000)
        assert is_empty(net, WATCH, CBD, PIER, CLOUD)
        assert rows_deleted(net)[PIER] == 6
        with net.nodes[CBD].database.read() as tx:
            told = {each.place for each in erasures.receipts(tx, tombstones(net, CBD)) if each.signed}
        assert told == {CBD, CLOUD}, "another operator's edge told its cloud, which could be another one"
        for each in deltas:
            net.give(PIER, each)
        assert is_empty(net, PIER)
        with net.nodes[PIER].database.read() as tx:
            assert terms.of_device(tx, WATCH) == {}


def test_an_edge_that_forgets_a_device_keeps_the_tombstones(net: Wire) -> None:
    net.record(1)
    erase(net)
    before = tombstones(net, CBD)
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(10_000)
    assert net.state(CBD) is EdgeState.ERASED
    assert tombstones(net, CBD) == before != {}


def test_only_who_may_know_hears_what_other_places_signed(net: Wire) -> None:
    net.record(1)
    erase(net)
    streams_erased = sorted(tombstones(net, CBD))
    statements = [decode_part(EraseStatement, each.statement) for each in tombstones(net, CBD).values()]
    told = net.say(net.identity(DOCKS), CBD, topics.edge_in(CBD, DOCKS), messages.Erase(statements=statements))
    (answer,) = net.said(Erased, told)
    assert sorted(answer.streams) == streams_erased
    trust, signers = net.nodes[CBD].kit.trust, set()
    for raw in answer.receipts:
        signers.add(envelope.verify(raw, EraseReceipt.CONTEXT, trust, net.now, bytes_max=8_192).peer)
    assert {(each.name, each.role) for each in signers} == {(CBD, Role.EDGE), (CLOUD, Role.CLOUD)}
