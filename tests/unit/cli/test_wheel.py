"""The wheel: what is installed from it works outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as it lies in site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


def run(installed: Path, folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_databases_are_migrated_by_what_the_wheel_carries(installed: Path, tmp_path: Path) -> None:
    script = "from datasync.store.schema import migrations; print(migrations())"
    assert run(installed, tmp_path, "-c", script).strip() == str(installed / "datasync" / "migrations")
    url = f"sqlite:///{tmp_path}/x.db"
    assert "applied" in run(installed, tmp_path, "-m", "datasync.cli.main", "db", "upgrade", "--url", url)


def test_the_demo_has_its_policy(installed: Path, tmp_path: Path) -> None:
    script = "from datasync.demo.run import policy_source; print(policy_source().decode())"
    assert (
        run(installed, tmp_path, "-c", script).rstrip() == (CHECKOUT / "deploy/policies/demo.yaml").read_text().rstrip()
    )


def test_the_web_page_and_the_types_are_there(installed: Path) -> None:
    package = installed / "datasync"
    assert {path.name for path in (package / "api" / "ui").iterdir()} >= {"index.html", "app.js", "app.css"}
    assert (package / "py.typed").is_file()
    assert not (installed / "tests").exists()
