"""The stages of learning: what carries over, what is new, what is not forgotten."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from datasync.ai.learner import Lineage
from datasync.ai.learning import accuracy, infer_on, learn_on, pretrain, train_on, transfer
from datasync.domain.errors import DependencyMissing, LearningError
from datasync.domain.tiers import Tier

PACES = ("slow", "middle", "fast")


def reader(table: pa.Table) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=77))


def test_pretraining_learns_what_the_windows_show(seen):
    assert accuracy(pretrain(seen(PACES, ["a"])), seen(PACES, ["a"], seed=1)) == 1.0


def test_transfer_learns_from_channels_that_the_parent_never_saw(seen):
    parent = pretrain(seen(["left", "right", "slow"], ["a"]))
    turns = seen(["left", "right"], seed=4)
    child = transfer(parent, seen(["left", "right", "slow"], seed=1))
    assert accuracy(parent, turns) < 0.8
    assert accuracy(child, turns) == 1.0


def test_transfer_keeps_what_the_parent_knew(seen):
    parent = pretrain(seen(PACES, ["a"]))
    child = transfer(parent, seen(["slow", "fast"], samples=200, seed=1))
    assert accuracy(child, seen(["middle"], seed=2)) == 1.0


def test_transfer_keeps_the_scales_of_the_features_that_were_there(seen):
    parent = pretrain(seen(PACES, ["a"]))
    child = transfer(parent, seen(["slow"], seed=1))
    known = len(parent.names)
    assert child.names[:known] == parent.names
    assert np.array_equal(child.scale[:known], parent.scale)
    assert len(child.names) > known


def test_learning_on_adds_an_exercise_and_does_not_forget_the_others(seen):
    parent = pretrain(seen(["slow", "fast"]))
    child = learn_on(learn_on(parent, seen(["middle"], seed=1), seed=1), seen(["middle"], seed=2), seed=2)
    assert child.labels == ("fast", "slow", "middle")
    assert accuracy(child, seen(["middle"], seed=3)) == 1.0
    assert accuracy(child, seen(["slow", "fast"], seed=3)) == 1.0


def test_learning_on_leaves_channels_aside_that_the_parent_does_not_know(seen):
    parent = pretrain(seen(PACES, ["a"]))
    assert learn_on(parent, seen(PACES, seed=1)).names == parent.names


def test_the_memory_stays_bounded_and_holds_every_label(seen):
    learner = pretrain(seen(PACES, samples=6_000))
    for seed in range(3):
        learner = learn_on(learner, seen(["slow"], samples=6_000, seed=seed))
    assert np.bincount(learner.memory_labels).tolist() == [80, 80, 80]


def test_the_parent_stays_as_it_was(seen):
    parent = pretrain(seen(PACES))
    before = parent.to_bytes()
    transfer(parent, seen(["fast", "slow"], seed=1))
    assert parent.to_bytes() == before


def test_the_same_windows_and_seed_give_the_same_learner_and_another_seed_another(seen):
    first, again, other = (pretrain(seen(PACES), seed=seed) for seed in (7, 7, 8))
    assert first.digest == again.digest != other.digest


def test_a_learner_never_is_less_private_than_its_parent_or_its_view(seen):
    public, private = Lineage(tier=Tier.PUBLIC), Lineage(tier=Tier.EDGE_PRIVATE)
    cloud = pretrain(seen(PACES, ["a"]), lineage=public)
    edge = transfer(cloud, seen(PACES), lineage=private)
    back = learn_on(edge, seen(PACES, ["a"], seed=1), lineage=public)
    assert [learner.lineage.tier for learner in (cloud, edge, back)] == [
        Tier.PUBLIC,
        Tier.EDGE_PRIVATE,
        Tier.EDGE_PRIVATE,
    ]
    assert [learner.lineage.parent for learner in (cloud, edge, back)] == ["", cloud.digest, edge.digest]


def test_a_learner_of_an_unnamed_view_counts_as_user_private(seen):
    assert pretrain(seen(PACES)).lineage.tier is Tier.USER_PRIVATE


@pytest.mark.parametrize("exercises", [[], ["slow"]])
def test_fewer_than_two_exercises_are_too_few_to_learn_from(seen, table, exercises):
    windows = seen(["slow"], samples=300)
    with pytest.raises(LearningError, match="too few"):
        pretrain(windows if exercises else windows.of(()))


def test_learning_on_without_a_window_only_rehearses(seen):
    parent = pretrain(seen(PACES))
    child = learn_on(parent, seen(["slow"]).of(()))
    assert accuracy(child, seen(PACES, seed=1)) == 1.0


def test_accuracy_without_windows_is_an_error(seen):
    with pytest.raises(LearningError, match="without windows"):
        accuracy(pretrain(seen(PACES)), seen(PACES).of(()))


def test_training_on_a_reader_equals_training_on_its_windows(table, seen):
    lineage = Lineage("motion", "improve.train", 9, "ab" * 32, Tier.EDGE_PRIVATE)
    parent = train_on(reader(table(PACES, ["a"])), ["a"], Lineage(tier=Tier.PUBLIC), seed=3)
    assert parent.digest == pretrain(seen(PACES, ["a"]), lineage=Lineage(tier=Tier.PUBLIC), seed=3).digest
    child = train_on(reader(table(PACES, seed=1)), ["a", "w"], lineage, parent=parent, seed=3)
    assert child.digest == transfer(parent, seen(PACES, seed=1), lineage=lineage, seed=3).digest
    assert child.lineage.cursor == 9


def test_inference_on_a_reader_names_each_window_and_how_sure_it_is(table, seen):
    learner = pretrain(seen(PACES))
    unlabelled = table(["fast", "slow"], samples=150, seed=5).drop_columns("exercise")
    answer = infer_on(learner, reader(unlabelled), ["a", "w"]).to_pylist()
    assert [(row["recording"], row["sample"], row["exercise"]) for row in answer] == [
        (0, 0, "fast"),
        (0, 50, "fast"),
        (1, 0, "slow"),
        (1, 50, "slow"),
    ]
    assert all(1 / 3 < row["confidence"] <= 1 for row in answer)


def test_inference_on_a_view_without_rows_answers_nothing(table, seen):
    answer = infer_on(pretrain(seen(PACES)), reader(table(PACES).slice(0, 0)), ["a", "w"])
    assert answer.num_rows == 0
    assert answer.schema.field("exercise").type == pa.string()


def test_without_scikit_learn_training_says_what_to_install(seen, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(DependencyMissing, match=r"pip install 'datasync\[demo\]'"):
        pretrain(seen(PACES))
