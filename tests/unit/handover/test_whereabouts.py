"""Where a device is: epochs, visits and the keys that go with them."""

from dataclasses import replace
from pathlib import Path

import pytest

from datasync.domain import limits
from datasync.domain.errors import EventUnexpected, HandoverError
from datasync.domain.ids import HandoverId, NodeName, node_name
from datasync.handover import whereabouts
from datasync.handover.states import DeviceState
from datasync.handover.whereabouts import Whereabouts, Wish, confirm, move
from datasync.security.vault import Vault
from datasync.store.database import Database

WATCH = node_name("watch-1")
CBD, DOCKS, AIRPORT = (node_name(f"acme/{name}") for name in ("cbd", "docks", "airport"))


def key(number: int) -> bytes:
    return bytes([number]) * 32


def at(*steps: tuple[NodeName, bool]) -> Whereabouts:
    """A device that went to these edges in turn, and whether each confirmed; its n-th session key is key(n)."""
    here = Whereabouts(WATCH)
    for number, (edge, confirmed) in enumerate(steps, 1):
        here = move(here, edge, key(number), number)
        here = confirm(here, "full", number) if confirmed else here
    return here


def test_every_move_has_an_epoch_of_its_own() -> None:
    here = at((CBD, True), (DOCKS, False), (CBD, False))
    assert (here.epoch, here.edge, here.state) == (3, CBD, DeviceState.ATTACHING)


def test_the_last_that_confirmed_and_all_tried_since_may_have_state() -> None:
    here = at((CBD, True), (DOCKS, True), (AIRPORT, False), (CBD, False))
    assert [(visit.edge, visit.epoch) for visit in here.visits] == [(DOCKS, 2), (AIRPORT, 3)]


def test_the_token_says_where_from_and_answers_the_challenge() -> None:
    token = at((CBD, True), (DOCKS, False)).token(b"n" * 16)
    assert (token.edge, token.order, token.nonce) == (DOCKS, (0, 2), b"n" * 16)
    assert [visit.edge for visit in token.previous] == [CBD]


def test_a_target_gets_the_new_key_and_those_of_the_visits() -> None:
    keys = at((CBD, True), (DOCKS, False)).keys
    assert keys.session == key(2)
    assert keys.previous == {CBD: [key(1)]}


def test_an_edge_that_an_attach_may_not_have_reached_can_seal_under_the_key_before() -> None:
    keys = at((CBD, True), (DOCKS, True), (CBD, False), (AIRPORT, False)).keys
    assert keys.previous == {DOCKS: [key(2)], CBD: [key(1), key(3)]}


def test_a_confirmed_attach_makes_older_keys_of_that_edge_useless() -> None:
    keys = at((CBD, True), (DOCKS, True), (CBD, True), (AIRPORT, False)).keys
    assert keys.previous == {CBD: [key(3)]}


def test_too_many_edges_that_never_confirm_are_refused() -> None:
    here = at((CBD, True))
    for number in range(limits.PREVIOUS_MAX):
        here = move(here, node_name(f"acme/e{number}"), key(9), 0)
    with pytest.raises(HandoverError, match="did not confirm"):
        move(here, DOCKS, key(9), 0)


def test_a_confirmation_without_an_attach_is_unexpected() -> None:
    with pytest.raises(EventUnexpected):
        confirm(Whereabouts(WATCH), "full", 0)


def test_degraded_becomes_full_without_a_new_beginning() -> None:
    here = confirm(move(Whereabouts(WATCH), CBD, key(1), 5), "degraded", 7)
    assert (here.mode, here.since_ms) == ("degraded", 7)
    full = confirm(here, "full", 9)
    assert (full.mode, full.since_ms) == ("full", 7)


def test_a_restarted_device_is_where_it_was(database: Database, vault: Vault, tmp_path: Path) -> None:
    here = move(at((CBD, True), (DOCKS, False)), AIRPORT, key(3), 8, nonce=b"n" * 16, handover=HandoverId("a" * 32))
    here = replace(here, wish=Wish(CBD, 99))
    with database.write() as tx:
        assert whereabouts.load(tx, vault, WATCH) == Whereabouts(WATCH)
        whereabouts.save(tx, vault, here, 8)
        assert whereabouts.load(tx, vault, WATCH) == here
    contents = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert key(3) not in contents
