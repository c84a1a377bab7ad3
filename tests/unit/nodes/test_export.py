"""An export has every row of every layer, readable by anyone, and a manifest that says so."""

import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasync.api import held
from datasync.domain.clock import Instant
from datasync.nodes.node import Activate, ConsentInput, Erase, Record
from datasync.policy.loading import load
from datasync.policy.projection import to_batch
from tests.unit.nodes.wire import CLOUD, POLICY, WATCH, Wire

NOW = Instant(1_800_000_000_000, 0)


def archive(net: Wire, kind: str = "parquet", subject: str = WATCH) -> zipfile.ZipFile:
    wired = net.nodes[WATCH]
    with wired.database.read() as tx:
        export = held.export(tx, wired.kit.vault, WATCH, subject, kind, NOW)  # type: ignore[arg-type]

    def read(query):
        with wired.database.read() as tx:
            return query(tx)

    opened = zipfile.ZipFile(io.BytesIO(b"".join(export.pieces(read))))
    assert opened.testzip() is None
    return opened


def tables(opened: zipfile.ZipFile) -> dict[str, pa.Table]:
    found = {}
    for name in opened.namelist():
        if name.endswith(".parquet"):
            found[name] = pq.read_table(io.BytesIO(opened.read(name)))
        elif name.endswith(".arrow"):
            found[name] = pa.ipc.open_file(io.BytesIO(opened.read(name))).read_all()
    return found


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_it_has_every_row_of_every_layer_with_its_number(net: Wire, kind: str) -> None:
    for first in range(0, 9, 3):
        net.record(first, first + 1, first + 2)
    found = tables(archive(net, kind))
    layers = {"steps/public", "steps/edge-private", "steps/user-private"}
    assert {name.split("-0-")[0] for name in found} == layers
    assert {table.num_rows for table in found.values()} == {9}
    private = found[f"steps/user-private-0-0.{kind}"].to_pylist()
    assert [(row["_sequence"], row["who"], row["secret"]) for row in private] == [
        (number, "ann", f"secret {number}") for number in range(9)
    ]
    assert private[0]["_captured"].year == 2027


def test_the_manifest_says_what_is_where_what_was_allowed_and_what_was_erased(net: Wire) -> None:
    net.record(1)
    net.give(WATCH, Erase(7, None, None, False))
    net.wait(3_000)
    net.give(WATCH, ConsentInput(9, "test.run", True))
    net.record(2, 3)
    opened = archive(net)
    manifest = json.loads(opened.read("manifest.json"))
    files = {file["name"]: file["rows"] for stream in manifest["streams"] for file in stream["files"]}
    assert files == {
        "steps/public-1-0.parquet": 2,
        "steps/edge-private-1-0.parquet": 2,
        "steps/user-private-0-0.parquet": 1,
        "steps/user-private-1-0.parquet": 2,
    }
    assert {name: table.num_rows for name, table in tables(opened).items()} == files
    assert [(stream["rows"], stream["unreadable_segments"]) for stream in manifest["streams"]] == [
        (2, 0), (2, 0), (1, 0), (2, 0)
    ]  # fmt: skip
    assert {each["purpose"] for each in manifest["consents"]} == {"test.run"}
    receipts = [receipt for each in manifest["erased"] for receipt in each["receipts"]]
    assert {each["place"] for each in receipts} == {"watch-1", "acme/cbd", "acme/docks", "acme/cloud"}


def test_columns_that_a_new_policy_brings_begin_a_new_file(net: Wire) -> None:
    net.record(1)
    source = POLICY.replace(b"revision: 1\n", b"revision: 2\n").replace(
        b"label: {type: string, tier: public}",
        b"label: {type: string, tier: public}\n      more: {type: int64, tier: public}",
    )
    net.give(CLOUD, Activate(2, source))
    net.wait(500)
    rows = [{"who": "ann", "number": 2, "label": "row 2", "secret": "secret 2", "more": 7}]
    net.give(WATCH, Record(1, "steps", to_batch(load(source).collection("steps"), rows)))
    net.wait(1_000)
    found = tables(archive(net))
    assert [found[f"steps/public-0-{number}.parquet"].num_rows for number in (0, 1)] == [1, 1]


def test_what_cannot_be_read_is_counted_and_the_rest_is_there(net: Wire) -> None:
    net.record(1)
    net.record(2)
    with net.nodes[WATCH].database.write() as tx:
        tx.exec_driver_sql("UPDATE bodies SET body = x'00' WHERE id = (SELECT min(id) FROM bodies)")
    manifest = json.loads(archive(net).read("manifest.json"))
    found = sorted((each["rows"], each["unreadable_segments"]) for each in manifest["streams"])
    assert found == [(1, 1), (2, 0), (2, 0)]
