"""The device agent inside a program: what it promises of threads, durability, errors and leaving nothing behind."""

import contextlib
import gc
import io
import json
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from datasync import Device
from datasync.cli.api_client import ApiClient
from datasync.cli.main import main
from datasync.domain.errors import (
    CollectionUnknown,
    ConfigError,
    DatasyncError,
    HandoverError,
    NodeStopped,
    PolicyError,
    PolicyMissing,
    RecordError,
    StoreError,
)
from datasync.domain.ids import node_name
from datasync.domain.limits import BATCH_BYTES_MAX, ROW_BYTES_MAX
from datasync.domain.tiers import Tier
from datasync.nodes.shell import system_clock
from datasync.security.identity import Role
from datasync.security.trust import Authority
from datasync.store import consents, segments, streams
from datasync.store.workers import token_hash
from tests.integration import rows
from tests.integration.deployment import CBD, DOCKS, ROOT
from tests.integration.mosquitto import free_port
from tests.integration.rows import TRIPS

PROGRAM_S_MAX = 60.0
THREADS, CALLS = 8, 25

Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Enrol a device and write its configuration, with edges that nobody runs; ``lines`` come first in the file."""

    def make(*lines: str, role: Role = Role.DEVICE, policy: bytes | None = rows.POLICY) -> Path:
        authority = Authority.create("acme", system_clock())
        name = node_name("watch" if role is Role.DEVICE else "acme/cbd")
        authority.enrol(name, role, now=system_clock()).save(tmp_path / "identity")
        (tmp_path / "trust").mkdir()
        pem = x509.load_der_x509_certificate(authority.certificate).public_bytes(Encoding.PEM)
        (tmp_path / "trust" / "acme.pem").write_bytes(pem)
        text = ['identity = "identity"', 'trust = "trust"', 'node_key = "node.key"', *lines]
        if policy is not None:
            (tmp_path / "policy.yaml").write_bytes(policy)
            text.append('policy = "policy.yaml"')
        for edge in (CBD, DOCKS):
            text += ["[[edges]]", f'name = "{edge}"', 'url = "mqtt://127.0.0.1:9"']
        path = tmp_path / "device.toml"
        path.write_text("\n".join(text))
        return path

    return make


@pytest.fixture
def device(configure: Configure) -> Iterator[Device]:
    with Device(configure()) as device:
        yield device


def labels(device: Device) -> list[str]:
    """Return the labels of the device's rows in the order of their sequence numbers."""
    found = device.view("watch-coach", TRIPS, rows.PURPOSE).read_all()
    return [str(label) for label in found["label"].to_pylist()]


def some_rows(numbers: range) -> list[dict[str, Any]]:
    return [rows.row_of("watch", number) for number in numbers]


# --- threads and kinds of rows


def test_rows_of_many_threads_are_each_there_once_and_in_the_order_of_their_thread(device: Device) -> None:
    def run(thread: int) -> None:
        for call in range(CALLS):
            device.record(TRIPS, [{"label": f"{thread}/{call}/{row}"} for row in range(3)], wait=call % 7 == 0)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    device.flush()
    found = labels(device)
    assert device.recorded(TRIPS) == len(found) == THREADS * CALLS * 3
    for number in range(THREADS):
        mine = [label for label in found if label.startswith(f"{number}/")]
        assert mine == [f"{number}/{call}/{row}" for call in range(CALLS) for row in range(3)]


def test_dicts_arrow_and_pandas_mean_the_same(device: Device) -> None:
    given = some_rows(range(10))
    schema = pa.schema({"gps": pa.struct([("lat", pa.float64()), ("lon", pa.float64())])})
    batch = pa.RecordBatch.from_pylist(given)
    frame = pd.DataFrame(given)
    for each in (given, batch, pa.Table.from_batches([batch]), frame):
        device.record(TRIPS, each, wait=True)
    found = device.view("watch-coach", TRIPS, rows.PURPOSE).read_all()
    assert found.schema.field("gps").type == schema.field("gps").type
    pieces = [found.slice(10 * number, 10).to_pylist() for number in range(4)]
    assert pieces[0] == [row | {"speed": pytest.approx(row["speed"])} for row in given]
    assert pieces[1:] == [pieces[0]] * 3


def test_no_rows_are_no_error(device: Device) -> None:
    device.record(TRIPS, [], wait=True)
    assert device.recorded(TRIPS) == 0


