"""Erasing a subject: what goes where, in which order, what is pending, and that nothing ever comes back."""

import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import func, select

from datasync.domain.errors import ErasureForeign, NotFound
from datasync.domain.ids import NodeName, StreamId, node_name
from datasync.handover import accounts
from datasync.handover.states import EdgeState
from datasync.nodes.links import DEVICES
from datasync.nodes.node import Activate, Arrival, ConsentInput, Erase, Move, Outgoing, Record
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from datasync.protocol import cbor, envelope, messages, topics
from datasync.protocol.messages import Erased
from datasync.protocol.parts import EraseReceipt, EraseStatement, decode_part
from datasync.store import audit, consents, erasures, streams, tables
from datasync.sync.capture import recorded as recorded_rows
from tests.unit.nodes.test_purging import DOCUMENTS
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, POLICY, WATCH, Wire, recorded

EVERYWHERE = (WATCH, CBD, DOCKS, CLOUD)
ALL_LAYERS = {"public": 1, "edge-private": 1, "user-private": 1}


def erase(net: Wire, collection: str | None = None, *, everything: bool = True, wait_ms: int = 3_000) -> None:
    net.give(WATCH, Erase(77, None, collection, everything))
    net.wait(wait_ms)


def pending(net: Wire, name: NodeName = WATCH) -> set[str]:
    with net.nodes[name].database.read() as tx:
        return erasures.awaited(tx)


def tombstones(net: Wire, name: NodeName) -> dict[StreamId, erasures.Erasure]:
    with net.nodes[name].database.read() as tx:
        return {each.stream: each for each in erasures.page(tx, after=None, limit=1_000)}


def receipts(net: Wire) -> dict[tuple[str, str], EraseReceipt]:
    """Return the receipts that the device has, by stream and signer, each verified."""
    found = {}
    trust = net.nodes[WATCH].kit.trust
    with net.nodes[WATCH].database.read() as tx:
        for each in erasures.receipts(tx, tombstones(net, WATCH)):
            if each.signed is not None:
                signed = envelope.verify(each.signed, EraseReceipt.CONTEXT, trust, net.now, bytes_max=8_192)
                found[each.stream, str(signed.peer.name)] = decode_part(EraseReceipt, signed.body)
    return found


def rows_deleted(net: Wire) -> dict[str, int]:
    """Return by place how many rows its receipts say that it deleted."""
    found: dict[str, int] = {}
    for (_, place), each in receipts(net).items():
        found[place] = found.get(place, 0) + each.rows
    return found


def known(net: Wire, name: NodeName = WATCH) -> list[streams.Stream]:
    with net.nodes[name].database.read() as tx:
        return streams.of_device(tx, WATCH)


def data_keys(net: Wire, name: NodeName) -> int:
    with net.nodes[name].keys.read() as tx:
        return tx.scalar(select(func.count()).select_from(tables.data_keys)) or 0


def is_empty(net: Wire, *names: NodeName) -> bool:
    """Whether nodes hold no row and no key that could open one."""
    return all((net.nodes[name].rows(), data_keys(net, name)) == ({}, 0) for name in names)


# --- what goes


def test_everything_goes_everywhere_and_each_place_signs_what_it_deleted(net: Wire) -> None:
    net.record(1, 2, 3)
    net.give(WATCH, ConsentInput(9, "test.run", True))
    net.wait(1_000)
    erase(net)
    assert is_empty(net, *EVERYWHERE)
    assert rows_deleted(net) == {WATCH: 9, CBD: 6, CLOUD: 3, DOCKS: 0}
    assert pending(net) == pending(net, CBD) == set()
    assert set(net.answers[77]) == tombstones(net, WATCH).keys()
    for name in EVERYWHERE:
        held = net.nodes[name].held()
        assert (held["streams"], held["consents"], held["bodies"]) == ([], [], [])


def test_what_is_private_to_the_user_stays_on_the_device_unless_everything_is_to_go(net: Wire) -> None:
    net.record(1, 2, 3)
    erase(net, everything=False)
    assert net.nodes[WATCH].rows() == {"user-private": 3}
    assert is_empty(net, CBD, CLOUD)
    net.record(4)
    assert net.nodes[WATCH].rows() == {"user-private": 4, "edge-private": 1, "public": 1}
    assert net.nodes[CBD].rows() == {"edge-private": 1, "public": 1}


