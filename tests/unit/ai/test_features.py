"""Windows: where they may lie and what their features say."""

import numpy as np
import pyarrow as pa
import pytest

from datasync.ai.features import windows
from datasync.domain.errors import LearningError


def rows(samples, recording=0, exercise="slow", **channels) -> pa.Table:
    samples = np.asarray(samples)
    return pa.table({
        "a": channels.get("a", np.sin(samples / 7.0)),
        "b": channels.get("b", np.cos(samples / 5.0)),
        "exercise": [exercise] * len(samples),
        "recording": np.full(len(samples), recording, np.int32),
        "sample": samples.astype(np.int32),
    })  # fmt: skip


def feature(found, name):
    return found.values[:, found.names.index(name)]


def test_windows_start_every_step_and_end_inside_the_recording():
    found = windows(rows(range(260)), ["a", "b"], window=100, step=50)
    assert found.starts.tolist() == [0, 50, 100, 150]
    assert set(found.labels) == {"slow"}
    assert found.values.shape == (4, len(found.names))
    assert len(set(found.names)) == len(found.names)


def test_no_window_spans_two_recordings():
    found = windows(pa.concat_tables([rows(range(150), 1), rows(range(150, 300), 2)]), ["a"], window=100, step=50)
    assert list(zip(found.groups.tolist(), found.starts.tolist(), strict=True)) == [(1, 0), (1, 50), (2, 150), (2, 200)]


def test_no_window_spans_rows_that_are_missing():
    found = windows(rows([*range(120), *range(130, 250)]), ["a"], window=100, step=10)
    assert found.starts.tolist() == [0, 10, 20, 130, 140, 150]


def test_no_window_spans_two_labels():
    both = pa.concat_tables([rows(range(100)), rows(range(100, 200), exercise="fast")])
    found = windows(both, ["a"], window=100, step=1)
    assert [(label, start) for label, start in zip(found.labels.tolist(), found.starts.tolist(), strict=True)] == [
        ("slow", 0),
        ("fast", 100),
    ]


def test_a_row_with_a_null_channel_counts_as_missing():
    signal = pa.array([None if sample == 100 else 1.0 * sample for sample in range(201)])
    assert windows(rows(range(201), a=signal), ["a"], window=100, step=100).starts.tolist() == [0, 101]
    assert windows(rows(range(201), a=signal), ["b"], window=100, step=100).starts.tolist() == [0, 100]


def test_the_order_of_the_rows_does_not_matter():
    ordered = pa.concat_tables([rows(range(150), 1), rows(range(150), 2)])
    shuffled = ordered.take(np.random.default_rng(0).permutation(300))
    first, second = windows(ordered, ["a", "b"]), windows(shuffled, ["a", "b"])
    assert np.array_equal(first.values, second.values)
    assert np.array_equal(first.groups, second.groups)


def test_the_same_motion_on_the_other_wrist_has_the_same_features():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 300)) + 0.5
    here, mirrored = windows(rows(range(300), a=a, b=b), ["a", "b"]), windows(rows(range(300), a=-a, b=b), ["a", "b"])
    assert np.allclose(here.values, mirrored.values)


def test_the_dominant_frequency_of_a_sine_is_its_own_and_its_energy_lies_in_that_band():
    seconds = np.arange(200) / 50
    found = windows(rows(range(200), a=np.sin(2 * np.pi * 2.0 * seconds)), ["a"])
    assert feature(found, "dominant_hz(a)").tolist() == [2.0] * 3
    assert np.allclose(feature(found, "energy_1.0_2.5_hz(a)"), 1)


def test_a_channel_that_stands_still_has_no_correlation_and_no_warning():
    found = windows(rows(range(200), a=np.full(200, 1.0)), ["a", "b"])
    assert feature(found, "correlation(a,b)").tolist() == [0.0] * 3
    assert np.isfinite(found.values).all()


def test_channels_that_move_together_correlate_whatever_their_sign():
    signal = np.random.default_rng(2).standard_normal(200)
    assert np.allclose(feature(windows(rows(range(200), a=signal, b=-2 * signal), ["a", "b"]), "correlation(a,b)"), 1)


def test_a_view_without_rows_has_no_windows():
    found = windows(rows([]), ["a", "b"])
    assert len(found) == 0
    assert found.values.shape == (0, len(found.names))


def test_windows_of_chosen_recordings_are_those_and_no_others():
    found = windows(pa.concat_tables([rows(range(100), number) for number in range(4)]), ["a"])
    assert found.of({1, 3, 9}).groups.tolist() == [1, 3]
    assert len(found.of(())) == 0


def test_without_a_label_windows_need_no_exercise():
    found = windows(rows(range(150)).drop_columns("exercise"), ["a"], label=None)
    assert found.labels.tolist() == ["", ""]


def test_an_absent_column_is_named():
    with pytest.raises(LearningError, match="no column 'wx'"):
        windows(rows(range(100)), ["a", "wx"])


@pytest.mark.parametrize(("window", "step"), [(3, 1), (100, 0), (100, -5)])
def test_a_window_or_step_that_makes_no_sense_is_refused(window, step):
    with pytest.raises(LearningError, match="at least"):
        windows(rows(range(200)), ["a"], window=window, step=step)
