"""The commands that talk to nodes, against a cloud and an edge that run as processes."""

import csv
import io
import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.publish
import pyarrow as pa
import pytest

EXERCISES = ["PEN", "ABD", "FEL"]
PATIENCE_S = 30.0


class RunningSite(Protocol):
    folder: Path
    token: str
    broker: dict[str, int]

    def url(self, node: str) -> str: ...
    def datasync(self, *words: str, token: str | None = None) -> Any: ...
    def done(self, *words: str, token: str | None = None) -> str: ...
    def start(self, node: str, **overrides: str) -> None: ...
    def wait_ready(self, node: str) -> None: ...
    def stop(self, node: str) -> int: ...


@pytest.fixture(scope="module")
def coach(site: RunningSite) -> str:
    """The token of the worker edge-coach at the edge."""
    enrolled = site.done("enroll", "worker", "edge-coach", "--url", site.url("edge"), "--json")
    token: str = json.loads(enrolled)["token"]
    return token


@pytest.fixture(scope="module")
def rows(site: RunningSite, coach: str) -> list[dict[str, Any]]:
    """What edge-coach sees of three rows that a plain MQTT device published, once they are there."""
    published = [
        {"user_id": "u1", "at": "2026-01-01T10:00:00Z", "ax": 0.25, "exercise": name, "note": "secret"}
        for name in EXERCISES
    ]
    topic = "ds/1/d/watch-9/json/motion"
    paho.mqtt.publish.single(topic, json.dumps(published), qos=1, hostname="127.0.0.1", port=site.broker["edge"])
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        seen = [json.loads(line) for line in view(site, coach, "--format", "jsonl").splitlines()]
        if seen:
            return seen
    raise AssertionError("the rows never became visible")


def view(site: RunningSite, token: str, *more: str) -> str:
    return site.done("view", "motion", "--url", site.url("edge"), "--purpose", "service.coaching", *more, token=token)


def test_a_plain_devices_rows_are_seen_as_the_policy_says(rows: list[dict[str, Any]]) -> None:
    assert [row["exercise"] for row in rows] == EXERCISES
    assert all("note" not in row and row["user_id"] != "u1" for row in rows)


def test_a_view_comes_in_every_format(site: RunningSite, coach: str, rows: list[Any], tmp_path: Path) -> None:
    table = list(csv.DictReader(io.StringIO(view(site, coach, "--format", "csv"))))
    assert [row["exercise"] for row in table] == EXERCISES
    view(site, coach, "--format", "arrow", "--output", str(tmp_path / "view.arrow"))
    with pa.ipc.open_stream((tmp_path / "view.arrow").read_bytes()) as reader:
        assert reader.read_all()["exercise"].to_pylist() == EXERCISES
    assert [path.name for path in tmp_path.iterdir()] == ["view.arrow"]


def test_a_view_says_from_where_to_read_on(site: RunningSite, coach: str, rows: list[Any]) -> None:
    words = ("view", "motion", "--url", site.url("edge"), "--purpose", "service.coaching")
    told = site.datasync(*words, token=coach).stderr
    cursor = told.split("--after ")[1].strip()
    again = site.datasync(*words, "--after", cursor, token=coach)
    assert (again.returncode, again.stdout) == (0, "")


def test_what_the_policy_denies_is_exit_code_1_with_its_reason(site: RunningSite, coach: str, tmp_path: Path) -> None:
    output = tmp_path / "view.csv"
    words = ("view", "motion", "--url", site.url("edge"), "--purpose", "improve.train", "--output", str(output))
    denied = site.datasync(*words, token=coach)
    assert denied.returncode == 1
    assert denied.stderr.rstrip().endswith("[ACCESS_DENIED NO_PURPOSE]")
    assert not output.exists()


def test_why_tells_of_every_segment_what_a_view_does_with_it(site: RunningSite, coach: str, rows: list[Any]) -> None:
    who = ("--worker", "edge-coach", "--url", site.url("edge"), "--json")
    asked = [site.datasync("why", str(number), *who, "--purpose", "service.coaching") for number in (1, 2)]
    answers = [json.loads(ended.stdout) for ended in asked]
    assert [answer["sees"] for answer in answers] == [ended.returncode == 0 for ended in asked]
    seen = next(answer for answer in answers if answer["sees"])
    assert set(seen["columns"]) == set(rows[0])
    refused = site.datasync("why", "1", *who, "--purpose", "improve.train")
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (1, "NO_PURPOSE")
    assert site.datasync("why", "1", *who, "--purpose", "service.coaching", token=coach).returncode == 1


