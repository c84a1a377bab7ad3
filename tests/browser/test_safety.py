"""The page runs nothing that the node did not serve as its script, and talks to nobody but the node."""

import pytest
from sqlalchemy import update

from datasync.domain.ids import NodeName
from datasync.store import tables
from tests.browser.records import attach, hand_over, hear_of, register

HOSTILE = {
    "image": '<img src=x onerror="window.ran=1">',
    "script": "<script>window.ran=1</script>",
    "way out": "</td></table><svg/onload=window.ran=1>",
    "address": "javascript:window.ran=1",
    "signs": "&lt;b&gt; ${window.ran=1} {{ran}} \N{RIGHT-TO-LEFT OVERRIDE} 'or\"1",
}

WATCH = """
  window.broken = [];
  document.addEventListener("securitypolicyviolation", (event) => window.broken.push(event.effectiveDirective));
"""

FOREIGN = {
    "script-src-elem": "const e = document.createElement('script'); e.textContent = 'window.ran = 1'; {add}",
    "script-src-attr": "const e = document.createElement('p'); e.setAttribute('onclick', 'window.ran = 1'); {add}",
    "style-src-attr": "const e = document.createElement('p'); e.setAttribute('style', 'color: red'); {add}",
    "style-src-elem": "const e = document.createElement('style'); e.textContent = 'p {{color: red}}'; {add}",
    "img-src": "const e = document.createElement('img'); e.src = '{other}/healthz'; {add}",
    "frame-src": "const e = document.createElement('iframe'); e.src = '{other}/healthz'; {add}",
    "base-uri": "const e = document.createElement('base'); e.href = '{other}/'; {add}",
    "form-action": "const e = document.createElement('form'); e.action = '{other}/healthz'; {add}; e.submit()",
    "connect-src": "fetch('{other}/healthz', {{mode: 'no-cors'}}).catch(() => null)",
}


def harmless(page):
    """Nothing ran, no element was made of text, and nothing was even tried that the page's policy had to stop."""
    made = page.evaluate("document.querySelectorAll('img, svg, iframe, a, b, script:not([src])').length")
    return made == 0 and page.evaluate("window.ran === undefined && window.broken.length === 0")


@pytest.fixture(autouse=True)
def watched(page):
    page.evaluate(WATCH)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_about_others_is_shown_as_it_is_and_runs_nothing(page, node, show_node, text):
    attach(node, text, state=text, edge=text, mode=text)
    hear_of(node, f"acme/{text}", address=text)
    hand_over(node, 1, device=text, role=text, peer=text, phase=text)
    node.enrol(text)
    register(node, "1" * 32, name=text, worker=text)
    show_node()
    (device,), (edge,), (handover,) = page.table("devices"), page.table("edges"), page.table("handovers")
    assert {device[heading] for heading in ("Device", "State", "Attached to", "Mode")} == {text}
    assert (edge["Edge"], edge["Operator"], edge["Address"]) == (f"acme/{text}", "acme", text)
    assert {handover[heading] for heading in ("Device", "Role here", "Other edge", "Phase")} == {text}
    assert page.table("workers")[0]["Worker"] == text
    assert {page.table("models")[0][heading] for heading in ("Model", "Worker")} == {text}
    assert harmless(page)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_about_the_node_is_shown_as_it_is_and_runs_nothing(page, node, show_node, text):
    node.name, node.operator, node.not_ready = NodeName(text), text, [text]
    with node.database.write() as tx:
        tx.execute(update(tables.policies).values(digest=text))
    show_node()
    assert page.evaluate("document.querySelector('#name').textContent") == text
    facts = "[...document.querySelectorAll('dt')].map((d) => [d.textContent, d.nextElementSibling.textContent])"
    said = dict(page.evaluate(facts))
    assert (said["Operator"], said["Ready"]) == (text, f"no: {text}")
    assert page.table("policies")[0]["Digest"] == text[:16]
    assert harmless(page)


def test_hostile_text_in_a_refusal_is_shown_as_it_is_and_runs_nothing(page, node, sign_in):
    node.enrol(HOSTILE["image"])
    sign_in(f"token-of-{HOSTILE['image']}")
    page.wait_for_text(f"who asks is worker {HOSTILE['image']}")
    assert harmless(page)


def test_the_page_asks_nobody_but_the_node_for_anything(page, node, api, show_node):
    attach(node, "watch-1")
    show_node()
    node.not_ready = ["SHUTTING_DOWN"]
    page.wait_for_text("SHUTTING_DOWN")
    page.click("#leave")
    assert any("/v1/admin/node" in url for url in page.requests)
    assert [url for url in page.requests if not url.startswith((f"{api.url}/", "data:"))] == []
    assert page.evaluate("window.broken") == []


@pytest.mark.parametrize("directive", FOREIGN)
def test_the_browser_is_told_to_stop_what_an_attacker_would_put_into_the_page(page, api, directive):
    other = api.url.replace("127.0.0.1", "localhost")  # it would answer, but it is another origin
    script = FOREIGN[directive].format(other=other, add="document.body.append(e)")
    page.evaluate(f"{{ {script} }}")
    page.wait_until(f"window.broken.includes('{directive}')")
    assert page.evaluate("window.ran === undefined")
    assert page.evaluate("document.baseURI") == f"{api.url}/"


def test_text_is_not_run_as_a_script(page):
    answer = page.call("Runtime.evaluate", expression="eval('window.ran = 1')", allowUnsafeEvalBlockedByCSP=False)
    assert answer["exceptionDetails"]["exception"]["className"] == "EvalError"


def test_another_site_cannot_show_the_page_in_a_frame(page, api):
    page.open("about:blank")
    page.evaluate(f"document.body.append(Object.assign(document.createElement('iframe'), {{src: '{api.url}'}}))")
    (failed,) = page.wait_for_events("Network.loadingFailed", 1)
    assert failed["errorText"] == "net::ERR_BLOCKED_BY_RESPONSE"
