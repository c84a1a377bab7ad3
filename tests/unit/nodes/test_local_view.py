"""Views in a device's own process: logged before the first row, and ended by another policy."""

import pyarrow as pa
import pytest

from datasync.domain.errors import AccessDenied, Forbidden, NotFound
from datasync.domain.tiers import Place
from datasync.nodes.local_view import LocalView
from datasync.store import decisions, sightings
from datasync.store.sightings import Reading
from tests.unit.views.conftest import NOW, POLICY, Site


@pytest.fixture
def device(tmp_path):
    (tmp_path / "device").mkdir()
    site = Site(tmp_path / "device", Place.DEVICE, f"sqlite:///{tmp_path}/node.db")
    yield site
    site.close()


def view_of(site):
    def write(change):
        with site.database.write() as tx:
            return change(tx)

    return LocalView(site.database, site.vault, lambda: site.policy, write, lambda: NOW)


def log(site):
    with site.database.read() as tx:
        assert decisions.verify(tx) is None
        return [(each.decision.event, each.decision.code, each.decision.rows) for each in decisions.page(tx)]


def put(site, count):
    site.capture("watch-1", [{"user_id": "ann", "speed": 1.0, "mode": "bike"}] * count)


def test_a_view_is_in_the_log_before_its_first_row_and_again_at_its_end(device):
    put(device, 3)
    reader = view_of(device).open(device.policy, "coach", "trips", "service.routing", 0)
    assert log(device) == [("opened", "ALLOW", 0)]
    assert reader.read_all().num_rows == 3
    assert log(device) == [("opened", "ALLOW", 0), ("read", "ALLOW", 3)]


def test_what_the_policy_denies_is_in_the_log(device):
    with pytest.raises(AccessDenied):
        view_of(device).open(device.policy, "coach", "trips", "research.stats", 0)
    assert log(device) == [("refused", "NO_PURPOSE", 0)]


def test_only_the_devices_own_workers_read_on_it(device):
    with pytest.raises(Forbidden, match="works in place edge"):
        view_of(device).open(device.policy, "router", "trips", "service.routing", 0)
    with pytest.raises(NotFound):
        view_of(device).open(device.policy, "nobody", "trips", "service.routing", 0)


def test_another_policy_ends_an_open_view_before_its_next_chunk(device):
    put(device, 40_000)
    put(device, 40_000)
    reader = view_of(device).open(device.policy, "coach", "trips", "service.routing", 0)
    assert reader.read_next_batch().num_rows == 40_000
    device.activate(POLICY.replace("revision: 1", "revision: 2"))
    with pytest.raises(Forbidden, match="the policy changed"):
        reader.read_next_batch()
    assert log(device)[-1] == ("read", "ALLOW", 40_000)


def test_rows_that_come_while_a_view_is_read_are_not_part_of_it(device):
    put(device, 2)
    reader = view_of(device).open(device.policy, "coach", "trips", "service.routing", 0)
    batch = reader.read_next_batch()
    put(device, 2)
    assert isinstance(batch, pa.RecordBatch)
    assert batch.num_rows + sum(each.num_rows for each in reader) == 2


@pytest.mark.parametrize(("kind", "noted"), [("train", 3), ("infer", 0)])
def test_of_a_worker_who_trains_the_streams_are_written_down_before_their_first_row(device, kind, noted):
    device.activate(
        POLICY.replace("revision: 1", "revision: 2").replace(
            "{place: device, kind: infer", f"{{place: device, kind: {kind}"
        )
    )
    put(device, 3)
    reader = view_of(device).open(device.policy, "coach", "trips", "service.routing", 0)
    asked = Reading("coach", "trips", "service.routing", 0, 1_000)
    with device.database.read() as tx:
        assert sightings.within(tx, asked) == []
    reader.read_next_batch()
    with device.database.read() as tx:
        assert len(sightings.within(tx, asked)) == noted
