"""The contract of stored consents, peers, workers and policies, on SQLite and on PostgreSQL."""

import dataclasses
from itertools import permutations

import pytest

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import NotFound, StoreError
from datasync.domain.ids import StreamId
from datasync.store import consents, peers, policies, revisions, workers
from datasync.store.consents import Consent
from datasync.store.database import Database
from datasync.store.peers import KnownPeer
from datasync.store.policies import StoredPolicy
from datasync.store.segments import State
from datasync.store.workers import WorkerToken

A, B = StreamId("a" * 32), StreamId("b" * 32)


def consent(stream: StreamId = A, purpose: str = "research", given: bool = True, at: int = 1) -> Consent:
    return Consent(stream, purpose, given, HybridTime(at, 2), f"signed {at} {given}".encode(), State.WAITING)


def test_consents_come_back_with_every_field(database: Database) -> None:
    rows = [consent(A, "ads", given=False), consent(A, "research"), consent(B, "research")]
    with database.write() as tx:
        assert [consents.put(tx, row) for row in reversed(rows)] == [True] * 3
    with database.read() as tx:
        assert consents.of_streams(tx, [A, B]) == rows
        assert consents.of_streams(tx, [A, B], "research") == rows[1:]
        assert consents.of_streams(tx, []) == []


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_latest_statement_wins_in_whatever_order_they_arrive(database: Database, order: tuple[int, ...]) -> None:
    statements = [consent(given=True, at=1), consent(given=False, at=2), consent(given=True, at=3)]
    with database.write() as tx:
        for number in order:
            consents.put(tx, statements[number])
        assert not consents.put(tx, consent(given=True, at=3)), "one as old as what is known changes nothing"
        assert consents.of_streams(tx, [A]) == [statements[2]]


@pytest.mark.parametrize("order", list(permutations([True, False])), ids=str)
def test_of_two_statements_of_one_moment_the_withdrawal_wins(database: Database, order: tuple[bool, ...]) -> None:
    with database.write() as tx:
        for given in (*order, *order):
            consents.put(tx, consent(given=given, at=3))
        assert consents.of_streams(tx, [A]) == [consent(given=False, at=3)]


def test_a_statement_waits_until_it_was_sent_on(database: Database) -> None:
    sent, newer = consent(A, at=1), consent(A, at=2)
    other = consent(B)
    with database.write() as tx:
        consents.put(tx, sent)
        consents.put(tx, other)
        assert consents.waiting(tx, limit=9) == [sent, other]
        assert consents.waiting(tx, limit=1) == [sent]
        consents.put(tx, newer)
        consents.mark(tx, [sent, other], State.SAFE)
        consents.mark(tx, [], State.SAFE)
        assert consents.waiting(tx, limit=9) == [newer], "acknowledging the old one says nothing about the new one"


def test_the_consents_of_deleted_streams_are_gone(database: Database) -> None:
    with database.write() as tx:
        consents.put(tx, consent(A))
        consents.put(tx, consent(B))
        consents.delete(tx, [A])
        assert consents.of_streams(tx, [A, B]) == [consent(B)]


def test_peers_are_kept_by_name_and_listed_by_role(database: Database) -> None:
    docks = KnownPeer(name="acme/docks", role="edge", certificate=b"der", load=0.25, nonce="n", address="a", seen_ms=1)
    cbd = KnownPeer(name="acme/cbd", role="edge", certificate=b"old", seen_ms=1)
    cloud = KnownPeer(name="acme/cloud", role="cloud", certificate=b"der", seen_ms=1)
    with database.write() as tx:
        for peer in (docks, cloud, cbd):
            peers.put(tx, peer)
        cbd = dataclasses.replace(cbd, certificate=b"new", seen_ms=2)
        peers.put(tx, cbd)
        assert peers.get(tx, "acme/docks") == docks
        assert peers.get(tx, "acme/none") is None
        assert peers.all(tx) == [cbd, cloud, docks]
        assert peers.all(tx, "edge") == [cbd, docks]
        peers.delete(tx, "acme/cbd")
        assert peers.all(tx, "edge") == [docks]


