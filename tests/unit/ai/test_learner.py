"""Learners as values: bytes there and back, and nothing else accepted."""

import pickle

import numpy as np
import pytest

from datasync.ai.learner import MAGIC, Learner, Lineage
from datasync.ai.learning import pretrain
from datasync.domain.errors import LearningError
from datasync.domain.limits import MESSAGE_BYTES_MAX
from datasync.domain.tiers import Tier

LINEAGE = Lineage("motion", "improve.train", 42, "ab" * 32, Tier.EDGE_PRIVATE, "cd" * 32)


@pytest.fixture
def learner(seen) -> Learner:
    return pretrain(seen(["slow", "middle", "fast"], samples=300), lineage=LINEAGE)


def test_a_learner_comes_back_from_its_bytes_whole(learner, seen):
    back = Learner.from_bytes(learner.to_bytes())
    fresh = seen(["fast", "slow"], seed=5)
    assert back.lineage == LINEAGE
    assert (back.labels, back.names) == (learner.labels, learner.names)
    assert np.array_equal(back.probabilities(fresh), learner.probabilities(fresh))
    assert np.array_equal(back.memory, learner.memory)
    assert np.array_equal(back.memory_labels, learner.memory_labels)
    assert back.digest == learner.digest


def test_a_blank_learner_comes_back_too():
    blank = Learner.blank(LINEAGE)
    assert Learner.from_bytes(blank.to_bytes()).digest == blank.digest


def test_learners_that_differ_have_different_digests(learner, seen):
    assert pretrain(seen(["slow", "middle", "fast"], samples=300)).digest != learner.digest


def test_truncated_bytes_are_refused_wherever_they_end(learner):
    data = learner.to_bytes()
    ends = [*range(len(MAGIC) + 40), *range(len(data) - 40, len(data))]
    for end in ends:
        with pytest.raises(LearningError):
            Learner.from_bytes(data[:end])


def test_bytes_with_something_appended_are_refused(learner):
    with pytest.raises(LearningError):
        Learner.from_bytes(learner.to_bytes() + bytes(8))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"memory":', b'"memory":-'),
        (b'"memory":', b'"memory":9'),
        (b'"tier":1', b'"tier":7'),
        (b'"slow"', b'"fast"'),
        (b'"labels":', b'"lables":'),
        (b'{"labels"', b'{"extra":1,"labels"'),
        (b'{"labels"', b'{ "labels"'),
        (b'"purpose":', b'"more":1,"purpose":'),
        (MAGIC, b"datasync.learner/2\n"),
    ],
)
def test_a_header_that_is_wrong_is_refused(learner, old, new):
    data = learner.to_bytes()
    assert old in data
    with pytest.raises(LearningError):
        Learner.from_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(learner, number):
    data = learner.to_bytes()
    with pytest.raises(LearningError, match="finite"):
        Learner.from_bytes(data[:-8] + np.float64(number).tobytes())


@pytest.mark.parametrize("number", [-1.0, 3.0, 0.5])
def test_a_memory_of_a_label_that_is_not_there_is_refused(learner, number):
    data = learner.to_bytes()
    with pytest.raises(LearningError, match="remembers"):
        Learner.from_bytes(data[:-8] + np.float64(number).tobytes())


def test_a_pickle_is_refused_and_not_opened(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("opened").touch, ())

    with pytest.raises(LearningError):
        Learner.from_bytes(pickle.dumps(Payload()))
    assert not tmp_path.joinpath("opened").exists()


def test_bytes_over_the_limit_are_refused_unread():
    with pytest.raises(LearningError, match="limit"):
        Learner.from_bytes(bytes(MESSAGE_BYTES_MAX + 1))


def test_a_learner_ignores_channels_that_it_does_not_know(seen):
    learner = pretrain(seen(["slow", "fast"], ["a"]))
    both = seen(["slow", "fast"], ["a", "w"], seed=3)
    assert learner.predict(both).tolist() == both.labels.tolist()


def test_a_learner_takes_channels_that_are_absent_for_average(seen):
    learner = pretrain(seen(["slow", "fast"], ["a", "w"]))
    fewer = seen(["slow", "fast"], ["a"], seed=3)
    absent = [index for index, name in enumerate(learner.names) if "w" in name]
    assert not learner.scaled(fewer)[:, absent].any()
    assert learner.predict(fewer).tolist() == fewer.labels.tolist()


def test_windows_with_nothing_in_common_are_an_error(seen):
    with pytest.raises(LearningError, match="none of the features"):
        pretrain(seen(["slow", "fast"], ["a"])).predict(seen(["slow"], ["w"]))


def test_probabilities_sum_to_one_however_far_off_a_window_is(seen, learner):
    odds = learner.probabilities(seen(["slow", "left"], seed=9))
    assert np.allclose(odds.sum(axis=1), 1)
