"""The comparison of the stages: that it measures what it says and tells when the order does not hold."""

import json

import pytest

from datasync.ai.experiment import STAGES, EdgeData, Measure, Report, Split, experiment
from datasync.domain.errors import LearningError

PACES = ("slow", "middle", "fast")


def report(*means: tuple[float, ...]) -> Report:
    """One edge, one seed for each tuple of the stages' accuracies."""
    return Report(
        tuple(
            Measure(seed, "acme/cbd", stage, accuracy, accuracy / 2, 10)
            for seed, accuracies in enumerate(means)
            for stage, accuracy in zip(STAGES, accuracies, strict=True)
        ),
        {},
    )


def test_stages_that_improve_are_in_order():
    found = report((0.1, 0.2, 0.3, 0.4), (0.3, 0.4, 0.5, 0.6))
    assert found.ordered
    assert found.sentence == "Mean of 2 seeds and 1 edges: each stage is better than the last."
    assert found.mean("scratch") == pytest.approx(0.2)
    assert found.mean("scratch", seed=1) == 0.3
    assert found.old_mean("incremental") == pytest.approx(0.25)


@pytest.mark.parametrize("transferred", [0.2, 0.15])
def test_a_stage_that_does_not_improve_is_said_so_with_its_figures(transferred):
    found = report((0.1, 0.2, transferred, 0.4))
    assert not found.ordered
    assert f"transferred at {transferred:.3f} is not above pre_trained at 0.200" in found.sentence
    assert not found.to_dict()["ordered"]


def test_a_single_seed_out_of_order_is_said_though_the_mean_holds():
    found = report((0.1, 0.2, 0.3, 0.4), (0.1, 0.5, 0.45, 0.6))
    assert found.ordered
    assert "transferred at 0.450 is not above pre_trained at 0.500 (seed 1)" in found.sentence


def test_each_learner_is_tested_on_held_out_windows_and_forgetting_on_the_old_ones(seen):
    edge = EdgeData(
        before=seen(["slow", "fast"], samples=400, seed=1),
        after=seen(["left", "middle"], samples=400, seed=2),
        held_out=seen(["slow", "fast", "left", "middle"], seed=3),
        old=seen(["slow", "fast"], seed=4),
    )
    found = experiment({seed: Split(seen(PACES, ["a"], seed=9), {"acme/cbd": edge}) for seed in (0, 1)})
    assert {(measure.seed, measure.stage) for measure in found.measures} == {(s, t) for s in (0, 1) for t in STAGES}
    assert {measure.windows for measure in found.measures} == {len(edge.held_out)}
    assert [found.mean(stage) for stage in STAGES] == pytest.approx([0.5, 0.75, 0.75, 1.0], abs=0.02)
    assert found.old_mean("incremental") == 1.0
    assert found.seen_before == {"acme/cbd": {"slow": 2 * 7, "fast": 2 * 7}}


def test_the_report_is_plain_json(seen):
    data = json.loads(json.dumps(report((0.1, 0.2, 0.3, 0.4)).to_dict()))
    assert data["accuracy"]["overall"]["incremental"] == 0.4
    assert data["accuracy"]["acme/cbd"] == data["accuracy"]["overall"]
    assert len(data["measures"]) == 4


def test_nothing_to_measure_is_an_error_and_not_an_empty_report(seen):
    with pytest.raises(LearningError, match="no edge"):
        experiment({0: Split(seen(PACES, ["a"]), {})})
