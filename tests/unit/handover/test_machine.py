"""An edge's account of a device: what each event makes of it, and what it owes."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from datasync.domain import limits
from datasync.domain.errors import EpochLeap, EpochStale, EventUnexpected, HandoverError, NonceStale
from datasync.domain.ids import HandoverId, NodeName, node_name
from datasync.handover import machine
from datasync.handover.machine import Account, Duties
from datasync.handover.states import EDGE, EdgeEvent, EdgeState
from datasync.protocol.parts import AttachToken, Visit

WATCH = node_name("watch-1")
CBD, DOCKS, AIRPORT = (node_name(f"acme/{name}") for name in ("cbd", "docks", "airport"))
NONCE = b"n" * 16
HANDOVER = HandoverId("a" * 32)
T0 = 1_000_000


def token(
    edge: NodeName, epoch: int, *previous: tuple[NodeName, int], incarnation: int = 0, nonce: bytes = NONCE
) -> AttachToken:
    visits = [Visit(edge=name, incarnation=incarnation, epoch=at) for name, at in previous]
    return AttachToken(
        device=WATCH,
        incarnation=incarnation,
        epoch=epoch,
        edge=edge,
        nonce=nonce,
        previous=visits,
        handover=None,
    )


def attached(
    account: Account, edge: NodeName, epoch: int, *previous: tuple[NodeName, int], now_ms: int = T0
) -> Account:
    signed = token(edge, epoch, *previous)
    return machine.attach(account, signed, f"token {epoch}".encode(), edge, [NONCE], now_ms)


def active(edge: NodeName = CBD, epoch: int = 1) -> Account:
    return machine.catch_up(attached(Account(WATCH), edge, epoch), T0, 5_000)


def test_a_first_attach_has_nothing_to_wait_for_and_is_active_at_once() -> None:
    account = active()
    assert account.state is EdgeState.ACTIVE
    assert account.known == account.served == (0, 1)
    assert account.mode == "full"
    assert machine.duties(account) == Duties(register=True)


def test_the_same_attach_again_changes_nothing() -> None:
    account = active()
    assert attached(account, CBD, 1) is account


@pytest.mark.parametrize("epoch", [0, 4, 5])
def test_an_attach_that_is_not_newer_is_refused(epoch: int) -> None:
    frozen = machine.fence(active(epoch=3), token(DOCKS, 5, (CBD, 3)), CBD, T0)
    with pytest.raises(EpochStale):
        attached(frozen, CBD, epoch)


def test_incarnation_and_epoch_compare_as_a_pair() -> None:
    account = active(epoch=900)
    later = token(CBD, 1, incarnation=1)
    assert machine.attach(account, later, b"t", CBD, [NONCE], T0).known == (1, 1)
    with pytest.raises(EpochStale):
        machine.attach(replace(account, known=(2, 1)), later, b"t", CBD, [NONCE], T0)


def test_an_epoch_that_leaps_is_refused_even_by_an_edge_without_history() -> None:
    with pytest.raises(EpochLeap):
        attached(Account(WATCH), CBD, limits.EPOCH_LEAP_MAX + 1)
    with pytest.raises(EpochLeap):
        attached(active(epoch=5), CBD, limits.EPOCH_LEAP_MAX + 6)


def test_an_attach_for_another_edge_is_refused() -> None:
    with pytest.raises(HandoverError):
        machine.attach(Account(WATCH), token(DOCKS, 1), b"t", CBD, [NONCE], T0)


def test_an_attach_that_answers_no_challenge_is_refused() -> None:
    recorded = token(CBD, 1, nonce=b"o" * 16)
    with pytest.raises(NonceStale):
        machine.attach(Account(WATCH), recorded, b"t", CBD, [NONCE], T0)


def test_a_prepared_edge_takes_the_nonce_that_it_gave_out() -> None:
    prepared = machine.prepare(Account(WATCH), HANDOVER, (0, 1), b"p" * 16, T0)
    assert prepared.state is EdgeState.PREPARED
    answer = token(CBD, 2, (DOCKS, 1), nonce=b"p" * 16)
    assert machine.attach(prepared, answer, b"t", CBD, [NONCE], T0).state is EdgeState.CATCHING_UP


def test_preparing_again_keeps_the_nonce_and_another_handover_gets_its_own() -> None:
    prepared = machine.prepare(Account(WATCH), HANDOVER, (0, 1), b"p" * 16, T0)
    assert machine.prepare(prepared, HANDOVER, (0, 1), b"q" * 16, T0).nonce == b"p" * 16
    assert machine.prepare(prepared, HandoverId("b" * 32), (0, 1), b"q" * 16, T0).nonce == b"q" * 16


def test_a_source_that_was_overtaken_cannot_prepare() -> None:
    with pytest.raises(EpochStale):
        machine.prepare(replace(active(epoch=5), state=EdgeState.ERASED), HANDOVER, (0, 4), NONCE, T0)


def test_an_edge_catches_up_when_every_hot_set_is_here() -> None:
    account = attached(Account(WATCH), CBD, 3, (DOCKS, 1), (AIRPORT, 2))
    assert machine.duties(account) == Duties(fence=(DOCKS, AIRPORT))
    account = machine.received(account, DOCKS, hot=True, complete=False)
    assert machine.catch_up(account, T0, 5_000) is account
    account = machine.catch_up(machine.received(account, AIRPORT, hot=True, complete=True), T0, 5_000)
    assert account.state is EdgeState.ACTIVE
    assert account.mode == "degraded"
    assert machine.duties(account) == Duties(fence=(DOCKS,), activate=(AIRPORT,), register=True)
    account = machine.received(account, DOCKS, hot=True, complete=True)
    assert account.mode == "full"
    assert machine.duties(account) == Duties(activate=(DOCKS, AIRPORT), register=True)


def test_a_silent_source_is_waited_for_only_so_long() -> None:
    account = attached(Account(WATCH), CBD, 2, (DOCKS, 1))
    assert machine.catch_up(account, T0 + 4_999, 5_000) is account
    late = machine.catch_up(account, T0 + 5_000, 5_000)
    assert (late.state, late.mode) == (EdgeState.ACTIVE, "degraded")
    assert machine.duties(late).fence == (DOCKS,)


def test_the_edge_itself_is_no_source_of_its_own_state() -> None:
    assert attached(Account(WATCH), CBD, 3, (CBD, 2)).pending == ()


def test_a_newer_token_freezes_whatever_the_edge_was_doing() -> None:
    for account in (active(), attached(Account(WATCH), CBD, 1, (AIRPORT, 0))):
        frozen = machine.fence(account, token(DOCKS, 2, (CBD, 1)), CBD, T0 + 1)
        assert frozen.state is EdgeState.FROZEN
        assert (frozen.known, frozen.served, frozen.target) == ((0, 2), (0, 1), DOCKS)


def test_the_token_that_froze_it_changes_nothing_again() -> None:
    frozen = machine.fence(active(), token(DOCKS, 2, (CBD, 1)), CBD, T0)
    assert machine.fence(frozen, token(DOCKS, 2, (CBD, 1)), CBD, T0 + 9) is frozen


def test_a_newer_token_redirects_what_is_owed() -> None:
    frozen = machine.fence(active(), token(DOCKS, 2, (CBD, 1)), CBD, T0)
    again = machine.fence(frozen, token(AIRPORT, 3, (CBD, 1), (DOCKS, 2)), CBD, T0)
    assert (again.state, again.target) == (EdgeState.FROZEN, AIRPORT)
    with pytest.raises(EpochStale):
        machine.fence(again, token(DOCKS, 2, (CBD, 1)), CBD, T0)


def test_an_edge_that_was_not_visited_gives_nothing() -> None:
    with pytest.raises(EpochStale):
        machine.fence(active(), token(DOCKS, 2, (AIRPORT, 1)), CBD, T0)


def test_a_fence_that_names_the_edge_itself_is_no_fence() -> None:
    with pytest.raises(HandoverError):
        machine.fence(active(), token(CBD, 2, (CBD, 1)), CBD, T0)


def test_an_edge_that_lost_everything_learns_the_epoch_and_has_nothing() -> None:
    account = machine.fence(Account(WATCH), token(DOCKS, 2, (CBD, 1)), CBD, T0)
    assert (account.state, account.known) == (EdgeState.ERASED, (0, 2))


def test_a_copy_in_advance_is_no_state_of_its_own() -> None:
    prepared = machine.prepare(Account(WATCH), HANDOVER, (0, 1), NONCE, T0)
    assert machine.fence(prepared, token(AIRPORT, 3, (DOCKS, 1), (CBD, 2)), CBD, T0).state is EdgeState.ERASED


def test_going_back_at_once_does_not_wait_for_itself() -> None:
    """A → B → A while B still pulls from A: what B lacks is at A already."""
    at_docks = attached(Account(WATCH), DOCKS, 2, (CBD, 1))
    assert at_docks.pending == (CBD,)
    fenced = machine.fence(at_docks, token(CBD, 3, (DOCKS, 2)), DOCKS, T0)
    assert fenced.pending == ()


def test_an_edge_that_comes_back_goes_on_waiting_for_an_older_source() -> None:
    frozen = machine.fence(attached(Account(WATCH), CBD, 2, (AIRPORT, 1)), token(DOCKS, 3, (CBD, 2)), CBD, T0)
    back = attached(frozen, CBD, 4, (DOCKS, 3))
    assert back.pending == (DOCKS, AIRPORT)
    assert back.cold == (DOCKS,)


def test_a_source_is_held_then_erased_when_the_target_has_everything() -> None:
    frozen = machine.fence(active(), token(DOCKS, 2, (CBD, 1)), CBD, T0)
    held = machine.target_active(frozen, (0, 2), T0 + 10)
    assert held.state is EdgeState.HELD
    assert machine.expire(held, T0 + 30_009, hold_ms=30_000, prepared_ms=1) is held
    assert machine.expire(held, T0 + 30_010, hold_ms=30_000, prepared_ms=1).state is EdgeState.ERASED


def test_a_frozen_edge_never_changes_by_time() -> None:
    frozen = machine.fence(active(), token(DOCKS, 2, (CBD, 1)), CBD, T0)
    assert machine.expire(frozen, T0 + 10**12, hold_ms=1, prepared_ms=1) is frozen
    assert machine.catch_up(frozen, T0 + 10**12, 1) is frozen
    assert machine.expiry_ms(frozen, hold_ms=1, prepared_ms=1, source_timeout_ms=1) is None


def test_an_old_target_cannot_release_a_source_that_was_redirected() -> None:
    frozen = machine.fence(active(), token(AIRPORT, 3, (CBD, 1), (DOCKS, 2)), CBD, T0)
    with pytest.raises(EpochStale):
        machine.target_active(frozen, (0, 2), T0)


def test_an_active_edge_is_not_released_by_anybody() -> None:
    with pytest.raises(EventUnexpected):
        machine.target_active(active(), (0, 1), T0)


def test_a_release_counts_only_for_the_attach_that_asked() -> None:
    account = machine.received(attached(Account(WATCH), CBD, 2, (DOCKS, 1)), DOCKS, hot=True, complete=True)
    assert machine.released(account, DOCKS, (0, 2)).unreleased == ()
    with pytest.raises(EpochStale):
        machine.released(account, DOCKS, (0, 1))


@pytest.mark.parametrize(
    "move_on",
    [
        lambda account: machine.fence(account, token(AIRPORT, 3, (CBD, 2)), CBD, T0),
        lambda account: replace(account, state=EdgeState.HELD),
        lambda account: replace(account, state=EdgeState.ERASED),
    ],
)
def test_a_source_is_told_even_by_an_edge_that_moved_on(move_on: Callable[[Account], Account]) -> None:
    account = machine.received(attached(Account(WATCH), CBD, 2, (DOCKS, 1)), DOCKS, hot=True, complete=True)
    assert machine.duties(move_on(account)).activate == (DOCKS,)


EVENTS: dict[EdgeEvent, Callable[[Account], Account]] = {
    EdgeEvent.PREPARE: lambda account: machine.prepare(account, HANDOVER, (0, 5), NONCE, T0 + 1),
    EdgeEvent.ATTACH: lambda account: attached(account, CBD, 6, (DOCKS, 5), now_ms=T0 + 1),
    EdgeEvent.FENCE: lambda account: machine.fence(account, token(DOCKS, 6, (CBD, 5)), CBD, T0 + 1),
    EdgeEvent.TARGET_ACTIVE: lambda account: machine.target_active(account, (0, 5), T0 + 1),
}
"""What can happen to an account at (0, 5), told by others."""


@pytest.mark.parametrize(("state", "event"), list(itertools.product(EdgeState, EVENTS)))
def test_what_happens_is_in_the_table_or_raises(state: EdgeState, event: EdgeEvent) -> None:
    account = Account(WATCH, state, known=(0, 5), served=(0, 5))
    if (state, event) in EDGE:
        assert EVENTS[event](account).state is EDGE[state, event]
    else:
        with pytest.raises(EventUnexpected):
            EVENTS[event](account)


@pytest.mark.parametrize("state", EdgeState)
def test_time_moves_only_what_the_table_lets_it(state: EdgeState) -> None:
    account = Account(WATCH, state, known=(0, 5), served=(0, 5), since_ms=T0)
    late_ms = T0 + 10**9
    expired = machine.expire(account, late_ms, hold_ms=1, prepared_ms=1)
    assert expired.state is EDGE.get((state, EdgeEvent.EXPIRE), state)
    caught_up = machine.catch_up(account, late_ms, 1)
    assert caught_up.state is EDGE.get((state, EdgeEvent.CAUGHT_UP), state)
    timed = machine.expiry_ms(account, hold_ms=1, prepared_ms=1, source_timeout_ms=1)
    assert (timed is not None) == (expired is not account or caught_up is not account)


def test_an_account_that_is_told_again_that_it_may_go_stays_as_it_is() -> None:
    """A prepared return keeps the nonce that the device may be about to answer."""
    held = machine.target_active(machine.fence(active(), token(DOCKS, 2, (CBD, 1)), CBD, T0), (0, 2), T0 + 1)
    prepared = machine.prepare(held, HANDOVER, (0, 2), b"p" * 16, T0 + 2)
    assert machine.target_active(prepared, (0, 2), T0 + 3) is prepared
    assert prepared.nonce == b"p" * 16


def test_a_target_that_was_overtaken_gets_nothing() -> None:
    """A → B → C, and B's fence comes after C's: A answers B that it was overtaken."""
    fenced = machine.fence(active(), token(AIRPORT, 3, (CBD, 1), (DOCKS, 2)), CBD, T0)
    with pytest.raises(EpochStale):
        machine.fence(fenced, token(DOCKS, 2, (CBD, 1)), CBD, T0)
    assert fenced.target == AIRPORT


def test_a_fence_from_the_present_target_under_a_later_epoch_counts_though_it_does_not_name_this_edge() -> None:
    """The device attached to B again before B had everything: B still waits for A."""
    fenced = machine.fence(active(), token(DOCKS, 2, (CBD, 1)), CBD, T0)
    again = machine.fence(fenced, token(DOCKS, 3, (DOCKS, 2)), CBD, T0)
    assert (again.known, again.target) == ((0, 3), DOCKS)


def test_an_edge_that_was_away_all_the_time_gives_to_where_the_device_is_though_the_token_does_not_name_it() -> None:
    """A → B → C → B, and A was down: B still waits for A, and its token names C and itself."""
    fenced = machine.fence(active(), token(DOCKS, 4, (AIRPORT, 3)), CBD, T0)
    assert (fenced.state, fenced.known, fenced.target) == (EdgeState.FROZEN, (0, 4), DOCKS)


def test_a_fence_of_a_leaping_epoch_is_refused() -> None:
    with pytest.raises(EpochLeap):
        machine.fence(active(), token(DOCKS, limits.EPOCH_LEAP_MAX + 2, (CBD, 1)), CBD, T0)


def test_a_token_of_another_device_is_refused() -> None:
    other = replace(active(), device=node_name("watch-2"))
    with pytest.raises(HandoverError):
        machine.fence(other, token(DOCKS, 2, (CBD, 1)), CBD, T0)
    with pytest.raises(HandoverError):
        attached(other, CBD, 2)


def test_an_edge_does_not_wait_for_edges_without_end() -> None:
    """A device can name eight edges in every attach, and none of them needs to exist."""
    account = Account(WATCH)
    for epoch in range(1, limits.SOURCES_MAX // limits.PREVIOUS_MAX + 1):
        account = attached(account, CBD, epoch, *visits(epoch))
    with pytest.raises(HandoverError, match="waits for 64 edges"):
        attached(account, CBD, 99, *visits(99))
    assert len(account.pending) == len(account.unreleased) == limits.SOURCES_MAX


def visits(epoch: int) -> list[tuple[NodeName, int]]:
    return [(node_name(f"acme/e{epoch}-{number}"), 0) for number in range(limits.PREVIOUS_MAX)]
