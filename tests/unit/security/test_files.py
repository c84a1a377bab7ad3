"""Secrets in files: replaced and destroyed without a moment in which one is lost."""

import os
import stat
from pathlib import Path

import pytest

from datasync.domain.errors import ConfigError
from datasync.security.files import destroy, take_place, write_private


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_private(tmp_path / "keys" / "node.key", b"the old secret")
    write_private(tmp_path / "keys" / "next", b"the new secret")
    return tmp_path / "keys"


def test_a_secret_takes_the_place_of_another_which_is_gone(folder: Path) -> None:
    with (folder / "node.key").open("rb") as old:
        take_place(folder / "next", folder / "node.key")
        assert old.read() == bytes(len(b"the old secret")), "the old file was only unlinked"
    assert [path.name for path in folder.iterdir()] == ["node.key"]
    assert (folder / "node.key").read_bytes() == b"the new secret"
    assert stat.S_IMODE((folder / "node.key").stat().st_mode) == 0o600


def test_what_a_crash_left_of_the_old_secret_is_destroyed_the_next_time(folder: Path) -> None:
    os.link(folder / "node.key", folder / ".node.key.former")  # it died before it took the place
    take_place(folder / "next", folder / "node.key")
    (folder / ".node.key.former").write_bytes(b"the old secret")  # and once more, after it took the place
    take_place(folder / "next", folder / "node.key")
    assert [path.name for path in folder.iterdir()] == ["node.key"]
    assert (folder / "node.key").read_bytes() == b"the new secret"


def test_what_is_not_there_is_destroyed_already(folder: Path) -> None:
    destroy(folder / "nothing")
    destroy(folder / "next")
    destroy(folder / "next")
    assert not (folder / "next").exists()


def test_what_cannot_be_destroyed_is_an_error(folder: Path) -> None:
    (folder / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot be destroyed"):
        destroy(folder / "folder")