def test_rows_that_are_large_together_are_cut_into_batches_that_fit(device: Device) -> None:
    pictures = [{"picture": bytes([number]) * 100_000} for number in range(40)]
    device.record("pictures", pictures[:20])
    for picture in pictures[20:]:
        device.record("pictures", [picture])
    device.flush()
    assert device.recorded("pictures") == 40
    with device.read() as tx:
        held = [each for each in segments.page(tx, after_id=0, limit=1_000) if each.tier.label == "edge-private"]
    assert [each.seq_first for each in held] == [0, *(each.seq_last + 1 for each in held[:-1])]
    assert sum(each.rows for each in held) == 40
    assert all(each.rows * 100_000 <= BATCH_BYTES_MAX for each in held)


def test_a_row_that_is_too_large_is_refused_where_it_is_recorded_and_the_device_goes_on(device: Device) -> None:
    with pytest.raises(RecordError, match=r"row 1 has \d+ bytes"):
        device.record("pictures", [{"picture": b"small"}, {"picture": bytes(ROW_BYTES_MAX + 1)}])
    device.record("pictures", [{"picture": bytes(ROW_BYTES_MAX - 100)}], wait=True)
    assert device.recorded("pictures") == 1


# --- durability


PROGRAM = """
import os, signal, sys
from datasync import Device
device = Device(sys.argv[1]).__enter__()
for number in range(20):
    device.record("trips", [{"label": str(number)}], wait=sys.argv[2] == "wait")
if sys.argv[2] == "flush":
    device.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["wait", "flush"])
def test_what_was_waited_for_is_there_though_the_process_is_killed_at_once(configure: Configure, how: str) -> None:
    config = configure()
    ended = subprocess.run([sys.executable, "-c", PROGRAM, str(config), how], cwd=ROOT, timeout=PROGRAM_S_MAX)
    assert ended.returncode == -signal.SIGKILL
    with Device(config) as device:
        assert device.recorded(TRIPS) == 20
        assert labels(device) == [str(number) for number in range(20)]


def test_leaving_the_block_waits_until_what_was_recorded_is_durable(configure: Configure) -> None:
    config = configure()
    with Device(config) as device:
        device.record(TRIPS, some_rows(range(500)))
    with Device(config) as device:
        assert device.recorded(TRIPS) == 500


def test_a_consent_holds_for_rows_that_are_recorded_after_it(configure: Configure) -> None:
    config = configure()
    with Device(config) as device:
        device.consent(rows.PURPOSE, given=True)
    with Device(config) as device:
        device.record(TRIPS, some_rows(range(3)), wait=True)
        assert said(device) == {tier: [(rows.PURPOSE, True)] for tier in Tier}
        device.consent(rows.PURPOSE, given=False)
        device.record(TRIPS, some_rows(range(3)), wait=True)
        assert said(device) == {tier: [(rows.PURPOSE, False)] for tier in Tier}


def said(device: Device) -> dict[Tier, list[tuple[str, bool]]]:
    """Return what was said for the device's streams, by tier."""
    with device.read() as tx:
        known = streams.of_device(tx, "watch")
        return {
            each.tier: [(one.purpose, one.given) for one in consents.of_streams(tx, [each.stream])] for each in known
        }


# --- errors


