"""The protocol of the comparison: who is trained on what, and that nothing held out is ever trained on."""

import pytest

from datasync.ai.experiment import STAGES, experiment
from datasync.demo.recordings import CHANNELS, load
from datasync.demo.roles import is_held_out, roles, splits
from datasync.domain.errors import LearningError

SEEDS = (0, 1, 2)


def recordings_of(data):
    return {recording.number: (device, recording) for device in data.devices for recording in device.recordings}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_recording_has_exactly_one_role(data, seed):
    drawn = roles(data, seed)
    parts = [drawn.public, *(part for own in drawn.edges.values() for part in (own.before, own.after, own.held_out))]
    assert sum(map(len, parts)) == len(frozenset().union(*parts)) == 140


@pytest.mark.parametrize("seed", SEEDS)
def test_the_cloud_and_the_edges_learn_from_different_subjects(data, seed):
    known, drawn = recordings_of(data), roles(data, seed)
    cohort = {known[number][1].subject for number in drawn.public}
    assert len(cohort) == 4
    for edge, own in drawn.edges.items():
        devices = {known[number][0].name: known[number][0] for number in own.before | own.after | own.held_out}
        assert len(devices) == 3
        assert {device.home for device in devices.values()} == {edge}
        assert not cohort & {device.recordings[0].subject for device in devices.values()}


@pytest.mark.parametrize("seed", SEEDS)
def test_held_out_recordings_are_of_the_same_subjects_and_exercises_on_the_other_wrist(data, seed):
    known = recordings_of(data)
    for own in roles(data, seed).edges.values():
        trained = {(known[n][1].subject, known[n][1].exercise): known[n][1].wrist for n in own.before | own.after}
        held_out = {(known[n][1].subject, known[n][1].exercise): known[n][1].wrist for n in own.held_out}
        assert {key: 1 - wrist for key, wrist in trained.items()} == held_out


def test_no_edge_ever_learns_from_a_recording_that_another_seed_holds_out(data):
    drawn = [own for seed in range(20) for own in roles(data, seed).edges.values()]
    held_out = frozenset().union(*(own.held_out for own in drawn))
    trained = frozenset().union(*(own.before | own.after for own in drawn))
    assert not held_out & trained
    assert {number for number, (_, recording) in recordings_of(data).items() if is_held_out(recording)} >= held_out


@pytest.mark.parametrize("seed", SEEDS)
def test_before_and_old_are_of_the_exercises_done_before_the_device_left(data, seed):
    known = recordings_of(data)
    for own in roles(data, seed).edges.values():
        assert own.old < own.held_out
        assert all(number in known[number][0].before for number in own.before | own.old)
        assert not any(number in known[number][0].before for number in own.after | (own.held_out - own.old))


def test_the_edges_differ_in_what_they_have_before(data):
    known = recordings_of(data)
    counts = [
        {exercise: sum(known[n][1].exercise == exercise for n in own.before) for exercise in ("IR", "ER", "ABD", "ROW")}
        for own in roles(data, 0).edges.values()
    ]
    assert counts[0] != counts[1]


def test_the_seed_draws_the_cohort(data):
    assert len({roles(data, seed).public for seed in range(10)}) > 3
    assert roles(data, 4) == roles(data, 4)


def test_no_window_of_a_split_is_in_two_roles(data, cloud_view, edge_views):
    for seed, split in splits(data, cloud_view, edge_views).items():
        assert set(split.public.groups.tolist()) == roles(data, seed).public
        for edge, part in split.edges.items():
            assert set(part.held_out.groups.tolist()) == roles(data, seed).edges[edge].held_out
            trained = {*part.before.groups.tolist(), *part.after.groups.tolist(), *split.public.groups.tolist()}
            assert not trained & set(part.held_out.groups.tolist())
            assert set(part.old.groups.tolist()) <= set(part.held_out.groups.tolist())


def test_the_cloud_sees_no_channel_but_the_public_ones(data, cloud_view, edge_views):
    split = splits(data, cloud_view, edge_views, [0])[0]
    assert not any(channel in name for name in split.public.names for channel in CHANNELS[3:])
    assert set(split.public.names) < set(split.edges["acme/cbd"].before.names)


def test_on_the_real_recordings_every_stage_is_measured_and_learning_pays(data, cloud_view, edge_views):
    report = experiment(splits(data, cloud_view, edge_views, SEEDS))
    assert {(m.seed, m.edge, m.stage) for m in report.measures} == {
        (seed, edge, stage) for seed in SEEDS for edge in ("acme/cbd", "acme/docks") for stage in STAGES
    }
    assert report.mean("incremental") > report.mean("scratch") > 2 / 7
    assert report.mean("pre_trained") > 3 / 7


def test_one_edge_without_devices_is_left_out_and_one_device_alone_cannot_be_compared(cloud_view, edge_views):
    two, one = (load(1, devices, start_ms=0) for devices in (2, 1))
    tables = {two.devices[1].home: edge_views[two.devices[1].home].slice(0, 0)}
    assert [own.before for own in roles(one, 0).edges.values()] == [frozenset()]
    assert len(roles(two, 0).public) == 14
    with pytest.raises(LearningError, match="no edge"):
        experiment(splits(two, cloud_view, tables, [0]))
