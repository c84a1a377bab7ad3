"""The command line as a whole: exit codes, where errors go, and that a command pays only for itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from datasync.cli.main import COMMANDS, main


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "datasync.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_wrong_usage_is_2_and_says_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["db", "upgrade"])
    assert exit_.value.code == 2
    assert "--config --url is required" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["--frobnicate"], ["db"]])
def test_an_unknown_or_missing_command_is_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\b", text, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert f"usage: datasync {command}" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"datasync \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_an_error_is_one_line_on_stderr_with_its_code_and_exit_code_1(tmp_path: Path) -> None:
    done = run("db", "check", "--config", str(tmp_path / "none.toml"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*none\.toml: the file cannot be read.* \[CONFIG_INVALID\]\n", done.stderr)


def test_a_reader_that_stops_early_is_no_error_message() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "datasync.cli.main", "enroll", "admin"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_one_commands_modules_are_not_loaded_for_another() -> None:
    script = "import sys; from datasync.cli.main import _parser; _parser(['policy']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "datasync.cli.policy" in loaded
    assert not {"aiohttp", "alembic", "paho", "sklearn"} & set(loaded)
