"""Erasing a subject: what goes where, in which order, what is pending, and that nothing ever comes back."""

from datasync.nodes.node import Erase
from datasync.protocol import envelope
from datasync.protocol.parts import EraseReceipt, decode_part
from datasync.store import erasures
from datasync.store.erasures import Erasure
from tests.unit.nodes.wire import CBD, CLOUD, DOCKS, WATCH, Wire


def erase(net: Wire, collection: str | None = None, *, everything: bool = False, wait_ms: int = 3_000) -> None:
    net.give(WATCH, Erase(77, None, collection, everything))
    net.wait(wait_ms)


def pending(net: Wire, name: str = WATCH) -> set[str]:
    with net.nodes[name].database.read() as tx:
        return erasures.awaited(tx)


def tombstones(net: Wire, name: str) -> dict[str, Erasure]:
    with net.nodes[name].database.read() as tx:
        return {each.stream: each for each in erasures.page(tx, after=None, limit=1_000)}


def receipts(net: Wire) -> dict[tuple[str, str], EraseReceipt]:
    """Return the receipts that the device has, by stream and place, verified."""
    found = {}
    with net.nodes[WATCH].database.read() as tx:
        for each in erasures.receipts(tx, tombstones(net, WATCH)):
            if each.signed is not None:
                trust = net.nodes[WATCH].kit.trust
                signed = envelope.verify(each.signed, EraseReceipt.CONTEXT, trust, net.now, bytes_max=8_192)
                found[each.stream, signed.peer.name] = decode_part(EraseReceipt, signed.body)
    return found


def key_count(net: Wire, name: str) -> int:
    from sqlalchemy import func, select

    from datasync.store import tables

    with net.nodes[name].keys.read() as tx:
        return tx.scalar(select(func.count()).select_from(tables.data_keys)) or 0


def test_everything_goes_everywhere_and_each_place_signs_what_it_deleted(net: Wire) -> None:
    net.record(1, 2, 3)
    erase(net, everything=True)
    for name in (WATCH, CBD, DOCKS, CLOUD):
        assert (net.nodes[name].rows(), key_count(net, name)) == ({}, 0), name
    assert pending(net) == set()
    by_place = {}
    for (_, place), each in receipts(net).items():
        by_place[place] = by_place.get(place, 0) + each.rows
    assert by_place == {WATCH: 9, CBD: 6, CLOUD: 3, DOCKS: 0}
    assert len(net.answers[77]) == 3