def test_status_shows_the_node_and_what_it_knows(site: RunningSite, rows: list[Any]) -> None:
    told = site.done("status", "--url", site.url("edge"))
    assert "acme/cbd" in told
    assert "watch-9" in told
    assert "edge-coach" in told


def test_status_is_data_for_programs(site: RunningSite) -> None:
    told = json.loads(site.done("status", "--url", site.url("cloud"), "--json"))
    assert told["node"]["name"] == "acme/cloud"
    assert told["node"]["policy_revision"] == 1
    assert told["handovers"] == []
    assert [edge["name"] for edge in told["edges"]] == ["acme/cbd"]


def test_a_worker_is_enrolled_once(site: RunningSite, coach: str) -> None:
    again = site.datasync("enroll", "worker", "edge-coach", "--url", site.url("edge"))
    assert again.returncode == 1
    assert "[CONFLICT]" in again.stderr


def test_a_worker_that_the_policy_does_not_name_is_noted(site: RunningSite) -> None:
    enrolled = site.datasync("enroll", "worker", "nobody", "--url", site.url("edge"))
    assert enrolled.returncode == 0
    assert "names no worker nobody" in enrolled.stderr


def test_there_are_no_handovers_yet(site: RunningSite) -> None:
    assert site.done("handover", "list", "--url", site.url("cloud")) == "no handovers\n"
    assert json.loads(site.done("handover", "list", "--url", site.url("cloud"), "--json")) == []
    unknown = site.datasync("handover", "show", "0" * 32, "--url", site.url("cloud"))
    assert (unknown.returncode, "[NOT_FOUND]" in unknown.stderr) == (1, True)


def test_a_handover_of_an_unknown_device_is_refused(site: RunningSite) -> None:
    refused = site.datasync("handover", "start", "watch-404", "acme/docks", "--url", site.url("edge"))
    assert refused.returncode == 1
    assert "watch-404" in refused.stderr


@pytest.mark.parametrize(
    ("token", "code"), [("x" * 43, "UNAUTHENTICATED"), ("", "CONFIG_INVALID"), ("a\nb", "CONFIG_INVALID")]
)
def test_a_wrong_token_is_told(token: str, code: str, site: RunningSite) -> None:
    refused = site.datasync("status", "--url", site.url("edge"), token=token)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.rstrip().endswith(f"[{code}]")


def test_a_token_can_come_from_a_file(site: RunningSite) -> None:
    told = site.done("status", "--url", site.url("edge"), "--token-file", str(site.folder / "admin.token"), token="x")
    assert "acme/cbd" in told


@pytest.mark.parametrize(
    ("url", "code"), [("http://127.0.0.1:1", "LINK_FAILED"), ("ftp://node", "CONFIG_INVALID"), ("x", "CONFIG_INVALID")]
)
def test_a_node_that_cannot_be_asked_is_told(url: str, code: str, site: RunningSite) -> None:
    failed = site.datasync("status", "--url", url)
    assert failed.returncode == 1
    assert failed.stderr.rstrip().endswith(f"[{code}]")


def test_the_cloud_countersigns_the_edges_logs_and_shows_what_it_was_told(site: RunningSite) -> None:
    edge, cloud = site.folder / "edge" / "edge.toml", f"sqlite:///{site.folder}/cloud/cloud.db"
    deadline = time.monotonic() + PATIENCE_S
    countersigned: dict[str, int] = {}
    while "audit" not in countersigned:
        assert time.monotonic() < deadline, "the cloud countersigned nothing"
        verified = site.done("audit", "verify", "--config", str(edge), "--json")
        countersigned = json.loads(verified)["countersigned"]
    told = site.folder / "heads.json"
    told.write_text(site.done("audit", "heads", "--url", cloud, "--json"))
    assert {each["node"] for each in json.loads(told.read_text())["heads"]} == {"acme/cbd"}
    site.done("audit", "verify", "--config", str(edge), "--heads", str(told))
    assert "policy-activated" in site.done("audit", "show", "--config", str(edge), "--kind", "administration")