def test_a_worker_is_found_by_its_token_until_the_token_ends(database: Database) -> None:
    token = WorkerToken(worker_id="w", token_hash=workers.token_hash("secret"), created_ms=1, expires_ms=100)
    other = WorkerToken(
        worker_id="v", token_hash=workers.token_hash("other"), created_ms=1, purposes=("test.run", "test.train")
    )
    with database.write() as tx:
        workers.put(tx, token)
        workers.put(tx, other)
    with database.read() as tx:
        assert workers.by_token(tx, workers.token_hash("secret"), Instant(99, 0)) == token
        assert workers.by_token(tx, workers.token_hash("secret"), Instant(100, 0)) is None
        assert workers.by_token(tx, workers.token_hash("other"), Instant(1 << 50, 0)) == other
        assert workers.by_token(tx, workers.token_hash("wrong"), Instant(1, 0)) is None
        assert workers.by_token(tx, "secret", Instant(1, 0)) is None
        assert workers.get(tx, "w") == token
        assert workers.get(tx, "x") is None
        assert workers.all(tx) == [other, token]


def test_a_new_token_of_a_worker_ends_the_former_one(database: Database) -> None:
    former = WorkerToken(worker_id="w", token_hash=workers.token_hash("one"), created_ms=1)
    with database.write() as tx:
        workers.put(tx, former)
        workers.put(tx, dataclasses.replace(former, token_hash=workers.token_hash("two")))
        assert workers.by_token(tx, workers.token_hash("one"), Instant(2, 0)) is None
        assert workers.delete(tx, "w") is True
        assert workers.delete(tx, "w") is False
        assert workers.by_token(tx, workers.token_hash("two"), Instant(2, 0)) is None


def test_two_workers_cannot_have_one_token(database: Database) -> None:
    token = WorkerToken(worker_id="w", token_hash=workers.token_hash("one"), created_ms=1)
    with database.write() as tx:
        workers.put(tx, token)
    with pytest.raises(StoreError), database.write() as tx:
        workers.put(tx, dataclasses.replace(token, worker_id="v"))


def test_exactly_the_activated_policy_is_active(database: Database) -> None:
    rows = [
        StoredPolicy(revision=n, digest=str(n) * 64, source=b"yaml", bundle=b"cose", received_ms=n) for n in (1, 2, 3)
    ]
    with database.write() as tx:
        assert policies.active(tx) is None
        for row in rows:
            policies.add(tx, row)
        assert policies.active(tx) is None
        policies.activate(tx, 2)
        policies.activate(tx, 3)
        policies.activate(tx, 1)
        policies.activate(tx, 3)
        policies.activate(tx, 3)
        assert policies.active(tx) == dataclasses.replace(rows[2], active=True)
        assert policies.get(tx, 2) == rows[1]
        assert policies.get(tx, 4) is None
        assert [row.revision for row in policies.all(tx)] == [3, 2, 1]


def test_activating_an_unknown_policy_leaves_the_active_one_active(database: Database) -> None:
    row = StoredPolicy(revision=1, digest="1" * 64, source=b"yaml", bundle=b"cose", received_ms=1)
    with database.write() as tx:
        policies.add(tx, row)
        policies.activate(tx, 1)
        with pytest.raises(NotFound, match="revision 2"):
            policies.activate(tx, 2)
        active = policies.active(tx)
    assert active is not None
    assert active.revision == 1


def test_a_revision_cannot_be_stored_twice(database: Database) -> None:
    row = StoredPolicy(revision=1, digest="1" * 64, source=b"yaml", bundle=b"cose", received_ms=1)
    with database.write() as tx:
        policies.add(tx, row)
    with pytest.raises(StoreError), database.write() as tx:
        policies.add(tx, row)


def test_each_nodes_revision_is_what_it_said_last(database: Database) -> None:
    with database.write() as tx:
        for node, revision in (("acme/cbd", 1), ("acme/docks", None), ("acme/cbd", 4)):
            revisions.put(tx, node, revision)
        assert (revisions.get(tx, "acme/cbd"), revisions.get(tx, "acme/none")) == (4, None)
        assert revisions.of(tx, ["acme/cbd", "acme/docks", "acme/none"]) == {"acme/cbd": 4, "acme/docks": None}
        assert revisions.of(tx, []) == {}


def test_the_last_refusal_of_a_policy_is_kept(database: Database) -> None:
    with database.write() as tx:
        assert policies.last_refusal(tx) is None
        for number in range(2):
            last = policies.Refusal("POLICY_INVALID", f"line {number}", number)
            policies.refuse(tx, last)
        assert policies.last_refusal(tx) == last
