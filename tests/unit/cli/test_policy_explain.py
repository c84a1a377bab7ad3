"""``datasync policy explain``: of a subject, of a row, and with what would change a default deny."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasync.cli.main import main
from tests.unit.policy.city import CITY

TRAINER = ["--worker", "cloud-trainer", "--data", "trips"]
ROUTER = ["--worker", "edge-router", "--data", "trips"]


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """Ask about the city's policy; return the exit code."""
    path = tmp_path / "city.yaml"
    path.write_text(CITY)
    return lambda *words: main(["policy", "explain", str(path), *words])


@pytest.fixture
def answer(ask: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Ask, and return the answer as programs get it."""

    def given(*words: str) -> Any:
        ask("--json", *words)
        return json.loads(capsys.readouterr().out)

    return given


def test_a_default_deny_names_the_nearest_rule_and_what_it_lacks(
    ask: Any, answer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(*ROUTER, "--field", "note") == 1
    told = capsys.readouterr().out
    assert told.startswith("NO_RULE_FIELD. ")
    assert "The nearest is R1, but it covers gps, mode, speed, started, user_id, not note. Even then NO_PATH" in told
    nearest = answer(*ROUTER, "--field", "note")["nearest"]
    assert (nearest["rule"], nearest["lacks"], nearest["then"]) == ("R1", ["fields"], "NO_PATH")
    fields = answer(*ROUTER)["fields"]
    assert (fields["gps"]["nearest"], fields["note"]["nearest"]["rule"]) == (None, "R1")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([], "ALLOW"),
        (["--subject", "u1"], "NO_CONSENT"),
        (["--subject", "u1", "--consent", "improve.train=yes"], "ALLOW"),
        (["--consent", "improve.train=no"], "NO_CONSENT"),
        (["--consent", "service.routing=yes"], "NO_CONSENT"),
        (["--consent", "improve.train=yes", "--without-consent"], "NO_CONSENT"),
    ],
)
def test_a_subject_said_what_the_command_line_says(answer: Any, said: list[str], code: str) -> None:
    assert answer(*TRAINER, *said)["code"] == code


def test_the_subject_and_what_it_said_are_repeated(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--subject", "u1", "--consent", "improve.train=yes", "--consent", "service.routing=no"]
    assert ask(*TRAINER, *said) == 0
    assert "u1 said yes to improve.train, no to service.routing" in capsys.readouterr().out
    assert ask(*TRAINER, "--subject", "u1") == 1
    assert "u1 said nothing" in capsys.readouterr().out


def test_of_a_row_each_rule_tells_its_first_condition_that_fails(
    ask: Any, answer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = (json.dumps({"region": "cbd", "started": started, "mode": "bike"}) for started in ("now-8d", "now-6d"))
    assert ask(*ROUTER, "--row", new) == 0
    assert "the row is visible: user_id, gps, started, speed, mode" in capsys.readouterr().out
    assert ask(*ROUTER, "--row", old) == 1
    assert "R1, which allows, does not match: started ge now-7d does not hold" in capsys.readouterr().out
    row = answer(*ROUTER, "--row", old)["row"]
    assert row == {
        "rules": [{"rule": "R1", "allows": True, "rows": 0, "failed": "started ge now-7d"}], "rows": 0, "columns": [],
    }  # fmt: skip


def test_of_a_row_nothing_is_said_when_the_worker_may_read_nothing(answer: Any) -> None:
    assert answer(*TRAINER, "--without-consent", "--row", '{"mode": "bike"}')["row"] is None


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--consent=improve.train", "write PURPOSE=yes or PURPOSE=no"),
        ("--consent=improve.tran=yes", "did you mean improve.train?"),
        ("--row={", "--row is no JSON"),
        ("--row=[]", "no JSON object"),
        ('--row={"note": "x"}', "cloud-trainer sees no note"),
    ],
)
def test_what_cannot_be_a_consent_or_a_row_is_an_error(
    ask: Any, option: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(*TRAINER, option) == 1
    assert told in capsys.readouterr().err