def test_a_nodes_key_is_rotated_while_it_is_stopped_and_what_it_stored_is_still_seen(
    site: Any, coach: str, rows: list[Any]
) -> None:
    config = str(site.folder / "edge" / "edge.toml")
    running = site.datasync("keys", "rotate", "--config", config)
    assert running.returncode == 1
    assert "stop that node" in running.stderr
    site.stop("edge")
    assert "data keys" in site.done("keys", "rotate", "--config", config)
    site.start("edge", BACKBONE=f"mqtt://127.0.0.1:{site.broker['cloud']}")
    site.wait_ready("edge")
    assert [json.loads(line) for line in view(site, coach, "--format", "jsonl").splitlines()] == rows


def test_a_node_that_is_told_to_stop_ends_well_and_starts_again(site: Any) -> None:
    assert site.stop("edge") == 0
    site.start("edge", BACKBONE=f"mqtt://127.0.0.1:{site.broker['cloud']}")
    site.wait_ready("edge")
    assert "watch-9" in site.done("status", "--url", site.url("edge"))


def test_a_revocation_list_that_the_cloud_is_given_is_known_at_the_edge_within_seconds(site: RunningSite) -> None:
    authority, folder = str(site.folder / "authority"), site.folder
    site.done("enroll", "device", "stolen", "--authority", authority, "--folder", str(folder / "stolen"))
    listed, crl = str(folder / "revoked.cose"), str(folder / "revoked.pem")
    out = ("--authority", authority, "--out", listed, "--crl-out", crl)
    assert "stolen" in site.done("enroll", "revoke", "stolen", *out)
    site.done("enroll", "push-revocations", listed, "--url", site.url("cloud"))
    deadline = time.monotonic() + PATIENCE_S
    while not re.search(r"revocations_acme +1", site.done("status", "--url", site.url("edge"))):
        assert time.monotonic() < deadline
    older = (folder / "revoked.cose").read_bytes()
    site.done("enroll", "revoke", *out)
    site.done("enroll", "push-revocations", listed, "--url", site.url("cloud"))
    (folder / "older.cose").write_bytes(older)
    refused = site.datasync("enroll", "push-revocations", str(folder / "older.cose"), "--url", site.url("cloud"))
    assert refused.returncode == 1
    assert "REVOCATION_STALE" in refused.stderr


def test_a_list_beside_the_authorities_holds_from_the_start_and_the_certificates_end_is_told(
    site: RunningSite,
) -> None:
    authority = ("--authority", str(site.folder / "authority"))
    site.stop("edge")
    site.done("enroll", "renew", "--folder", str(site.folder / "edge"), *authority, "--days", "20")
    site.done("enroll", "revoke", *authority, "--out", str(site.folder / "edge" / "trust" / "acme.cose"))
    known = json.loads(site.done("status", "--url", site.url("cloud"), "--json"))["node"]["revocations"]
    site.start("edge", BACKBONE=f"mqtt://127.0.0.1:{site.broker['cloud']}")
    site.wait_ready("edge")
    node = json.loads(site.done("status", "--url", site.url("edge"), "--json"))["node"]
    assert node["revocations"]["acme"] == known.get("acme", 0) + 1
    assert "expires in 19 days" in node["certificate_warning"]
    assert "the certificate expires in" in (site.folder / "edge.log").read_text()
    with urllib.request.urlopen(f"{site.url('edge')}/metrics") as answer:
        assert b"datasync_certificate_expires_seconds" in answer.read()


def test_a_token_for_one_purpose_opens_no_view_for_another(site: RunningSite) -> None:
    words = ("enroll", "worker", "some-worker", "--purpose", "improve.train", "--url", site.url("edge"), "--json")
    token = json.loads(site.done(*words))["token"]
    asked = ("view", "motion", "--url", site.url("edge"), "--purpose", "service.coaching")
    refused = site.datasync(*asked, token=token)
    assert refused.returncode == 1
    assert "PURPOSE_FORBIDDEN" in refused.stderr