def test_of_one_collection_is_erased_and_the_others_stay(net: Wire) -> None:
    source = POLICY.replace(b"revision: 1\n", b"revision: 2\n").replace(b"\nworkers:", DOCUMENTS, 1)
    net.give(CLOUD, Activate(2, source))
    net.wait(500)
    net.record(1)
    likes = to_batch(load(source).collection("likes"), [{"who": "ann", "name": "walk", "seen": 1}])
    net.give(WATCH, Record(1, "likes", likes))
    net.wait(1_000)
    erase(net, "steps")
    assert {each.collection for each in known(net) + known(net, CBD)} == {"likes"}
    assert net.nodes[WATCH].rows() == ALL_LAYERS
    erase(net, "steps")
    assert (net.nodes[WATCH].rows(), net.answers[77]) == (ALL_LAYERS, ())


def test_a_collection_that_there_is_not_is_not_found_and_what_was_recorded_meanwhile_is_kept(net: Wire) -> None:
    net.give(WATCH, recorded(1), Erase(77, None, "stepps", True))
    net.wait(2_000)
    assert isinstance(net.answers[77], NotFound)
    assert (net.answers[1], net.nodes[WATCH].rows()) == (None, ALL_LAYERS)


def test_rows_that_are_not_yet_durable_when_the_wish_comes_go_too(net: Wire) -> None:
    net.give(WATCH, recorded(1), Erase(77, None, None, True))
    net.wait(3_000)
    assert is_empty(net, *EVERYWHERE)
    assert net.answers[1] is None, "who recorded them was answered"


def test_recording_goes_on_in_streams_that_nothing_links_to_the_old_ones(net: Wire) -> None:
    net.give(WATCH, ConsentInput(9, "test.run", True))
    net.record(1, 2)
    net.wait(2_000)
    before = {each.stream for each in known(net)}
    with net.nodes[CLOUD].database.read() as tx:
        stamps = {each.stamp for each in consents.of_streams(tx, before)}
    erase(net)
    net.record(3)
    after = known(net)
    assert {(each.generation, each.have.to_list() == [0, 0]) for each in after} == {(1, True)}
    assert not before & {each.stream for each in after}
    net.wait(2_000)
    assert net.nodes[CLOUD].rows() == {"public": 1}
    with net.nodes[CLOUD].database.read() as tx:
        said = consents.of_streams(tx, [each.stream for each in after])
    assert [each.given for each in said] == [True]
    assert stamps
    assert not stamps & {each.stamp for each in said}
    with net.nodes[WATCH].database.read() as tx:
        assert recorded_rows(tx, WATCH, "steps") == 3, "a program goes on behind what it recorded"


def test_no_session_key_is_left_under_which_anything_of_it_was_sealed(net: Wire) -> None:
    net.record(1, 2)
    net.give(WATCH, Move(5, DOCKS, planned=True))
    net.wait(2_000)
    assert net.state(CBD) is EdgeState.HELD
    before = session_keys(net)
    assert len(before) == 2
    erase(net)
    here = net.device.whereabouts
    assert (here.edge, here.mode, net.state(DOCKS)) == (DOCKS, "full", EdgeState.ACTIVE)
    after = session_keys(net)
    assert len(after) == 1
    assert not before & after
    net.record(3)
    net.give(WATCH, Move(6, CBD, planned=True))
    net.wait(3_000)
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}


def test_an_edge_lets_the_keys_go_of_an_edge_that_gave_all_it_had(net: Wire) -> None:
    net.record(1, 2)
    net.lose = lambda each: each.topic in (topics.edge_in(DOCKS, CBD), topics.edge_in(CBD, DOCKS))
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(5_000)
    assert previous_keys(net, DOCKS) == {CBD}
    net.lose = lambda _: False
    net.wait(10_000)
    assert net.device.whereabouts.mode == "full"
    assert previous_keys(net, DOCKS) == set()


def previous_keys(net: Wire, edge: NodeName) -> set[str]:
    """Return the edges of which an edge has session keys of the device."""
    with net.nodes[edge].database.read() as tx:
        kept = accounts.load_keys(tx, net.nodes[edge].kit.vault, WATCH)
    return set() if kept is None else set(kept.previous)


