"""What must hold of all that subjects wanted erased, when a simulated world has come to rest.

Every place that had something of it has signed a receipt that the device has; nowhere is a stream, a segment, a data
key, or a file with a byte of any body or wrapped key from before; and no key that is left anywhere opens a copy of
what was stored anywhere when the subject made the wish. Then each device that erased moves on, and all holds again.
"""

from collections.abc import Container, Iterable
from contextlib import suppress

from sqlalchemy import select

from datasync.domain.clock import Instant
from datasync.domain.errors import Undecipherable
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Place
from datasync.handover import accounts, whereabouts
from datasync.nodes.device import DeviceNode
from datasync.nodes.node import Move
from datasync.protocol import envelope
from datasync.protocol.parts import EraseReceipt, decode_part
from datasync.security.vault import open_body, state_key
from datasync.store import erasures, tables
from tests.simulation.erasing import Asked, Copy, ErasingSimulator
from tests.simulation.simulator import START_MS
from tests.simulation.world import Process


def check_erasures(simulator: ErasingSimulator) -> None:
    """Look for everything that was erased, everywhere. Raises AssertionError."""
    doomed = {process.name: _doomed(process) for process in simulator.processes}
    everywhere = frozenset().union(*doomed.values())
    for process in simulator.processes:
        _check_keys(process, everywhere)
        _check_files(simulator, process, everywhere)
    sessions = _session_keys(simulator)
    for asked in simulator.granted:
        _check_receipts(simulator, asked, doomed[asked.walk.process.name])
        mine = [each for each in simulator.granted if each.walk is asked.walk]
        forgotten = any(each.wish.all_collections for each in mine[mine.index(asked) :])
        gone = [each for each in asked.copies if each.stream in everywhere]
        _check_copies(simulator, gone, sessions if forgotten else set())
        simulator.counts["copies that nothing opens"] += len(gone)


def move_on(simulator: ErasingSimulator) -> None:
    """Let every device that erased something go to another edge, without faults. Raises AssertionError."""
    for walk in (each for each in simulator.walks if each.wishes):
        assert isinstance(walk.process.node, DeviceNode)
        others = [name for name in simulator.edges if name != walk.process.node.whereabouts.edge]
        target, planned = simulator.moods.choice(others), simulator.moods.random() < 0.5
        simulator.deliver_input(walk.process, Move(next(simulator.tickets), target, planned))
    simulator.run_until(simulator.now_ms + 1_000, lambda: False)
    simulator.run_until(simulator.now_ms + 60_000, simulator.is_settled)
    assert simulator.is_settled(), simulator.describe()


def _doomed(process: Process) -> set[StreamId]:
    """Return the streams that a node erased, and those that stood for them there."""
    with process.database.read() as tx:
        found = erasures.page(tx, after=None, limit=10_000)
    assert all(each.shredded for each in found), f"{process.name} has keys to destroy"
    return {stream for each in found for stream in (each.stream, *each.erased.derived)}


def _check_keys(process: Process, doomed: frozenset[StreamId]) -> None:
    keys = tables.data_keys.c.stream_id
    with process.keys.read() as tx:
        left = tx.scalars(select(keys).where(keys.in_(doomed))).all()
    assert not left, f"{process.name} has keys of streams that were erased: {left}"


def _check_receipts(simulator: ErasingSimulator, asked: Asked, gone: set[StreamId]) -> None:
    device = asked.walk.process
    with device.database.read() as tx:
        kept = erasures.receipts(tx, gone)
    signers: dict[StreamId, set[NodeName]] = {stream: set() for stream in gone}
    for each in kept:
        assert each.signed is not None, f"{device.name} awaits the receipt of {each.place}"
        signers[each.stream].add(_signer(simulator, each.stream, each.signed))
    held_by: dict[StreamId, set[NodeName]] = {}
    for copy in asked.copies:
        held_by.setdefault(copy.original, set()).add(copy.place)
    for stream, tier in asked.tiers.items():
        if asked.wish.everything or tier <= Place.EDGE.highest_tier:
            told = {simulator.cloud.name} if tier <= Place.EDGE.highest_tier else set()
            missing = {device.name, *told, *held_by.get(stream, ())} - signers[stream]
            assert not missing, f"{missing} gave no receipt for {stream}\n{simulator.describe()}"


def _signer(simulator: ErasingSimulator, stream: StreamId, raw: bytes) -> NodeName:
    now = Instant(START_MS + simulator.now_ms, simulator.now_ms)
    signed = envelope.verify(raw, EraseReceipt.CONTEXT, simulator.trust, now, bytes_max=8_192)
    receipt = decode_part(EraseReceipt, signed.body)
    assert (receipt.stream, receipt.place) == (stream, signed.peer.name)
    return signed.peer.name


def _check_files(simulator: ErasingSimulator, process: Process, doomed: Container[StreamId]) -> None:
    if simulator.granted:
        simulator.compact(process)
    content = simulator.files(process)
    for asked in simulator.granted:
        found = asked.remains(process, content, doomed)
        assert not found, f"files of {process.name} still have {len(found)} things\n{simulator.describe()}"
    for name in (walk.process.name for walk in simulator.walks):
        found = {text for text in (f"person of {name}", f"secret {name} ", f"{name}/") if text.encode() in content}
        assert not found, f"files of {process.name} have {found}, which is not encrypted"


def _check_copies(simulator: ErasingSimulator, copies: Iterable[Copy], sessions: set[bytes]) -> None:
    for copy in {(each.stream, each.key_id): each for each in copies}.values():  # one of those under the same key
        for process in simulator.processes:
            assert not process.vault.has(copy.stream, copy.key_id), f"{process.name} opens a copy from {copy.place}"
        opening = [session for session in sessions if _opens(copy, session)]
        assert not opening, f"a session key opens a copy from {copy.place}\n{simulator.describe()}"


def _opens(copy: Copy, session: bytes) -> bool:
    with suppress(Undecipherable):
        return bool(open_body(state_key(session, copy.stream), copy.stream, copy.seq_first, copy.body))
    return False


def _session_keys(simulator: ErasingSimulator) -> set[bytes]:
    """Return every session key that any node has."""
    found: set[bytes] = set()
    for walk in simulator.walks:
        with walk.process.database.read() as tx:
            ring = whereabouts.load(tx, walk.process.vault, walk.process.name).ring
        found.update([ring.session, *(key for keys in ring.by_edge.values() for key in keys)])
        for edge in simulator.edges.values():
            with edge.database.read() as tx:
                kept = accounts.load_keys(tx, edge.vault, walk.process.name)
            if kept is not None:
                found.update([kept.session, *(key for keys in kept.previous.values() for key in keys)])
    return found
