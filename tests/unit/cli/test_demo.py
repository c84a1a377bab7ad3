"""``datasync demo`` and the packages that only it needs."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

from datasync.cli.demo import missing_requirements, provide
from datasync.domain.errors import DependencyMissing


def test_what_is_installed_is_not_missing() -> None:
    assert missing_requirements("demo") == []


def test_what_is_missing_is_named_as_pip_takes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment in which datasync is installed and nothing else, as after a plain `pip install datasync`."""
    distribution = metadata.distribution("datasync")
    folder = tmp_path / "datasync-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(distribution.read_text("METADATA") or "")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    missing = missing_requirements("demo")
    assert sorted(requirement.split("<")[0].split(">")[0] for requirement in missing) == [
        "amqtt",
        "scikit-learn",
        "seglearn",
    ]
    assert all(";" not in requirement for requirement in missing)
    assert not any(requirement.startswith("psycopg") for requirement in missing)


def test_nothing_is_installed_when_that_is_not_wanted() -> None:
    with pytest.raises(DependencyMissing) as caught:
        provide(["seglearn>=1.2.5"], install=False)
    assert f"run: {sys.executable} -m pip install 'seglearn>=1.2.5'" in str(caught.value)


def test_an_installation_that_fails_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    missing = str(tmp_path / "no-such-package.whl")
    with pytest.raises(DependencyMissing, match="no-such-package"):
        provide([missing], install=True)