def session_keys(net: Wire) -> set[bytes]:
    """Return every session key that the device or an edge has."""
    found: set[bytes] = set()
    for keys in net.device.whereabouts.ring.by_edge.values():
        found.update(keys)
    for edge in (CBD, DOCKS):
        with net.nodes[edge].database.read() as tx:
            kept = accounts.load_keys(tx, net.nodes[edge].kit.vault, WATCH)
        if kept is not None:
            found.update([kept.session, *(key for keys in kept.previous.values() for key in keys)])
    return found


def test_each_place_notes_in_its_audit_log_what_was_erased(net: Wire) -> None:
    net.record(1)
    erase(net)
    for name, wanted_by in ((WATCH, "the subject"), (CBD, "a device"), (CLOUD, CBD)):
        with net.nodes[name].database.read() as tx:
            entries = audit.page(tx, event=audit.Event.ERASURE)
        assert {each.actor for each in entries} == {wanted_by}
        assert {each.subject for each in entries} == tombstones(net, name).keys()


def test_of_a_plain_device_its_edge_has_the_keys_and_erases_at_its_administrators_word(net: Wire) -> None:
    plain = node_name("scale-1")
    row = b'{"who": "bob", "number": 1, "label": "x"}'
    published = Arrival(DEVICES, "ds/1/d/scale-1/json/steps", row)
    net.give(CBD, published)
    net.record(1)
    assert net.nodes[CLOUD].rows() == {"public": 2}
    for device in (WATCH, node_name("nobody")):
        net.give(CBD, Erase(6, device, None, True))
        assert isinstance(net.answers[6], ErasureForeign)
    net.give(CBD, Erase(7, plain, None, True))
    net.wait(3_000)
    assert len(net.answers[7]) == 2
    assert pending(net, CBD) == set()
    assert (net.nodes[CBD].rows(), net.nodes[CLOUD].rows()) == ({"public": 1, "edge-private": 1}, {"public": 1})
    net.give(CBD, published)
    net.wait(1_000)
    assert net.nodes[CLOUD].rows() == {"public": 2}, "it goes on in new streams"


# --- who is away


def is_for(name: NodeName) -> Callable[[Outgoing], bool]:
    """Return what loses everything to and from a server."""
    dotted = name.replace("/", ".")
    return lambda each: f"/{dotted}/" in each.topic or each.topic.endswith(f"/{dotted}")


def test_who_is_away_is_pending_is_told_when_it_is_back_and_restarts_change_nothing(net: Wire) -> None:
    net.record(1)
    net.lose = is_for(CBD)
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(5_000)
    assert net.state(CBD) is EdgeState.ACTIVE, "it does not even know that the device has left"
    erase(net)
    assert pending(net) == {CBD}
    assert rows_deleted(net) == {WATCH: 3, DOCKS: 0, CLOUD: 1}
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}
    for name in (WATCH, DOCKS):
        net.restart(name)
    net.wait(2_000)
    assert pending(net) == {CBD}
    net.lose = lambda _: False
    net.restart(CBD)
    net.wait(3_000)
    assert is_empty(net, CBD)
    assert pending(net) == set()
    assert rows_deleted(net)[CBD] == 2


def test_a_device_that_was_away_from_every_edge_erases_itself_and_tells_the_edge_it_meets_next(net: Wire) -> None:
    net.record(1)
    net.lose = lambda each: each.topic.startswith("ds/1/d/")
    erase(net)
    assert is_empty(net, WATCH)
    assert pending(net) == {CBD}
    net.restart(WATCH)
    net.lose = lambda _: False
    net.give(WATCH, Move(5, DOCKS, planned=False))
    net.wait(20_000)
    assert pending(net) == set()
    assert is_empty(net, *EVERYWHERE)


