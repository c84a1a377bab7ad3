"""What is private to its user: neither its rows, nor its ciphertext, nor a key of it, is anywhere but on the device."""

from pathlib import Path

import pytest
from sqlalchemy import select

from datasync.domain.tiers import Tier
from datasync.nodes.node import SEALED_MARK, ConsentInput, Move, Outgoing
from datasync.protocol import cbor, envelope
from datasync.protocol.messages import Attach, decode
from datasync.protocol.parts import SessionKeys, decode_part
from datasync.security.vault import open_body, state_key
from datasync.security.wrapping import data_key_label
from datasync.store import segments, streams, tables
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, WATCH, Wire


@pytest.fixture
def roamed(net: Wire) -> Wire:
    """A device that recorded, said what it allows, moved in both ways, and was moved back, recording all the time."""
    net.record(1, 2)
    net.give(WATCH, ConsentInput(9, "test.research", False))
    net.give(WATCH, Move(5, DOCKS, planned=True))
    net.wait(2_000)
    net.record(3, 4)
    net.give(WATCH, Move(6, CBD, planned=False))
    net.wait(2_000)
    net.record(5, 6)
    net.wait(8_000)
    assert net.device.whereabouts.edge == CBD
    return net


def traces(net: Wire, tier: Tier) -> dict[str, bytes]:
    """Return what would give away that a layer of this tier is held: its ciphertext, its segments, its keys."""
    device = net.nodes[WATCH]
    with device.database.read() as tx:
        wanted = {each.stream for each in streams.of_device(tx, WATCH) if each.tier is tier}
        stored = [each for each in segments.page(tx, after_id=0, limit=100) if each.stream in wanted]
        bodies = segments.bodies(tx, [each.id for each in stored])
    found: dict[str, bytes] = {}
    for each in stored:
        found[f"ciphertext {each.id}"] = bodies[each.id]
        found[f"segment {each.id}"] = device.kit.vault.decrypt(
            each.stream, each.key_id, each.seq_first, bodies[each.id]
        )
    with device.keys.read() as tx:
        keys = tx.execute(select(tables.data_keys).where(tables.data_keys.c.stream_id.in_(wanted))).all()
    for row in keys:
        found[f"wrapped key {row.key_id}"] = row.wrapped
        found[f"key {row.key_id}"] = device.kit.vault.unwrap(row.wrapped, data_key_label(row.stream_id, row.key_id))[1:]
        found[f"key's id {row.key_id}"] = row.key_id.encode()
    assert len(stored) == 3
    assert keys
    return found


def opened(net: Wire, each: Outgoing) -> bytes:
    """Return a message as its receiver reads it, with the session keys of an attach in the open."""
    signed = envelope.verify(each.payload, each.topic, net.nodes[CLOUD].kit.trust, net.now, bytes_max=1 << 24)
    body = signed.body
    if body[:1] == SEALED_MARK:
        body = net.nodes[net._receiver(each)].node.opener.open(body, each.topic, signed.peer)
    message = decode(body)
    return body + cbor.dumps(session_keys(net, each, message).model_dump()) if isinstance(message, Attach) else body


def session_keys(net: Wire, each: Outgoing, attach: Attach) -> SessionKeys:
    context = f"datasync/session/{WATCH}/{attach.incarnation}/{attach.epoch}"
    target = net.nodes[net._receiver(each)].node
    return decode_part(SessionKeys, target.opener.open(attach.session, context, net.nodes[WATCH].peer))


def attaches(net: Wire) -> list[tuple[Outgoing, Attach]]:
    found = []
    for each in net.sent:
        body = envelope.verify(each.payload, each.topic, net.nodes[CLOUD].kit.trust, net.now, bytes_max=1 << 24).body
        if body[:1] != SEALED_MARK and isinstance(message := decode(body), Attach):
            found.append((each, message))
    return found


def test_no_message_carries_a_key_or_a_byte_of_it(roamed: Wire) -> None:
    said = [(each.topic, each.payload + opened(roamed, each)) for each in roamed.sent]
    private, shared = traces(roamed, Tier.USER_PRIVATE), traces(roamed, Tier.EDGE_PRIVATE)
    assert [name for name, trace in private.items() for _, body in said if trace in body] == []
    sent_on = {name for name, trace in shared.items() for _, body in said if trace in body}
    assert {name for name in shared if name.startswith("segment")} <= sent_on, "the search finds nothing"


def test_no_other_nodes_store_holds_a_key_or_a_byte_of_it(roamed: Wire, folder: Path) -> None:
    private = traces(roamed, Tier.USER_PRIVATE)
    others = [path for path in folder.iterdir() if not path.name.startswith(WATCH)]
    assert len(others) >= 6
    assert [(path.name, name) for path in others for name, trace in private.items() if trace in path.read_bytes()] == []
    own = {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith(WATCH)}
    kept = {name for name in private if name.startswith(("ciphertext", "wrapped"))}
    assert {name for name in kept if any(private[name] in content for content in own.values())} == kept


def test_no_other_node_knows_its_stream(roamed: Wire) -> None:
    with roamed.nodes[WATCH].database.read() as tx:
        private = {each.stream for each in streams.of_device(tx, WATCH) if each.tier is Tier.USER_PRIVATE}
    for name in (CBD, DOCKS, CLOUD):
        node = roamed.nodes[name]
        with node.database.read() as tx, node.keys.read() as keys:
            assert not streams.get(tx, private)
            assert not keys.execute(select(tables.data_keys).where(tables.data_keys.c.stream_id.in_(private))).all()


def test_the_keys_that_an_attach_gives_away_do_not_open_it(roamed: Wire) -> None:
    private = traces(roamed, Tier.USER_PRIVATE)
    given = [session_keys(roamed, *each) for each in attaches(roamed)]
    sessions = {key for keys in given for key in (keys.session, *(k for each in keys.previous.values() for k in each))}
    assert len(sessions) >= 3
    with roamed.nodes[WATCH].database.read() as tx:
        stored = [each for each in segments.page(tx, after_id=0, limit=100) if each.tier is Tier.USER_PRIVATE]
    for each in stored:
        for session in sessions:
            for key in (session, state_key(session, each.stream)):
                assert key not in private.values()
                with pytest.raises(Exception, match="does not open"):
                    open_body(key, each.stream, each.seq_first, private[f"ciphertext {each.id}"])
