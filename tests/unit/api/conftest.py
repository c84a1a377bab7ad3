"""The API of an edge, with a client of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.serving import POLICY, Api, Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """An edge with an active policy."""
    made = Node(tmp_path)
    asyncio.run(made.activate_policy(POLICY.encode()))
    yield made
    made.close()


@pytest.fixture
def api(node: Node) -> Iterator[Api]:
    """The API of an edge with an active policy."""
    with asyncio.Runner() as runner:
        served = Api(node, runner)
        yield served
        served.close()


@pytest.fixture
def bare_api(tmp_path: Path) -> Iterator[Api]:
    """The API of an edge without a policy."""
    made = Node(tmp_path)
    with asyncio.Runner() as runner:
        served = Api(made, runner)
        yield served
        served.close()
    made.close()
