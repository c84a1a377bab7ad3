"""The connection to a node's API: over TLS to the node that was meant, which is told nothing before that is sure."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from datasync.cli.api_client import ApiClient
from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError, LinkError, PeerRefused
from datasync.domain.ids import node_name
from datasync.nodes.shell import system_clock
from datasync.security.identity import Role
from datasync.security.tls import listening
from datasync.security.trust import Authority
from datasync.views.client import open_view
from datasync.views.connection import Known

CBD = "acme/cbd"
DAY_MS = 86_400_000


class Node(HTTPServer):
    """Answers every request with an empty object, and keeps the tokens it was given."""

    def __init__(self, identity: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens: list[str | None] = []
        if identity is not None:
            self.socket = listening(identity).wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if identity else 'http'}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Node)
        self.server.tokens.append(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def acme(tmp_path: Path) -> Authority:
    authority = Authority.create("acme", system_clock())
    authority.save(tmp_path / "acme")
    return authority


@pytest.fixture
def ca(tmp_path: Path, acme: Authority) -> Path:
    return tmp_path / "acme" / "authority.pem"


@pytest.fixture
def serve() -> Iterator[Callable[[Path | None], Node]]:
    with ExitStack() as stack:

        def start(identity: Path | None) -> Node:
            node = Node(identity)
            thread = threading.Thread(target=node.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(node.server_close)
            stack.callback(thread.join)
            stack.callback(node.shutdown)
            return node

        yield start


def enrolled(
    authority: Authority, folder: Path, *hosts: str, name: str = CBD, role: Role = Role.EDGE, ago_days: int = 0
) -> Path:
    now = Instant(system_clock().wall_ms - ago_days * DAY_MS, 0)
    authority.enrol(node_name(name), role, now=now, days=1, hosts=hosts).save(folder / "identity")
    return folder / "identity"


def test_a_node_is_known_by_its_name(acme, ca, serve, tmp_path) -> None:
    node = serve(enrolled(acme, tmp_path))
    assert ApiClient(node.url, "token", Known(ca, CBD)).get("healthz") == {}
    assert node.tokens == ["Bearer token"]


def test_a_node_is_known_by_the_host_that_it_was_enrolled_with(acme, ca, serve, tmp_path) -> None:
    node = serve(enrolled(acme, tmp_path, "127.0.0.1", "localhost"))
    assert ApiClient(node.url, "token", Known(ca)).get("healthz") == {}
    assert ApiClient(node.url.replace("127.0.0.1", "localhost"), "token", Known(ca)).get("healthz") == {}


@pytest.mark.parametrize(
    ("identity", "known", "why"),
    [
        ({}, {}, "127.0.0.1"),
        ({"name": "acme/docks"}, {"peer": CBD}, "acme/cbd was called, and edge acme/docks answered"),
        ({"role": Role.BROKER}, {"peer": CBD}, "broker acme/cbd answered"),
        ({"role": Role.BROKER, "hosts": ["127.0.0.1"]}, {}, "broker acme/cbd answered"),
        ({"ago_days": 2}, {"peer": CBD}, "expired"),
    ],
)
def test_who_was_not_meant_gets_no_token(acme, ca, serve, tmp_path, identity, known, why: str) -> None:
    options = dict(identity)
    node = serve(enrolled(acme, tmp_path, *options.pop("hosts", ()), **options))
    with pytest.raises(PeerRefused, match=why):
        ApiClient(node.url, "token", Known(ca, **known)).get("healthz")
    with pytest.raises(PeerRefused, match=why):
        open_view(node.url, "token", "trips", "p", known=Known(ca, **known))
    assert node.tokens == []


def test_a_node_of_another_authority_gets_no_token(ca, serve, tmp_path) -> None:
    other = Authority.create("acme", system_clock())
    node = serve(enrolled(other, tmp_path, "127.0.0.1"))
    for known in (Known(ca, CBD), Known(ca), Known()):
        with pytest.raises(PeerRefused):
            ApiClient(node.url, "token", known).get("healthz")
    assert node.tokens == []


def test_a_node_that_speaks_no_tls_gets_no_token(ca, serve) -> None:
    node = serve(None)
    with pytest.raises(LinkError):
        ApiClient(node.url.replace("http", "https"), "token", Known(ca, CBD)).get("healthz")
    assert node.tokens == []


@pytest.mark.parametrize("peer", [CBD, "no name"])
def test_a_name_needs_an_authority_and_a_form(ca, peer: str) -> None:
    with pytest.raises(ConfigError):
        ApiClient("https://127.0.0.1:1", "token", Known(ca if peer != CBD else None, peer)).get("healthz")
