"""The demo's input: every real row once, and what is made up around it."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from datasync.demo.recordings import (
    CHANNELS,
    EXERCISES,
    PRIVATE,
    PRIVATE_ROWS,
    SCHEMA,
    dataset_path,
    load,
    read_recordings,
)
from datasync.domain.errors import ConfigError, DependencyMissing

START_MS = 1_700_000_000_000


def bounds(device):
    """First row and row after the last, of each recording."""
    sizes = [len(recording.signal) for recording in device.recordings]
    ends = np.cumsum(sizes)
    return list(zip((ends - sizes).tolist(), ends.tolist(), strict=True))


def test_the_file_has_two_recordings_of_each_exercise_by_each_subject_on_either_wrist():
    recordings = read_recordings(dataset_path())
    assert len(recordings) == 140
    assert {(r.subject, r.exercise, r.wrist) for r in recordings} == {
        (subject, exercise, wrist) for subject in range(1, 11) for exercise in EXERCISES for wrist in (0, 1)
    }


def test_ten_devices_hold_every_row_of_the_file_exactly_once_and_unchanged(data):
    content = np.load(dataset_path(), allow_pickle=True).item()["X"]
    rows = pa.Table.from_batches([device.rows for device in data.devices])
    rows = rows.sort_by([("recording", "ascending"), ("sample", "ascending")])
    assert rows["recording"].to_pylist() == [number for number, signal in enumerate(content) for _ in signal]
    assert rows["sample"].to_pylist() == [sample for signal in content for sample in range(len(signal))]
    signal = np.column_stack([rows[channel].to_numpy() for channel in CHANNELS])
    assert np.array_equal(signal, np.concatenate(content).astype(np.float32))


def test_the_rows_have_the_schema_of_the_collection_and_fifty_a_second(data):
    for device in data.devices:
        device.rows.validate(full=True)
        assert device.rows.schema == SCHEMA
        at = device.rows["at"].cast(pa.int64()).to_numpy()
        assert at[0] == START_MS * 1_000
        assert set(np.diff(at).tolist()) == {20_000}
        assert set(device.rows["user_id"].to_pylist()) == {device.user_id}


def test_exercises_are_the_real_ones_but_for_one_private_stretch(data):
    names = {recording.number: recording.exercise for device in data.devices for recording in device.recordings}
    for device in data.devices:
        exercises = np.array(device.rows["exercise"].to_pylist())
        real = np.array([names[number] for number in device.rows["recording"].to_pylist()])
        raised = np.flatnonzero(exercises == PRIVATE)
        assert raised.tolist() == list(range(raised[0], raised[0] + PRIVATE_ROWS))
        assert len(set(device.rows["recording"].take(raised).to_pylist())) == 1
        assert np.array_equal(np.delete(exercises, raised), np.delete(real, raised))


def test_canaries_are_the_only_notes_and_each_occurs_once(data):
    for device in data.devices:
        assert sorted(note for note in device.rows["note"].to_pylist() if note) == sorted(device.canaries)
        assert all(canary.startswith("canary-") and len(canary) == 39 for canary in device.canaries)
    assert len(set(data.canaries)) == len(data.canaries) == 10 * (5 + 1)
    assert all(device.user_id in data.canaries for device in data.devices)


def test_the_coordinates_to_search_for_are_in_the_rows_to_the_last_bit(data):
    for device in data.devices:
        points = {(point["lat"], point["lon"]) for point in device.rows["gps"].to_pylist()}
        assert set(device.coordinates) <= points
        assert len(set(device.coordinates)) == 25


def test_each_device_leaves_home_and_comes_back_by_turns_planned_and_reactive(data):
    for device in data.devices:
        edges = [device.home, *(move.edge for move in device.moves)]
        assert len(device.moves) in (2, 4)
        assert all(here != there for here, there in pairwise(edges))
        assert edges[-1] == device.home
        assert all(a.planned != b.planned for a, b in pairwise(device.moves))
        rows = [move.row for move in device.moves]
        assert rows == sorted(set(rows))
        assert 0 < rows[0] < rows[-1] < device.rows.num_rows


def test_both_edges_are_home_to_devices_and_both_ways_to_move_occur(data):
    assert {device.home for device in data.devices} == {"acme/cbd", "acme/docks"}
    assert {move.planned for device in data.devices for move in device.moves} == {True, False}


def test_a_device_moves_in_the_middle_of_a_recording(data):
    for device in data.devices:
        for move in device.moves:
            assert any(first + 200 < move.row < end - 200 for first, end in bounds(device))


def test_what_is_recorded_before_the_first_move_is_complete_by_then(data):
    for device in data.devices:
        complete = {
            recording.number
            for recording, (_, end) in zip(device.recordings, bounds(device), strict=True)
            if end <= device.moves[0].row
        }
        assert device.before == complete
        exercises = [r.exercise for r in device.recordings if r.number in device.before]
        assert len(exercises) == 2 * len(set(exercises)) == 8


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    first, again, other = (load(seed, 2, start_ms=START_MS) for seed in (5, 5, 6))
    assert [device.rows for device in first.devices] == [device.rows for device in again.devices]
    assert [device.moves for device in first.devices] == [device.moves for device in again.devices]
    assert not set(first.canaries) & set(other.canaries)


@pytest.mark.parametrize("devices", [0, 11])
def test_more_devices_than_subjects_are_refused(devices):
    with pytest.raises(ConfigError, match="10 subjects"):
        load(1, devices, start_ms=START_MS)


def test_an_absent_package_is_named_with_what_to_install():
    with pytest.raises(DependencyMissing, match=r"seglearn_absent .*pip install 'datasync\[demo\]'"):
        dataset_path("seglearn_absent")


def test_a_package_without_the_file_counts_as_absent():
    with pytest.raises(DependencyMissing):
        dataset_path("datasync")


@pytest.mark.parametrize("content", [{"X": []}, {"y_labels": ["RUN"]}, [1, 2]])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    np.save(tmp_path / "watch_dataset.npy", np.array(content, object), allow_pickle=True)
    with pytest.raises(ConfigError, match="not seglearn's"):
        read_recordings(tmp_path / "watch_dataset.npy")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "watch_dataset.npy").write_bytes(dataset_path().read_bytes()[:5_000])
    with pytest.raises(ConfigError, match="not seglearn's"):
        read_recordings(tmp_path / "watch_dataset.npy")
