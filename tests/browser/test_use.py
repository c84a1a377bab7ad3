"""The page can be used in a narrow window, by the keyboard alone, by ear, and by those who see little contrast."""

import pytest

from datasync.domain.ids import NodeName
from tests.browser.records import attach, hand_over, hear_of

FOCUSED = "document.activeElement.id || document.activeElement.getAttribute('aria-labelledby')"
PAGE_ITSELF = None  # where the browser begins again after the last thing

# The least ratio of contrast (WCAG 2.2, 1.4.3) between any text that is seen and what lies behind it.
CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parts(colour).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => (parts(getComputedStyle(e).backgroundColor)[3] ?? 1) ? getComputedStyle(e).backgroundColor
    : behind(e.parentElement);
  const ratio = (e) => {
    const [dark, bright] = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const texts = [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility() &&
    [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim()));
  return Math.min(...texts.map(ratio));
})()"""


@pytest.fixture(autouse=True)
def known(node):
    for device in ("watch-1", "w" * 128, f"acme/{'long-' * 20}"):
        attach(node, device, edge=f"acme/{'edge' * 15}")
        hand_over(node, len(device), device=device)
    hear_of(node, f"borealis/{'mill' * 20}", address=f"mqtt://{'a' * 200}:1883")
    node.not_ready = [f"WHY_{'NOT_' * 12}"]


def fits(page, width):
    """Nothing is wider than the window, so it neither scrolls sideways nor shrinks."""
    widest = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    return widest <= width and page.evaluate("[innerWidth, visualViewport.scale]") == [width, 1]


def in_view(page, selector):
    box = page.evaluate(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
    return 0 <= box["left"] < box["right"] <= page.evaluate("innerWidth")


def accessible(page):
    """Role and name of each thing that a screen reader meets."""
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    return {(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]}


@pytest.mark.parametrize("width", [320, 360])
def test_in_a_narrow_window_nothing_but_tables_scrolls_sideways(page, node, show_node, sign_in, width):
    node.name = NodeName(f"acme/{'edge' * 30}")
    page.resize(width, 640, mobile=True)
    assert fits(page, width)
    sign_in("made up")
    page.wait_for_text("UNAUTHENTICATED")
    assert fits(page, width)
    show_node()
    assert fits(page, width)
    assert all(in_view(page, part) for part in ("h1", "#leave", "#summary", "#devices-title"))


def test_a_row_keeps_its_name_in_view_while_its_table_scrolls(page, show_node):
    page.resize(360, 640, mobile=True)
    show_node()
    page.evaluate("document.querySelector('.scroll').scrollLeft = 1e6")
    page.wait_until("document.querySelector('.scroll').scrollLeft > 100")
    assert in_view(page, "#devices tbody th span")
    assert in_view(page, "#devices tbody td:last-child")


def test_everything_can_be_done_by_the_keyboard(page, show_node):
    show_node()
    assert page.evaluate(FOCUSED) == "node"
    reached = {}
    for _ in range(8):
        page.press("Tab")
        reached[page.evaluate(FOCUSED)] = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    tables = [f"{name}-title" for name in ("devices", "edges", "handovers", "workers", "models", "policies")]
    assert reached == dict.fromkeys(tables, "solid") | {PAGE_ITSELF: "none", "leave": "solid"}
    page.press("Enter")
    page.wait_until("document.querySelector('#sign-in').checkVisibility()")
    assert page.evaluate(FOCUSED) == "token"


def test_a_table_can_be_scrolled_by_the_keyboard(page, show_node):
    page.resize(360, 640, mobile=True)
    show_node()
    page.press("Tab")
    page.press("ArrowRight")
    page.wait_until("document.querySelector('.scroll').scrollLeft > 0")


def test_what_is_asked_of_the_reader_has_a_name_and_a_refusal_is_announced(page, sign_in):
    heard = accessible(page)
    assert {("textbox", "Administrator's token"), ("button", "Show this node")} <= heard
    assert not any(role == "alert" for role, _ in heard)
    sign_in("made up")
    page.wait_for_text("UNAUTHENTICATED")
    assert any(role == "alert" for role, _ in accessible(page))
    assert page.evaluate("document.querySelector('#token').getAttribute('aria-describedby')") == "trouble kept"


def test_tables_are_tables_to_a_screen_reader_too(page, show_node):
    show_node()
    heard = accessible(page)
    assert {("region", "Devices"), ("columnheader", "Epoch"), ("rowheader", "watch-1")} <= heard
    assert {("button", "Forget token"), ("heading", "datasync acme/cbd"), ("heading", "Handovers")} <= heard


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page, sign_in, show_node, scheme):
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    sign_in("made up")
    page.wait_for_text("UNAUTHENTICATED")
    assert page.evaluate(CONTRAST) >= 4.5
    show_node()
    assert page.evaluate(CONTRAST) >= 4.5
