"""The demo's data, read once, and the views that its policy would give."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from datasync.demo.recordings import PRIVATE, PUBLIC_CHANNELS, DemoData, load

START_MS = 1_700_000_000_000


@pytest.fixture(scope="session")
def data() -> DemoData:
    return load(3, 10, start_ms=START_MS)


@pytest.fixture(scope="session")
def edge_views(data: DemoData) -> dict[str, pa.Table]:
    columns = ["exercise", "recording", "sample", "ax", "ay", "az", "wx", "wy", "wz"]
    return {
        edge: pa.Table.from_batches([device.rows for device in data.devices if device.home == edge])
        .filter(pc.field("exercise") != PRIVATE)
        .select(columns)
        for edge in ("acme/cbd", "acme/docks")
    }


@pytest.fixture(scope="session")
def cloud_view(edge_views: dict[str, pa.Table]) -> pa.Table:
    view = pa.concat_tables(edge_views.values()).drop_columns(["wx", "wy", "wz"])
    for channel in PUBLIC_CHANNELS:
        view = view.set_column(view.column_names.index(channel), channel, pc.round(view[channel], 1))
    return view
