"""Nodes to play with: their databases are copied from one template, and in memory where there is a folder for that."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasync.store.database import Database
from tests.unit.nodes.wire import AIRPORT, CBD, DOCKS, Wire, wire

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema, to copy."""
    path = tmp_path_factory.mktemp("template") / "node.db"
    Database.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for databases that no crash is to survive."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
def net(folder: Path, template: Path) -> Iterator[Wire]:
    """A cloud, two edges, and a device that is attached to the first."""
    with wire(folder, template) as made:
        yield made


@pytest.fixture
def wide(folder: Path, template: Path) -> Iterator[Wire]:
    """The same with three edges."""
    with wire(folder, template, (CBD, DOCKS, AIRPORT)) as made:
        yield made
