"""Nothing under a null: what a column does not show, its buffers do not hold."""

import numpy as np
import pyarrow as pa
import pytest

from datasync.policy.arrays import clean, pick
from datasync.policy.types import POINT, TIMESTAMP

SECRET = 0x5EC2E7


def held(array):
    """Return all bytes of an array's buffers but its validity bits."""
    buffers = [each for each in array.buffers() if each is not None]
    return b"".join(each.to_pybytes() for each in buffers)


def masked(values, kind, mask=(False, True)):
    return pa.array(np.array(values, kind.to_pandas_dtype()), mask=np.array(mask))


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.float64()])
def test_a_null_number_has_nothing_underneath(kind):
    hidden = np.array([SECRET], kind.to_pandas_dtype()).tobytes()
    array = masked([1, SECRET], kind)

    assert hidden in held(array), "Arrow keeps what a mask hides"
    assert hidden not in held(clean(array))
    assert clean(array).to_pylist() == [1, None]


def test_a_null_text_has_nothing_underneath():
    source = pa.array(["a", "secret", "b"])
    array = pa.StringArray.from_buffers(3, source.buffers()[1], source.buffers()[2], pa.py_buffer(b"\x05"))

    assert b"secret" in held(array)
    assert b"secret" not in held(clean(array))
    assert clean(array).to_pylist() == ["a", None, "b"]


def test_a_null_point_has_nothing_underneath():
    parts = [pa.array([1.0, 2.5]), pa.array([3.0, 4.5])]
    array = pa.StructArray.from_arrays(parts, fields=list(POINT), mask=pa.array([False, True]))

    assert np.float64(4.5).tobytes() in held(array)
    assert np.float64(4.5).tobytes() not in held(clean(array))
    assert clean(array).to_pylist() == [{"lat": 1.0, "lon": 3.0}, None]
    assert clean(array).type == POINT


def test_a_null_list_and_a_null_vector_have_nothing_underneath():
    items = pa.array([1, SECRET], pa.int64())
    lists = pa.ListArray.from_buffers(
        pa.list_(pa.int64()), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(np.array([0, 1, 2], np.int32))], children=[items]
    )
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 7, 8], pa.float32()), 2, mask=pa.array([False, True]))

    assert np.int64(SECRET).tobytes() not in held(clean(lists))
    assert np.float32(8).tobytes() not in held(clean(vectors))
    assert clean(lists).to_pylist() == [[1], None]
    assert clean(vectors).to_pylist() == [[1, 2], None]


def test_what_is_not_picked_is_null_with_nothing_underneath():
    array = pa.array([1, SECRET], pa.int64())
    times = pa.array([1, SECRET], pa.int64()).view(TIMESTAMP)
    shown = np.array([True, False])

    for column in (array, times):
        assert np.int64(SECRET).tobytes() not in held(pick(column, shown))
        assert pick(column, shown).is_null().to_pylist() == [False, True]
        assert pick(column, shown).type == column.type


def test_a_clean_column_is_passed_on_as_it_is():
    array = pa.array([1, 2])

    assert clean(array) is array
