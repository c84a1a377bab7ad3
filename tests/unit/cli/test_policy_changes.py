"""``datasync policy diff``, ``replay`` and ``schema``."""

import io
import json
import sys
from pathlib import Path

import pytest

from datasync.cli.main import main
from datasync.policy import json_schema
from datasync.policy.decide import view_rules
from datasync.policy.loading import load
from datasync.store import decisions
from datasync.store.database import Database
from datasync.store.decisions import Decision

DEMO = Path(__file__).parents[3] / "deploy" / "policies" / "demo.yaml"
FINER = ("precision: 6", "precision: 7")
COARSER = ("precision: 6", "precision: 5")


def changed(tmp_path: Path, *changes: tuple[str, str]) -> str:
    text = DEMO.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "new.yaml"
    path.write_text(text)
    return str(path)


def test_what_widens_is_exit_code_1_unless_it_was_signed_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["policy", "diff", str(DEMO), changed(tmp_path, FINER)]
    assert main(words) == 1
    told = capsys.readouterr().out
    assert "worker edge-coach motion" in told
    assert "  widens   gps for service.coaching: was cell (geohash precision 6), now cell (geohash precision 7)" in told
    assert "place edge motion" in told

    assert main([*words, "--allow-widening"]) == 0
    assert capsys.readouterr().out == told


def test_what_only_narrows_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "diff", str(DEMO), changed(tmp_path, COARSER)]) == 0
    assert "0 widen, 0 change, " in capsys.readouterr().out


def test_no_difference_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "diff", str(DEMO), str(DEMO)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing widens, nothing narrows"


def test_what_is_not_comparable_says_that_it_counts_as_widening(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "diff", str(DEMO), changed(tmp_path, ("unit: 1m", "unit: 90s"))]) == 1
    assert "what just changes counts as widening, for nobody proved otherwise" in capsys.readouterr().out


def test_a_diff_is_data_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "diff", str(DEMO), changed(tmp_path, FINER), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["widens"] is True
    assert result["counts"]["widens"] == len(result["changes"])
    coach = next(each for each in result["changes"] if each["name"] == "edge-coach")
    assert (coach["effect"], coach["scope"], coach["collection"], coach["field"]) == (
        "widens",
        "worker",
        "motion",
        "gps",
    )
    assert coach["purpose"] == "service.coaching"
    assert coach["old"][0]["chain"] == coach["new"][0]["chain"] == ["cell"]
    assert coach["old"][0]["tier"] == "edge-private"
    assert coach["new"][0]["made"] == "cell (geohash precision 7)"


def test_a_policy_that_cannot_be_used_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = changed(tmp_path, ("precision: 6", "precision: 60"))
    assert main(["policy", "diff", str(DEMO), bad]) == 1
    assert f"{bad}:" in capsys.readouterr().err


def test_two_policies_are_needed() -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["policy", "diff", str(DEMO)])
    assert exit_.value.code == 2


@pytest.fixture
def log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``audit show`` prints of a node where the coach opened, and read, a view under the demo's policy."""
    policy = load(DEMO.read_bytes())
    rules = view_rules(policy, policy.workers["edge-coach"], "motion", "service.coaching")
    url = f"sqlite:///{tmp_path / 'edge.db'}"
    assert main(["db", "upgrade", "--url", url]) == 0
    database = Database.open(url, create=False)
    with database.write() as tx:
        for event in ("opened", "read"):
            decisions.append(tx, Decision(
                at_ms=1, event=event, worker="edge-coach", collection="motion", purpose="service.coaching",
                revision=policy.revision, digest=policy.digest, code="ALLOW", rules=rules.rules,
                fields=tuple(rules.schema.names),
            ))  # fmt: skip
    database.close()
    capsys.readouterr()
    assert main(["audit", "show", "--url", url, "--json"]) == 0
    path = tmp_path / "decisions.jsonl"
    path.write_text(capsys.readouterr().out)
    return str(path)


def test_decisions_are_the_same_under_the_policy_that_took_them(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "replay", log, "--policy", str(DEMO)]) == 0
    assert capsys.readouterr().out == "2 decisions, 0 would differ\n"


def test_decisions_that_would_differ_are_exit_code_1(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = changed(tmp_path, ("fields: [user_id, at, gps, ax,", "fields: [at, ax,"))
    Path(new).write_text(Path(new).read_text().partition("\ntests:")[0] + "\n")
    assert main(["policy", "replay", log, "--policy", new]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "1  opened edge-coach motion service.coaching: loses user_id, gps"
    assert told[-1] == "2 decisions, 2 would differ"

    assert main(["policy", "replay", log, "--policy", new, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["decisions"], result["would_differ"]) == (2, 2)
    assert [each["event"] for each in result["differing"]] == ["opened", "read"]


def test_a_log_can_come_from_standard_input(
    log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(log).read_bytes())))
    assert main(["policy", "replay", "-", "--policy", str(DEMO), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"differing": [], "decisions": 2, "would_differ": 0}


def test_a_malformed_line_is_an_error_with_its_number_and_code(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path(log).open("a") as file:
        file.write("{}\n")
    assert main(["policy", "replay", log, "--policy", str(DEMO)]) == 1
    told = capsys.readouterr().err
    assert "line 3: " in told
    assert "[LOG_INVALID]" in told


def test_the_schema_is_printed_as_it_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == 0
    assert capsys.readouterr().out == json_schema.text()
