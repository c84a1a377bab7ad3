"""The demo as a newcomer runs it: real recordings through real processes, and what it says of the policy at work."""

import json
import subprocess
import sys
from typing import Any

import pytest


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What a run with two devices reports, every connection of which is encrypted and verified."""
    command = [sys.executable, "-m", "datasync.cli.main", "demo", "--devices", "2", "--json", "--no-install", "--tls"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, found["faults"]
    return found


def test_nothing_is_lost_doubled_changed_or_leaked(report: dict[str, Any]) -> None:
    assert report["faults"] == []
    assert report["clean"]
    assert report["rows_recorded"] == report["comparison"]["devices"]["found"] > 40_000
    assert report["comparison"]["edges"]["found"] == report["comparison"]["cloud"]["found"] > 40_000
    assert report["leaks"]["control_found"] == report["leaks"]["control_wanted"] > 0
    assert report["handovers"]["count"] >= 4


def test_documents_are_what_was_recorded_wherever_the_devices_were(report: dict[str, Any]) -> None:
    assert report["documents"] == {"expected": 2, "found": 2, "equal": 2}


def test_who_withdraws_consent_is_counted_no_longer_and_the_others_are(report: dict[str, Any]) -> None:
    seen = report["withdrawal_and_rollout"]
    assert seen["counted_before"] > 0
    assert seen["withdrawn"] == 0
    assert seen["others"]["found"] == seen["others"]["expected"] > 0


def test_a_second_revision_is_in_force_at_every_node_and_narrows_what_is_shown(report: dict[str, Any]) -> None:
    seen = report["withdrawal_and_rollout"]
    assert set(seen["revisions"].values()) == {2}
    assert len(seen["revisions"]) == 6
    assert set(seen["columns_before"]) - set(seen["columns"]) == {"gps"}


def test_another_operator_gets_what_its_verdict_gives_and_nothing_without_consent(report: dict[str, Any]) -> None:
    agreed, refused = report["visits"]
    assert agreed["rows"]["found"] == agreed["rows"]["expected"] > 0
    assert agreed["columns"] == ["user_id", "at", "gps", "exercise", "recording", "sample"]
    (document,) = agreed["documents"]
    assert document["samples"] > 0
    assert document["exercises"] is document["hardest"] is None
    assert not agreed["linked"]
    assert (refused["rows"]["found"], refused["documents"]) == (0, [])


def test_whose_every_segment_is_and_that_no_log_was_changed_is_proven_once_more(report: dict[str, Any]) -> None:
    assert [each["place"] for each in report["proofs"]] == ["acme/cloud", "acme/cbd", "acme/docks", "borealis/hub"]
    for each in report["proofs"]:
        assert each["segments"] >= each["signatures"]
        assert (each["unproven"], each["wrong"]) == (0, [])
        assert sum(each["entries"].values()) > 0
    assert sum(each["signatures"] for each in report["proofs"]) > 0


def test_a_wearer_is_forgotten_everywhere_also_by_an_edge_that_was_down(report: dict[str, Any]) -> None:
    seen = report["forgotten"]
    held, signed = ({each["place"]: each for each in seen[what]} for what in ("held", "confirmed"))
    assert {"guest", "acme/cbd", "acme/cloud", "borealis/hub"} <= held.keys() <= signed.keys()
    assert seen["planted_found"] == seen["planted"] == held["guest"]["planted"] > 0
    assert all(each["planted"] > 0 for each in held.values()), "a search that cannot find would prove nothing"
    assert seen["down"] in seen["awaited"]
    assert signed["borealis/hub"]["rows"] == held["borealis/hub"]["rows"] > 0
    assert (seen["back"], seen["copies_opened"], seen["keys_left"]) == ([], 0, 0)
    assert seen["copies"] > len(held)
    assert seen["keys"] > len(held)