def test_a_place_that_stays_away_is_told_ever_less_often_and_at_once_when_it_is_back(net: Wire) -> None:
    net.record(1)
    net.lose = is_for(DOCKS)
    erase(net)
    net.sent.clear()
    net.wait(120_000, step_ms=1_000)
    assert 6 <= len(net.said(messages.Erase)) <= 12, "by the device and by its edge, at intervals that double"
    net.lose = lambda _: False
    net.restart(DOCKS)
    net.wait(1_000)
    assert pending(net) == set()


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_lost_and_whoever_crashes_when_all_obey_in_the_end(net: Wire, seed: int) -> None:
    chance = random.Random(seed)
    net.record(1, 2)
    net.give(WATCH, Erase(77, None, None, True), deliver=False)
    net.lose = lambda _: chance.random() < 0.4
    for _ in range(25):
        net.wait(500)
        net.restart(chance.choice(EVERYWHERE))
    net.lose = lambda _: False
    net.wait(40_000, step_ms=1_000)
    assert is_empty(net, *EVERYWHERE)
    assert pending(net) == pending(net, CBD) == set()
    assert {place for _, place in receipts(net)} == set(EVERYWHERE)


# --- the order


class PowerCut(Exception):
    pass


@pytest.mark.parametrize("name", [WATCH, CBD, CLOUD])
def test_no_receipt_leaves_before_the_keys_are_destroyed_and_a_crash_in_between_is_made_up_for(
    net: Wire, name: NodeName
) -> None:
    net.record(1)
    kept = data_keys(net, name)
    net.lose = lambda each: each.topic == topics.device_down(WATCH) or is_for(CLOUD)(each) if name == CBD else False
    if name == WATCH:
        net.give(WATCH, Erase(77, None, None, True), deliver=False)
    else:
        statements = _statements(net)
        sender, topic = (WATCH, topics.device_up(WATCH)) if name == CBD else (CBD, topics.cloud_in(CBD))
        told = net.say(net.identity(sender), name, topic, messages.Erase(statements=statements))
        assert [each.receipts for each in net.said(Erased, told)] in ([], [[]])
    assert net.nodes[name].rows() == {}, "rows are gone with the statement"
    assert (data_keys(net, name), all(each.shredded for each in tombstones(net, name).values())) == (kept, False)
    net.now_ms += 1
    with suppress(PowerCut), net.nodes[name].database.write() as tx:
        net.nodes[name].node.handle(tx, [], net.now)
        raise PowerCut
    assert data_keys(net, name) == 0, "destroyed, but not yet noted"
    assert not any(each.shredded for each in tombstones(net, name).values())
    net.restart(name)
    assert all(each.shredded for each in tombstones(net, name).values())


def _statements(net: Wire, generation: int = 0) -> list[EraseStatement]:
    """Return what the device says of the streams that edges know."""
    identity, made = net.identity(WATCH), []
    for each in known(net):
        if each.tier.label == "user-private":
            continue
        unsigned = EraseStatement(
            public_key=each.public_key, generation=generation, stamp=net.now.wall_ms << 16, signature=bytes(64)
        )
        key = identity.stream_key(each.collection, each.tier, each.generation)
        made.append(unsigned.model_copy(update={"signature": key.sign(unsigned.signed_bytes())}))
    return made


def test_a_statement_that_its_stream_did_not_sign_erases_nothing(net: Wire) -> None:
    net.record(1)
    good, other = _statements(net)
    forged = other.model_copy(update={"signature": good.signature})
    for message in (messages.Erase(statements=[good, forged]), messages.Erase(statements=[forged])):
        net.say(net.identity(WATCH), CBD, topics.device_up(WATCH), message)
    assert net.count("refused", "SIGNATURE_INVALID") == 2
    assert tombstones(net, CBD) == {}
    assert net.nodes[CBD].rows() == {"public": 1, "edge-private": 1}


def test_a_receipt_counts_only_from_the_place_that_it_names(net: Wire) -> None:
    net.record(1)
    net.lose = is_for(DOCKS)
    erase(net)
    stream = next(iter(tombstones(net, CBD)))
    receipt = EraseReceipt(stream=stream, stamp=1, place=DOCKS, segments=0, rows=0, keys=0, erased_ms=1)
    body = cbor.dumps(receipt.model_dump())
    forged = envelope.sign(net.identity(CBD), EraseReceipt.CONTEXT, body)
    message = Erased(streams=[stream], receipts=[forged, b"noise"], pending=[])
    net.say(net.identity(CBD), WATCH, topics.device_down(WATCH), message)
    assert (net.count("refused", "SIGNER_FOREIGN"), pending(net)) == (1, {DOCKS})
