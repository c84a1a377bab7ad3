"""``datasync policy``."""

import json
from pathlib import Path

import pytest

from datasync.cli.main import main

DEMO = Path(__file__).parents[3] / "deploy" / "policies" / "demo.yaml"
COACH = ["--worker", "edge-coach", "--data", "motion"]


def changed(tmp_path: Path, old: str, new: str) -> str:
    text = DEMO.read_text()
    assert old in text
    path = tmp_path / "policy.yaml"
    path.write_text(text.replace(old, new))
    return str(path)


def test_a_good_policy_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(DEMO)]) == 0
    assert "smartwatch, revision 1, digest " in capsys.readouterr().out


def test_every_problem_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(tmp_path, "kind: infer, clearance: edge-private", "kind: guess, clearance: edge-private")
    assert main(["policy", "check", path]) == 1
    line = next(number for number, text in enumerate(Path(path).read_text().splitlines(), 1) if "kind: guess" in text)
    assert f"{path}:{line}:" in capsys.readouterr().out


def test_problems_are_data_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(tmp_path, "kind: infer, clearance: edge-private", "kind: guess, clearance: edge-private")
    assert main(["policy", "check", path, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    assert {"code", "line", "column", "message", "fix"} == set(result["problems"][0])


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml: the file cannot be read" in capsys.readouterr().err


def test_the_tests_that_passed_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test", str(DEMO), "--json"]) == 0
    assert "notes stay on the watch" in json.loads(capsys.readouterr().out)["passed"]


def test_a_test_that_fails_is_named_with_what_was_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(tmp_path, "expect: {allow: [cell]", "expect: {allow: [pid]")
    assert main(["policy", "test", path]) == 1
    told = capsys.readouterr().out
    assert "'the coach sees a cell and not a point' fails: expected allow ['pid'], got allow ['cell']" in told


def test_what_is_no_policy_cannot_be_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("schema: other")
    assert main(["policy", "test", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_an_explanation_goes_field_by_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "explain", str(DEMO), *COACH]) == 0
    told = capsys.readouterr().out
    assert "edge-coach reads gps as cell" in told
    assert "NO_RULE_FIELD" in told


def test_no_is_exit_code_1_and_carries_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "explain", str(DEMO), *COACH, "--field", "note"]) == 1
    assert capsys.readouterr().out.startswith("NO_RULE_FIELD. ")


def test_an_explanation_is_data_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "explain", str(DEMO), *COACH, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["allowed"], result["purpose"]) == (True, "service.coaching")
    assert result["fields"]["gps"]["chain"] == ["cell"]
    assert result["fields"]["gps"]["tier"] == "edge-private"
    assert result["fields"]["note"]["code"] == "NO_RULE_FIELD"


def test_consent_refused_is_a_no_where_the_purpose_needs_it() -> None:
    words = ["policy", "explain", str(DEMO), "--worker", "edge-trainer", "--data", "motion"]
    assert main(words) == 0
    assert main([*words, "--without-consent"]) == 1


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--worker=edge-coch", "did you mean edge-coach?"),
        ("--data=motions", "did you mean motion?"),
        ("--field=gp", "did you mean gps?"),
        ("--purpose=service.coachin", "did you mean service.coaching?"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest(
    option: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "explain", str(DEMO), *COACH, option]) == 1
    assert told in capsys.readouterr().err
