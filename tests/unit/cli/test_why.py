"""``datasync why``, against a node's real API in another thread."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasync.cli.main import main
from datasync.domain.tiers import Tier
from datasync.store import segments, streams
from tests.unit.api.serving import ADMIN, POLICY, Api, Node

ROWS = [{"user_id": "u", "speed": 1.0, "mode": "bike"}]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = Node(tmp_path_factory.mktemp("why"))
    asyncio.run(made.activate_policy(POLICY.encode()))
    made.capture("watch-1", ROWS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(node: Node) -> Iterator[str]:
    """The address of the node's API, which is served until the tests end."""
    over, urls = threading.Event(), []
    ready = threading.Event()

    def serve() -> None:
        with asyncio.Runner() as runner:
            api = Api(node, runner)
            urls.append(api.url)
            ready.set()
            runner.run(asyncio.to_thread(over.wait))
            api.close()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait(30)
    yield urls[0]
    over.set()
    thread.join()


@pytest.fixture(scope="module")
def stored(node: Node) -> segments.StoredSegment:
    """The edge-private segment of the one row."""
    with node.database.read() as tx:
        stream = next(each.stream for each in streams.of_device(tx, "watch-1") if each.tier is Tier.EDGE_PRIVATE)
        return segments.of_stream(tx, stream)[0]


@pytest.fixture
def ask(url: str, tmp_path: Path) -> Any:
    """Ask as the administrator; return the exit code."""
    token = tmp_path / "admin.token"
    token.write_text(ADMIN)
    token.chmod(0o600)
    who = ("--worker", "router", "--purpose", "service.routing", "--url", url, "--token-file", str(token))
    return lambda asked, *more: main(["why", asked, *who, *more])


def test_a_segment_that_is_seen_is_exit_code_0_with_its_steps(
    ask: Any, stored: segments.StoredSegment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(str(stored.id)) == 0
    told = capsys.readouterr().out
    assert told.startswith("router sees it for service.routing: SEEN\n")
    assert "consent" in told
    assert "shown: speed, mode" in told


def test_a_row_that_is_not_here_is_exit_code_1_with_the_step_that_failed(
    ask: Any, stored: segments.StoredSegment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(f"{stored.stream}:0") == 0
    capsys.readouterr()
    assert ask(f"{stored.stream}:5") == 1
    told = capsys.readouterr().out
    assert told.startswith("router does not see it for service.routing: NOT_HERE\n")
    assert "no segment of it holds this number" in told


def test_the_answer_is_data_for_programs(
    ask: Any, stored: segments.StoredSegment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(f"{stored.stream}:0", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["sees"], answer["segment"]) == (True, stored.id)


def test_what_the_node_does_not_know_is_an_error_with_its_code(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("99") == 1
    assert "[NOT_FOUND]" in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["x", "x:1", f"{'0' * 32}:", ":1", f"{'0' * 32}:-1"])
def test_what_names_neither_a_segment_nor_a_row_is_an_error(
    ask: Any, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(asked) == 1
    assert "neither a segment nor a row" in capsys.readouterr().err
