"""An edge with its web page, and a real browser to look at it with.

The browser is Chromium, started once for all tests and ended with them. Where it is not installed the tests fail and
say so, unless DATASYNC_TESTS_WITHOUT names ``chromium``.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium, chromium_program
from tests.browser.devtools import Devtools
from tests.browser.page import WIDE, Page
from tests.unit.api.serving import ADMIN, POLICY, Api, Node


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """The one loop of the server and of the connection to the browser."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="session")
def devtools(runner: asyncio.Runner) -> Iterator[Devtools]:
    """A connection to the browser; ask for ``page`` instead."""
    browser = Chromium(chromium_program())
    try:
        connection = runner.run(Devtools.connect(runner.run(browser.url())))
        yield connection
        runner.run(connection.close())
    finally:
        browser.end()


@pytest.fixture
def node(tmp_path: Path, runner: asyncio.Runner) -> Iterator[Node]:
    """An edge with an active policy."""
    made = Node(tmp_path)
    runner.run(made.activate_policy(POLICY.encode()))
    yield made
    made.close()


@pytest.fixture
def api(node: Node, runner: asyncio.Runner) -> Iterator[Api]:
    """The edge's API, the web page included."""
    served = Api(node, runner)
    yield served
    served.close()


@pytest.fixture
def page(devtools: Devtools, runner: asyncio.Runner, api: Api) -> Iterator[Page]:
    """The edge's web page, just opened, in a wide window. Its scripts must not fail, whatever a test does."""
    opened = Page(devtools, runner)
    try:
        opened.resize(*WIDE)
        opened.open(api.url)
        yield opened
    finally:
        opened.close()
    assert opened.errors == []


@pytest.fixture
def sign_in(page: Page) -> Callable[..., None]:
    """Enters a token, the administrator's if none is given, by the keyboard."""

    def enter(token: str = ADMIN) -> None:
        page.wait_until("document.activeElement.id === 'token'")
        page.type(token)
        page.press("Enter")

    return enter


@pytest.fixture
def show_node(page: Page, sign_in: Callable[[], None]) -> Callable[[], None]:
    """Signs the administrator in, and returns when the node is shown."""

    def show() -> None:
        sign_in()
        page.wait_until("document.querySelector('#node').checkVisibility()")

    return show
