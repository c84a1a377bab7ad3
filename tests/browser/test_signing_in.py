"""What the page shows to whom: nothing without the administrator's token, and nothing any more once it is forgotten."""

import pytest

from tests.browser.records import attach, hand_over, hear_of
from tests.unit.api.serving import ADMIN

KEPT = "sessionStorage.length + localStorage.length + document.cookie.length"


@pytest.fixture(autouse=True)
def known(node):
    attach(node, "watch-1")
    hear_of(node, "acme/docks")
    hand_over(node, 1)
    node.enrol("router")


def tells_nothing(page):
    """Nothing that the node knows is in the page, seen or hidden."""
    page.wait_until("document.querySelector('#sign-in').checkVisibility()")
    secrets = ("watch-1", "acme", "router", "revision")
    return not any(secret in page.everything() for secret in secrets) and page.evaluate("document.title") == "datasync"


def test_without_a_token_the_page_asks_for_one_and_asks_the_node_for_nothing(page):
    assert tells_nothing(page)
    assert "Administrator's token" in page.shown()
    assert not any("/v1/" in url for url in page.requests)


def test_a_token_that_is_unknown_is_refused_in_words_and_forgotten(page, sign_in):
    sign_in("made up")
    page.wait_for_text("Refused: the token is unknown here, was revoked or has expired [UNAUTHENTICATED]")
    assert tells_nothing(page)
    assert page.evaluate(KEPT) == 0


def test_a_workers_token_is_refused_in_words_and_forgotten(page, sign_in, node):
    sign_in(node.enrol("trainer"))
    page.wait_for_text("this is for the administrator; who asks is worker trainer [FORBIDDEN]")
    assert tells_nothing(page)
    assert page.evaluate(KEPT) == 0


@pytest.mark.parametrize("token", ["   ", "tōken", "🔑"])
def test_what_can_be_no_token_is_not_sent(page, sign_in, token):
    sign_in(token)
    page.wait_until("document.querySelector('#token:invalid') !== null")
    assert tells_nothing(page)
    assert not any("/v1/" in url for url in page.requests)


def test_after_a_wrong_token_the_right_one_shows_the_node_and_the_refusal_goes(page, sign_in):
    sign_in("made up")
    page.wait_for_text("UNAUTHENTICATED")
    sign_in()
    page.wait_for_text("watch-1")
    assert "UNAUTHENTICATED" not in page.everything()


def test_spaces_around_a_pasted_token_do_not_matter(page, sign_in):
    sign_in(f"  {ADMIN} ")
    page.wait_for_text("watch-1")


def test_the_token_is_kept_in_the_tab_alone_and_is_nowhere_in_the_page(page, sign_in):
    sign_in()
    page.wait_for_text("watch-1")
    assert page.evaluate("Object.values(sessionStorage)") == [ADMIN]
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    assert page.evaluate("document.querySelector('#token').value") == ""
    assert ADMIN not in page.everything()
    assert not any("token" in url for url in page.requests)


def test_a_page_that_is_loaded_again_shows_the_node_without_asking_for_the_token(page, sign_in, api):
    sign_in()
    page.wait_for_text("watch-1")
    page.open(api.url)
    page.wait_for_text("watch-1")
    assert not page.evaluate("document.querySelector('#sign-in').checkVisibility()")


def test_forgetting_the_token_empties_the_page_and_the_storage(page, sign_in):
    sign_in()
    page.wait_for_text("watch-1")
    page.click("#leave")
    assert tells_nothing(page)
    assert page.evaluate(KEPT) == 0


def test_an_answer_that_comes_after_the_token_was_forgotten_is_not_shown(page, sign_in):
    """The answers are held back in the browser, and let through when the token is forgotten."""
    page.call("Fetch.enable", patterns=[{"urlPattern": "*/v1/admin/*", "requestStage": "Response"}])
    sign_in()
    held = page.wait_for_events("Fetch.requestPaused", 6)
    page.click("#leave")
    for paused in held:
        page.call("Fetch.continueRequest", requestId=paused["requestId"])
    page.call("Fetch.disable")
    page.evaluate("fetch('v1/admin/node').then((answer) => answer.json())")  # comes after those that were held back
    assert tells_nothing(page)


def test_a_token_that_ends_while_the_page_is_open_ends_what_it_shows(page, sign_in, node):
    sign_in()
    page.wait_for_text("watch-1")
    node.admin_token_hash = "0" * 64
    page.wait_for_text("UNAUTHENTICATED")
    assert tells_nothing(page)
