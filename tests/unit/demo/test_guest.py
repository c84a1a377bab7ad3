"""The demo's guest: what it records can be told from everything else, in every tier."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from datasync.demo.forgetting import Confirmed, Forgotten
from datasync.demo.guest import PIECE_ROWS, guest_of, needles
from datasync.demo.recordings import CHANNELS, SCHEMA, DemoData
from datasync.demo.remains import Held


def content(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def test_what_is_known_of_the_guest_is_in_its_rows_and_in_nobody_elses(data: DemoData) -> None:
    guest = guest_of(data, 3)
    known = needles(guest)
    own = [guest.rows.slice(first, PIECE_ROWS) for first in range(0, guest.rows.num_rows, PIECE_ROWS)]
    mine, others = b"".join(map(content, own)), b"".join(content(device.rows) for device in data.devices)
    assert [name for name, needle in known.items() if needle not in mine] == []
    assert [name for name, needle in known.items() if needle in others] == []


def test_something_is_known_of_every_tier(data: DemoData) -> None:
    guest = guest_of(data, 3)
    known = set(needles(guest).values())
    for private in (guest.user_id, guest.rows["note"][0].as_py()):
        assert private.encode() in known
    assert guest.rows["exercise"][0].as_py().encode() in known, "public"
    assert any(len(each) == 32 and each in np.asarray(guest.rows["ax"]).tobytes() for each in known), "edge-private"


def test_the_guest_records_as_the_others_do_and_no_recording_of_theirs(data: DemoData) -> None:
    guest = guest_of(data, 3)
    assert guest.rows.schema == SCHEMA
    guest.rows.validate(full=True)
    for channel in CHANNELS:
        assert np.array_equal(guest.rows[channel], -np.asarray(data.devices[-1].rows[channel])[: guest.rows.num_rows])
    numbers = {number for device in data.devices for number in pc.unique(device.rows["recording"]).to_pylist()}
    assert not numbers & set(guest.rows["recording"].to_pylist())


FORGOTTEN = Forgotten(
    device="guest",
    command="datasync subject erase",
    held=(Held("guest", 3, 3, 3, 2), Held("acme/cbd", 2, 2, 2, 1)),
    planted=2,
    planted_found=2,
    down="borealis/hub",
    awaited=("borealis/hub",),
    confirmed=tuple(Confirmed(place, 1, 1, 1, 0.5) for place in ("guest", "acme/cbd", "borealis/hub")),
    seconds=3.0,
    seconds_after_return=1.0,
    recording=2,
    copies=5,
    copies_opened=0,
    keys=5,
    keys_left=0,
)


@pytest.mark.parametrize(
    ("wrong", "is_clean"),
    [
        ({}, True),
        ({"planted_found": 1}, False),
        ({"planted": 0, "planted_found": 0}, False),
        ({"copies": 0}, False),
        ({"keys": 0}, False),
        ({"confirmed": FORGOTTEN.confirmed[:1]}, False),
        ({"copies_opened": 1}, False),
        ({"keys_left": 1}, False),
    ],
)
def test_who_is_forgotten_was_there_and_is_nowhere_now(wrong: dict[str, object], is_clean: bool) -> None:
    assert replace(FORGOTTEN, **wrong).is_clean is is_clean