@pytest.mark.parametrize(
    ("collection", "given", "error", "match"),
    [
        ("journeys", [{}], CollectionUnknown, "journeys"),
        (TRIPS, [{"label": "a"}, {"speed": "fast"}], RecordError, "row 1, field speed: 'fast' is no float32"),
        (TRIPS, [{"altitude": 7}], RecordError, "trips has no field altitude"),
        (TRIPS, pa.table({"speed": ["fast"]}), RecordError, "field speed"),
        (TRIPS, pd.DataFrame({"speed": ["fast"]}), RecordError, "field speed"),
        (TRIPS, [7], RecordError, "row 0 is no mapping"),
    ],
)
def test_rows_that_do_not_fit_raise_where_they_are_recorded(
    device: Device, collection: str, given: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        device.record(collection, given)
    device.record(TRIPS, some_rows(range(1)), wait=True)
    assert device.recorded(TRIPS) == 1


def test_without_a_policy_nothing_is_recorded(configure: Configure) -> None:
    with Device(configure(policy=None)) as device:
        assert not device.has_policy
        with pytest.raises(PolicyMissing):
            device.record(TRIPS, some_rows(range(1)))


@pytest.mark.parametrize("edge", ["acme/airport", "Not A Name"])
def test_a_device_goes_nowhere_that_it_has_no_address_of(device: Device, edge: str) -> None:
    with pytest.raises(HandoverError, match=edge):
        device.move(edge)
    device.record(TRIPS, some_rows(range(1)), wait=True)


def test_a_device_that_is_not_running_says_so(configure: Configure) -> None:
    device = Device(configure())
    with pytest.raises(NodeStopped):
        device.record(TRIPS, some_rows(range(1)))
    with device:
        device.record(TRIPS, some_rows(range(1)))
    with pytest.raises(NodeStopped):
        device.record(TRIPS, some_rows(range(1)))
    with pytest.raises(NodeStopped):
        device.recorded(TRIPS)
    device.close()


def test_threads_that_record_while_the_device_ends_are_told_and_not_kept_waiting(configure: Configure) -> None:
    said: list[BaseException] = []

    def run(device: Device) -> None:
        try:
            while True:
                device.record(TRIPS, some_rows(range(1)), wait=True)
        except NodeStopped as error:
            said.append(error)

    with Device(configure()) as device:
        threads = [threading.Thread(target=run, args=(device,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        device.record(TRIPS, some_rows(range(1)), wait=True)
        device.close()
        for thread in threads:
            thread.join(PROGRAM_S_MAX)
    assert len(said) == THREADS


def test_an_error_in_the_block_is_the_error_that_is_seen(configure: Configure) -> None:
    def run() -> None:
        with Device(configure()) as device:
            device.record(TRIPS, some_rows(range(1)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


# --- nothing is left behind


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_behind(configure: Configure) -> None:
    config = configure()
    gc.collect()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        threads, files = set(threading.enumerate()), open_files()
        for number in range(3):
            with Device(config) as device:
                device.record(TRIPS, some_rows(range(number, number + 1)))
                device.view("watch-coach", TRIPS, rows.PURPOSE).read_all()
        assert set(threading.enumerate()) == threads
        del device
        gc.collect()
        assert open_files() == files
    assert [str(each.message) for each in warned] == []


# --- starts that fail


def fails(config: Path, error: type[Exception], match: str) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(error, match=match):
        Device(config).__enter__()
    assert set(threading.enumerate()) == threads


def test_an_unknown_key_is_named(configure: Configure) -> None:
    fails(configure('colour = "red"'), ConfigError, "colour is no key")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    fails(tmp_path / "none.toml", ConfigError, r"none\.toml")


def test_an_identity_of_another_role_is_named(configure: Configure) -> None:
    fails(configure(role=Role.EDGE), ConfigError, "acme/cbd is enrolled as edge, not as device")


def test_a_missing_identity_is_named(configure: Configure, tmp_path: Path) -> None:
    config = configure()
    (tmp_path / "identity" / "signing.key").unlink()
    fails(config, ConfigError, r"signing\.key")


def test_keys_that_others_can_read_are_refused(configure: Configure, tmp_path: Path) -> None:
    config = configure()
    (tmp_path / "identity" / "signing.key").chmod(0o644)
    fails(config, ConfigError, "chmod")


def test_a_policy_that_does_not_load_is_refused_with_its_place(configure: Configure) -> None:
    fails(configure(policy=rows.POLICY.replace(b"kind: stream", b"kind: brook", 1)), PolicyError, r"policy\.yaml")


def test_a_database_that_another_device_has_open_is_refused(configure: Configure) -> None:
    config = configure()
    with Device(config):
        fails(config, StoreError, "another process has this database open")


def test_a_database_that_is_none_is_refused(configure: Configure, tmp_path: Path) -> None:
    config = configure()
    (tmp_path / "device.db").write_bytes(b"no database at all" * 100)
    fails(config, StoreError, "not a database")


def test_what_the_subject_allows_can_be_said_over_the_devices_own_api(configure: Configure) -> None:
    token, path, port = "t" * 40, configure(), free_port()
    api = ["[api]", f"port = {port}", f'admin_token_hash = "{token_hash(token)}"']
    path.write_text("\n".join([path.read_text(), *api]))
    with Device(path) as device:
        device.record(TRIPS, some_rows(range(3)), wait=True)

        def consent(*words: str) -> Any:
            command = ["consent", *words, "--url", f"http://127.0.0.1:{port}", "--token", token, "--json"]
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                assert main(command) == 0
            return json.loads(output.getvalue())

        for word, given in (("give", True), ("withdraw", False)):
            assert consent(word, rows.PURPOSE)["given"] is given
            listed = consent("list")
            assert {each["given"] for each in listed["consents"]} == {given}
            assert {each["tier"] for each in listed["consents"]} == {"public", "edge-private", "user-private"}
            said = {each["purpose"]: each["given"] for each in listed["said"]}
            assert said[rows.PURPOSE] is given
        assert consent("list", "--device", "another")["consents"] == []
    with pytest.raises(DatasyncError, match="LINK_FAILED"):
        ApiClient(f"http://127.0.0.1:{port}", token).get("v1", "admin", "consents")
