"""The contract of sightings and models, on SQLite and on PostgreSQL."""

import pytest

from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.store import erasures, models, sightings
from datasync.store.database import Database
from datasync.store.erasures import Erased, Erasure
from datasync.store.models import After, ModelId, State, StoredModel, View, Wanted
from datasync.store.sightings import Reading, Sighting

A, B, C = (StreamId(letter * 32) for letter in "abc")
ONE, TWO, THREE = (ModelId(digit * 32) for digit in "123")


def reading(after: int, until: int, *, worker: str = "coach", purpose: str = "improve") -> Reading:
    return Reading(worker, "trips", purpose, after, until)


def model(
    name: ModelId, *, parent: ModelId | None = None, created_ms: int = 5, label: Tier = Tier.PUBLIC
) -> StoredModel:
    return StoredModel(
        model=name,
        name="speeds",
        worker="coach",
        label=label,
        purposes=("improve",),
        parent=parent,
        views=(View("trips", "improve", 0, 9, ("d" * 64,)),),
        policy_digest="d" * 64,
        digest="e" * 64,
        size_bytes=8,
        key_id="f" * 32,
        created_ms=created_ms,
        lineage=b"signed",
    )


@pytest.fixture
def family(database: Database) -> Database:
    """A model, its child and its grandchild; the first was trained on two streams, the last on one of these, too."""
    with database.write() as tx:
        models.add(tx, model(ONE), [b"first", b"second"], [A, B])
        models.add(tx, model(TWO, parent=ONE, created_ms=6), [b"first"], [])
        models.add(tx, model(THREE, parent=TWO, created_ms=6, label=Tier.EDGE_PRIVATE), [], [B])
    return database


def test_what_was_shown_is_found_by_any_part_of_the_positions_and_by_nothing_else(database: Database) -> None:
    with database.write() as tx:
        sightings.add(tx, reading(0, 10), {A: Tier.EDGE_PRIVATE, B: Tier.PUBLIC}, "1" * 64)
        sightings.add(tx, reading(20, 30), {A: Tier.EDGE_PRIVATE}, "2" * 64)
        sightings.add(tx, reading(2, 8), {A: Tier.EDGE_PRIVATE}, "3" * 64)
        sightings.add(tx, reading(0, 10), {}, "4" * 64)
    a, b = Sighting(A, Tier.EDGE_PRIVATE, "3" * 64), Sighting(B, Tier.PUBLIC, "1" * 64)
    with database.read() as tx:
        assert sightings.within(tx, reading(0, 10)) == [a, b]
        assert sightings.within(tx, reading(9, 40)) == [a, b]
        assert sightings.within(tx, reading(10, 12)) == [a], "what is between two readings counts as read"
        assert sightings.within(tx, reading(30, 40)) == []
        assert sightings.within(tx, reading(0, 10, worker="other")) == []
        assert sightings.within(tx, reading(0, 10, purpose="other")) == []


def test_a_model_is_kept_as_it_came(family: Database) -> None:
    with family.read() as tx:
        assert models.get(tx, ONE) == model(ONE)
        assert models.get(tx, "9" * 32) is None
        assert [models.part(tx, ONE, number) for number in (0, 1, 2)] == [b"first", b"second", None]
        assert models.streams_of(tx, ONE) == [A, B]


def test_models_are_found_by_streams_and_by_parents(family: Database) -> None:
    with family.read() as tx:
        assert [each.model for each in models.trained_on(tx, [B, C])] == [ONE, THREE]
        assert models.trained_on(tx, [C]) == []
        assert [each.model for each in models.children(tx, [ONE, THREE])] == [TWO]


def test_lists_go_on_where_a_page_ended_and_name_states_and_labels(family: Database) -> None:
    with family.write() as tx:
        assert [each.model for each in models.page(tx, limit=2)] == [THREE, TWO]
        assert [each.model for each in models.page(tx, limit=2, after=After(6, THREE))] == [TWO, ONE]
        assert [each.model for each in models.page(tx, limit=2, after=After(6, TWO))] == [ONE]
        assert [each.model for each in models.page(tx, limit=9, wanted=Wanted(label=Tier.EDGE_PRIVATE))] == [THREE]
        assert models.page(tx, limit=9, wanted=Wanted(worker="other")) == []
        models.mark(tx, [TWO], State.RETRAIN, 7)
        assert [each.model for each in models.page(tx, limit=9, wanted=Wanted(state=State.RETRAIN))] == [TWO]


def test_an_erasure_without_another_state_is_only_noted(family: Database) -> None:
    with family.write() as tx:
        models.mark(tx, [ONE], None, 7)
        found = models.get(tx, ONE)
        assert found is not None
        assert (found.state, found.erased_ms) == (State.CURRENT, 7)


def test_of_a_deleted_model_the_row_and_the_streams_stay_and_its_key_is_doomed_until_it_is_gone(
    family: Database,
) -> None:
    with family.write() as tx:
        models.mark(tx, [ONE], None, 7)
        models.delete(tx, [ONE, TWO])
        assert models.doomed(tx, 9) == [ONE], "the key of what no erasure deleted is destroyed by who deleted it"
        models.forget_keys(tx, [ONE])
        assert models.doomed(tx, 9) == []
        found = models.get(tx, ONE)
        assert found is not None
        assert (found.state, found.key_id) == (State.DELETED, None)
        assert models.part(tx, ONE, 0) is None
        assert models.streams_of(tx, ONE) == [A, B]
        assert models.count(tx, "coach") == 1


def test_it_is_known_how_many_of_its_streams_are_erased(family: Database) -> None:
    with family.write() as tx:
        erasures.add(tx, Erasure(B, HybridTime(1, 0), b"said", Erased()))
        assert models.erased_streams(tx, [ONE, TWO, THREE]) == {ONE: 1, THREE: 1}
