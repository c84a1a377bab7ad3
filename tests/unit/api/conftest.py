"""The API of an edge, with a client of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.serving import POLICY, Api, Node


@pytest.fixture
def database_kind() -> str:
    """Where the node keeps its data; modules that ask the database much run on ``postgres`` too."""
    return "sqlite"


@pytest.fixture
def bare_node(tmp_path: Path, database_kind: str, request: pytest.FixtureRequest) -> Iterator[Node]:
    """An edge without a policy."""
    made = Node(tmp_path, request.getfixturevalue("postgres_url") if database_kind == "postgres" else None)
    yield made
    made.close()


@pytest.fixture
def node(bare_node: Node) -> Node:
    """An edge with an active policy."""
    asyncio.run(bare_node.activate_policy(POLICY.encode()))
    return bare_node


@pytest.fixture
def api(node: Node) -> Iterator[Api]:
    """The API of an edge with an active policy."""
    with asyncio.Runner() as runner:
        served = Api(node, runner)
        yield served
        served.close()


@pytest.fixture
def bare_api(bare_node: Node) -> Iterator[Api]:
    """The API of an edge without a policy."""
    with asyncio.Runner() as runner:
        served = Api(bare_node, runner)
        yield served
        served.close()
