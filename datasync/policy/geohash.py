"""Geohash (G. Niemeyer, 2008) of many points at once.

A cell is found by halving longitude and latitude in turn, longitude first; five halvings make one base-32 digit, so
the cell of a shorter hash is the prefix of a longer one. Bounds of cells are exact in float64 (360 and 180 times a
power of two), so a point on a bound goes to the upper cell as in the definition; the north pole and the date line at
180 degrees, which no cell begins at, go to the last one.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasync.policy.arrays import Mask

_DIGITS = np.frombuffer(b"0123456789bcdefghjkmnpqrstuvwxyz", dtype=np.uint8)
Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.uint64]


def encode(lat: Floats, lon: Floats, precision: int) -> pa.Array:
    """Return the geohash of each point as ``precision`` (1 to 12) digits.

    Null where a coordinate is not finite or outside of 90 and 180 degrees.
    """
    missing = ~((np.abs(lat) <= 90) & (np.abs(lon) <= 180))
    bits = 5 * precision
    columns = _cell(np.where(missing, 0, lon), 180.0, (bits + 1) // 2)
    rows = _cell(np.where(missing, 0, lat), 90.0, bits // 2)
    # The last bit is longitude's when there is an odd number of bits.
    code = (
        _spread(columns) | _spread(rows) << np.uint64(1)
        if bits % 2
        else _spread(rows) | _spread(columns) << np.uint64(1)
    )
    shifts = np.arange(bits - 5, -1, -5, dtype=np.uint64)
    digits = _DIGITS[((code[:, None] >> shifts) & np.uint64(31)).astype(np.intp)]
    digits[missing] = 0
    return _strings(digits, missing)


def _cell(degrees: Floats, half: float, bits: int) -> Cells:
    """Return the index of each coordinate's cell when ``-half..half`` is cut into ``2**bits`` cells."""
    cells = float(1 << bits)
    size = 2 * half / cells
    index = np.clip(np.floor((degrees + half) / size), 0, cells - 1)
    # The sum above is rounded, so the index can be off by one beside a bound; the bounds themselves are exact.
    index -= degrees < index * size - half
    index += (degrees >= (index + 1) * size - half) & (index < cells - 1)
    return index.astype(np.uint64)


def _spread(bits: Cells) -> Cells:
    """Return each number with a zero between every two of its (at most 30) bits."""
    for shift, mask in _SPREADS:
        bits = (bits | bits << shift) & mask
    return bits


def _strings(digits: npt.NDArray[np.uint8], missing: Mask) -> pa.Array:
    rows, width = digits.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.string(), rows, buffers)


_SPREADS = tuple(
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    )
)
