"""What anyone may ask of a node: health, readiness, metrics, the description and the page."""

import re
from importlib import resources

from prometheus_client.parser import text_string_to_metric_families


def test_health_is_open(api):
    answer = api.get("/healthz", token=None)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_a_ready_node_says_so(api):
    assert api.get("/readyz", token=None).json == {"status": "ready"}


def test_a_node_that_is_not_ready_says_why_in_codes_and_no_more(api):
    api.node.not_ready = ["POLICY_MISSING", "cannot open /srv/keys.db"]
    answer = api.get("/readyz", token=None)
    assert answer.problem() == (503, "NOT_READY")
    assert answer.json["reasons"] == ["POLICY_MISSING", "OTHER"]
    assert b"/srv" not in answer.body


def test_metrics_count_requests_by_route_method_and_status(api):
    for path in ("/healthz", "/healthz", "/v1/admin/workers/somebody", "/made/up/1", "/made/up/2"):
        api.get(path)
    api.ask("PROPFIND", "/healthz")
    text = api.get("/metrics", token=None).body.decode()
    requests = next(f for f in text_string_to_metric_families(text) if f.name == "datasync_http_requests")
    totals = [sample for sample in requests.samples if sample.name.endswith("_total")]
    counts = {tuple(s.labels[name] for name in ("route", "method", "status")): s.value for s in totals}
    assert counts[("/healthz", "GET", "200")] == 2
    assert counts[("none", "GET", "404")] == 2
    assert counts[("none", "OTHER", "405")] == 1
    assert counts[("none", "GET", "405")] == 1
    assert not any("made" in route for route, _, _ in counts)


def test_metrics_time_requests(api):
    api.get("/healthz")
    assert api.node.metric("datasync_http_request_seconds_count", route="/healthz", method="GET") == 1


def test_the_page_comes_with_a_policy_that_lets_nothing_foreign_in(api):
    page = api.get("/", token=None)
    assert (page.status, page.content_type) == (200, "text/html")
    rules = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in rules
    assert "script-src 'self'" in rules
    assert "unsafe-inline" not in rules


def test_the_page_needs_no_other_file_than_those_served_beside_it(api):
    page = api.get("/", token=None).body.decode()
    linked = [link for link in re.findall(r'(?:src|href)="([^"]+)"', page) if not link.startswith("data:")]
    assert sorted(linked) == ["ui/app.css", "ui/app.js"]
    for link in linked:
        answer = api.get(f"/{link}", token=None)
        assert answer.status == 200
        assert answer.content_type in ("text/css", "text/javascript")
        assert b"http://" not in answer.body
        assert b"https://" not in answer.body


def test_the_page_has_nothing_inline_that_its_policy_would_stop(api):
    page = api.get("/", token=None).body.decode()
    assert not re.search(r"<style|\bstyle=|\bon\w+=|<script(?![^>]*\bsrc=)", page)


def test_the_script_never_writes_markup_and_keeps_the_token_in_the_session_alone():
    script = resources.files("datasync.api").joinpath("ui", "app.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage|cookie", script)
    assert "sessionStorage" in script
