"""Client certificates over real TLS: who connects, who is let in, and who no longer is while the connection is open."""

import asyncio
import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from aiohttp import web

from datasync.api.app import application, probes
from datasync.cli.api_client import ApiClient, Refused
from datasync.domain.clock import Instant
from datasync.domain.errors import (
    CertificateForeign,
    CertificateRefused,
    CertificateRevoked,
    ConfigError,
    CredentialsDiffer,
    LinkError,
    PeerRefused,
)
from datasync.domain.ids import node_name
from datasync.nodes.shell import system_clock
from datasync.security.certificates import Role
from datasync.security.identity import Identity
from datasync.security.revocation import RevocationList, revoked
from datasync.security.tls import calling, listening
from datasync.security.trust import Authority, Trust
from datasync.store import audit
from datasync.views.client import open_view
from datasync.views.connection import Known, connection
from tests.unit.api.serving import ADMIN, Node

VIEW = "/v1/views/trips?purpose=service.routing&format=jsonl"
DAY_MS = 86_400_000
CHUNK_ROWS = 60_000


@dataclass
class Tls:
    """A node's API behind TLS on a socket, operators, and what they enrol."""

    node: Node
    folder: Path
    authorities: dict[str, Authority]
    runner: asyncio.Runner
    url: str = ""
    probes: str = ""
    served: list[web.AppRunner] = field(default_factory=list)

    def enrol(self, name: str, role: Role, *, by: str = "", label: str = "", ago_days: int = 0) -> Path:
        now = Instant(system_clock().wall_ms - ago_days * DAY_MS, 0)
        identity = self.authorities[by or name.split("/")[0]].enrol(node_name(name), role, now=now, days=1)
        folder = self.folder / (label or f"{role}-{name.replace('/', '.')}")
        identity.save(folder)
        return folder

    def known(self, identity: Path | None) -> Known:
        return Known(self.folder / "acme" / "authority.pem", "acme/cbd", identity)

    async def start(self, *, required: bool) -> None:
        context = listening(self.folder / "edge-acme.cbd", self.node.trust, required=required)
        api = application(self.node)
        self.url = f"https://127.0.0.1:{await self._listen(api, context)}"
        self.probes = f"http://127.0.0.1:{await self._listen(probes(api), None)}"

    async def stop(self) -> None:
        for served in reversed(self.served):
            await served.cleanup()

    async def _listen(self, app: web.Application, context: Any) -> int:
        served = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.served.append(served)
        await served.setup()
        await web.TCPSite(served, "127.0.0.1", 0, ssl_context=context).start()
        port: int = served.addresses[0][1]
        return port

    def ask(self, identity: Path | None, path: str = VIEW, token: str = "", *, method: str = "GET") -> tuple[int, str]:
        """Ask on a connection of its own; return the status and, if it is a problem, its code."""

        def whole() -> tuple[int, str]:
            node = self.connect(identity)
            try:
                return asked(node, path, token, method=method)
            finally:
                node.close()

        return self.here(whole)

    def connect(self, identity: Path | None) -> http.client.HTTPConnection:
        return connection(urlsplit(self.url), self.known(identity))

    def here(self, work: Callable[[], Any]) -> Any:
        """Run what asks the server in a thread, while the server runs here."""
        return self.runner.run(asyncio.to_thread(work))

    def revoke(self, folder: Path) -> None:
        entry = revoked(Identity.load(folder).certificate, system_clock())
        authority = self.node.trust.authority(self.authorities["acme"].certificate)
        self.node.trust.revoke(authority, RevocationList("acme", 1, system_clock().wall_ms, (entry,)))


def asked(node: http.client.HTTPConnection, path: str, token: str = "", *, method: str = "GET") -> tuple[int, str]:
    node.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
    response = node.getresponse()
    body = response.read()
    return response.status, json.loads(body)["code"] if response.status >= 400 else ""


@pytest.fixture
def site(node: Node, tmp_path: Path) -> Iterator[Tls]:
    """An edge of acme's that trusts acme and borealis; mallory nobody trusts."""
    authorities = {name: Authority.create(name, system_clock()) for name in ("acme", "borealis", "mallory")}
    for name, authority in authorities.items():
        authority.save(tmp_path / name)
    node.at = system_clock()
    node.trust = Trust([authorities["acme"].certificate, authorities["borealis"].certificate])
    with asyncio.Runner() as runner:
        made = Tls(node, tmp_path, authorities, runner)
        made.enrol("acme/cbd", Role.EDGE)
        yield made
        runner.run(made.stop())


@pytest.fixture
def strict(site: Tls) -> Tls:
    """The API where certificates are required."""
    site.runner.run(site.start(required=True))
    return site


@pytest.fixture
def lenient(site: Tls) -> Tls:
    """The API where certificates are accepted, and tokens enough."""
    site.runner.run(site.start(required=False))
    return site


def test_without_a_certificate_nobody_connects_where_it_is_required(strict: Tls) -> None:
    token = strict.node.enrol("router")
    with pytest.raises(PeerRefused, match="no certificate was shown"):
        strict.ask(None, token=token)
    with pytest.raises(PeerRefused):
        strict.ask(None, "/healthz")


@pytest.mark.parametrize("case", ["wrong authority", "same name of another authority", "expired", "a broker's"])
def test_a_certificate_that_is_not_valid_opens_no_connection(strict: Tls, case: str) -> None:
    strict.node.enrol("router")
    identity = {
        "wrong authority": lambda: strict.enrol("mallory/router", Role.WORKER),
        "same name of another authority": lambda: _forged(strict),
        "expired": lambda: strict.enrol("acme/router", Role.WORKER, ago_days=2),
        "a broker's": lambda: strict.enrol("acme/cbd", Role.BROKER),
    }[case]()
    with pytest.raises(PeerRefused, match="was shown, and it may ask for another"):
        strict.ask(identity)


def _forged(site: Tls) -> Path:
    forger = Authority.create("acme", system_clock())
    folder = site.folder / "forged"
    forger.enrol(node_name("acme/router"), Role.WORKER, now=system_clock()).save(folder)
    return folder


def test_a_worker_is_known_by_its_certificate_alone(strict: Tls) -> None:
    strict.node.enrol("router")
    assert strict.ask(strict.enrol("acme/router", Role.WORKER)) == (200, "")


def test_a_certificate_opens_what_its_workers_registration_does_and_nothing_after_that(strict: Tls) -> None:
    identity = strict.enrol("acme/router", Role.WORKER)
    assert strict.ask(identity) == (401, "UNAUTHENTICATED")
    strict.node.enrol("router", purposes=("improve.train",))
    assert strict.ask(identity) == (403, "PURPOSE_FORBIDDEN")
    strict.node.enrol("router", expires_ms=strict.node.now().wall_ms)
    assert strict.ask(identity) == (401, "UNAUTHENTICATED")


def test_an_administrator_is_known_by_a_certificate_of_the_nodes_own_operator(strict: Tls) -> None:
    own, foreign = strict.enrol("acme/alice", Role.ADMIN), strict.enrol("borealis/bob", Role.ADMIN)
    assert strict.ask(own, "/v1/admin/node") == (200, "")
    assert strict.ask(own) == (403, "FORBIDDEN")
    assert strict.ask(foreign, "/v1/admin/node") == (403, "CERTIFICATE_FOREIGN")
    assert strict.ask(foreign, "/v1/admin/node", ADMIN) == (403, "CERTIFICATE_FOREIGN")


def test_no_operators_certificate_administers_a_device(strict: Tls) -> None:
    strict.node.operator = ""
    assert strict.ask(strict.enrol("acme/alice", Role.ADMIN), "/v1/admin/node") == (403, "CERTIFICATE_FOREIGN")


@pytest.mark.parametrize(("name", "role"), [("watch-7", Role.DEVICE), ("acme/docks", Role.EDGE)])
def test_a_nodes_certificate_is_no_callers(strict: Tls, name: str, role: Role) -> None:
    identity = strict.enrol(name, role, by="acme")
    for token in ("", strict.node.enrol("router"), ADMIN):
        assert strict.ask(identity, "/v1/explain?collection=trips&field=mode", token) == (403, "CERTIFICATE_FOREIGN")
    assert strict.ask(identity, "/healthz") == (200, "")


def test_a_foreign_operators_certificate_for_a_worker_of_ours_is_nothing(strict: Tls) -> None:
    strict.node.enrol("router")
    strict.node.enrol("stranger")
    assert strict.ask(strict.enrol("borealis/router", Role.WORKER)) == (403, "CERTIFICATE_FOREIGN")
    assert strict.ask(strict.enrol("acme/stranger", Role.WORKER)) == (403, "CERTIFICATE_FOREIGN")
    assert strict.ask(strict.enrol("borealis/stranger", Role.WORKER)) == (403, "ACCESS_DENIED")  # as with its token


def test_a_token_and_a_certificate_are_the_same_callers(strict: Tls) -> None:
    router, stranger = strict.node.enrol("router"), strict.node.enrol("stranger")
    worker, admin = strict.enrol("acme/router", Role.WORKER), strict.enrol("acme/alice", Role.ADMIN)
    assert strict.ask(worker, token=router) == (200, "")
    assert strict.ask(admin, "/v1/admin/node", ADMIN) == (200, "")
    assert strict.ask(worker, token=stranger) == (401, "CREDENTIALS_DIFFER")
    assert strict.ask(worker, "/v1/admin/node", ADMIN) == (401, "CREDENTIALS_DIFFER")
    assert strict.ask(admin, "/v1/admin/node", router) == (401, "CREDENTIALS_DIFFER")
    assert strict.ask(worker, token="made up") == (401, "UNAUTHENTICATED")


def test_the_nodes_own_certificate_lets_a_token_say_who_asks(strict: Tls) -> None:
    own = strict.folder / "edge-acme.cbd"
    assert strict.ask(own, "/readyz") == (200, "")
    assert strict.ask(own, "/v1/admin/node") == (401, "UNAUTHENTICATED")
    assert strict.ask(own, "/v1/admin/node", ADMIN) == (200, "")
    assert strict.ask(own, token=strict.node.enrol("router")) == (200, "")


def test_a_certificate_that_is_revoked_opens_nothing_more_on_an_open_connection(strict: Tls) -> None:
    strict.node.enrol("router")
    identity, other = strict.enrol("acme/router", Role.WORKER), strict.enrol("acme/alice", Role.ADMIN)
    open_already = strict.connect(identity)
    assert strict.here(lambda: asked(open_already, VIEW)) == (200, "")
    socket = open_already.sock
    strict.revoke(identity)
    assert strict.here(lambda: asked(open_already, VIEW)) == (401, "CERTIFICATE_REVOKED")
    assert strict.here(lambda: asked(open_already, "/healthz")) == (401, "CERTIFICATE_REVOKED")
    assert open_already.sock is socket
    open_already.close()
    assert strict.ask(identity) == (401, "CERTIFICATE_REVOKED")
    assert strict.ask(other, "/v1/admin/node") == (200, "")


def test_a_certificate_that_expires_opens_nothing_more_on_an_open_connection(strict: Tls) -> None:
    strict.node.enrol("router")
    open_already = strict.connect(strict.enrol("acme/router", Role.WORKER))
    assert strict.here(lambda: asked(open_already, VIEW)) == (200, "")
    strict.node.at = Instant(system_clock().wall_ms + 2 * DAY_MS, 0)
    assert strict.here(lambda: asked(open_already, VIEW)) == (401, "CERTIFICATE_REFUSED")
    open_already.close()


def test_until_a_node_knows_who_was_revoked_it_takes_no_certificate(strict: Tls) -> None:
    strict.node.enrol("router")
    identity = strict.enrol("acme/router", Role.WORKER)
    strict.node.not_ready = ["STARTING"]
    assert strict.ask(identity) == (503, "NOT_READY")
    assert strict.ask(identity, "/healthz") == (200, "")
    strict.node.not_ready = ["LINK_DOWN_BACKBONE"]
    assert strict.ask(identity) == (200, "")


def test_a_view_that_is_being_read_breaks_off_when_its_workers_certificate_is_revoked(strict: Tls) -> None:
    strict.node.enrol("router")
    identity = strict.enrol("acme/router", Role.WORKER)
    for _ in range(2):  # so many rows are a chunk
        modes = pa.array([f"mode {row}" for row in range(CHUNK_ROWS)])
        strict.node.capture("watch-1", pa.table({"mode": modes, "speed": pa.nulls(CHUNK_ROWS, pa.float32())}))
    policy, asks = strict.node.policy(), iter(range(100))

    def revoking() -> Any:
        if next(asks) == 3:  # admission, the view, and its first chunk come before
            strict.revoke(identity)
        return policy

    strict.node.policy = revoking  # type: ignore[method-assign]
    known = strict.known(identity)
    with pytest.raises(LinkError, match="broke the view off"):
        strict.here(lambda: open_view(strict.url, None, "trips", "service.routing", known=known).read_all())
    assert strict.node.metric("datasync_view_rows_total", collection="trips") == CHUNK_ROWS


def test_where_certificates_are_accepted_a_token_is_enough_and_one_that_is_shown_counts(lenient: Tls) -> None:
    token = lenient.node.enrol("router")
    assert lenient.ask(None, token=token) == (200, "")
    assert lenient.ask(None) == (401, "UNAUTHENTICATED")
    identity = lenient.enrol("acme/router", Role.WORKER)
    assert lenient.ask(identity) == (200, "")
    lenient.revoke(identity)
    assert lenient.ask(identity, token=token) == (401, "CERTIFICATE_REVOKED")


def test_probes_are_answered_where_no_certificate_is_needed_and_nothing_else_is(strict: Tls) -> None:
    def probe(path: str) -> int:
        node = http.client.HTTPConnection(urlsplit(strict.probes).netloc)
        try:
            return asked(node, path, ADMIN)[0]
        finally:
            node.close()

    assert [strict.here(lambda path=path: probe(path)) for path in ("/healthz", "/readyz")] == [200, 200]
    for path in ("/metrics", "/v1/admin/node", VIEW, "/"):
        assert strict.here(lambda path=path: probe(path)) == 404


def test_who_was_refused_with_a_certificate_is_in_the_log(strict: Tls) -> None:
    assert strict.ask(strict.enrol("acme/router", Role.WORKER), "/v1/admin/node") == (401, "UNAUTHENTICATED")
    with strict.node.database.read() as tx:
        assert [entry.event for entry in audit.page(tx, after=0)] == [audit.Event.SIGN_IN_REFUSED]


def test_which_administrator_asked_for_a_change_is_in_the_log_where_a_certificate_says_it(strict: Tls) -> None:
    strict.node.enrol("router")
    admin, own = strict.enrol("acme/alice", Role.ADMIN), strict.folder / "edge-acme.cbd"
    assert strict.ask(admin, "/v1/admin/node") == (200, "")
    assert strict.ask(own, "/v1/admin/workers/nobody", ADMIN, method="DELETE") == (404, "NOT_FOUND")
    assert strict.ask(admin, "/v1/admin/workers/router", method="DELETE") == (204, "")
    with strict.node.database.read() as tx:
        said = [(entry.event, entry.actor, entry.subject) for entry in audit.page(tx, after=0)]
    assert said == [
        ("change-asked", "acme/alice", "DELETE /v1/admin/workers/router"),
        ("worker-revoked", "administrator", "router"),
    ]


def test_the_client_shows_its_certificate_and_says_what_the_node_said(strict: Tls) -> None:
    identity, admin = strict.enrol("acme/router", Role.WORKER), strict.enrol("acme/alice", Role.ADMIN)
    token = strict.node.enrol("router")
    strict.node.capture("watch-1", [{"speed": 1.0, "mode": "tram"}])

    def view(shown: Path, token: str | None = None) -> int:
        known = strict.known(shown)
        return open_view(strict.url, token, "trips", "service.routing", known=known).read_all().num_rows

    assert strict.here(lambda: view(identity)) == 1
    assert strict.here(lambda: ApiClient(strict.url, known=strict.known(admin)).get("v1", "admin", "node"))["name"]
    for shown, given, error in (
        (strict.enrol("watch-7", Role.DEVICE, by="acme"), None, CertificateForeign),
        (admin, token, CredentialsDiffer),
    ):
        with pytest.raises(error):
            strict.here(lambda shown=shown, given=given: view(shown, given))
    strict.revoke(identity)
    with pytest.raises(CertificateRevoked):
        strict.here(lambda: view(identity))
    with pytest.raises(Refused, match="CERTIFICATE_REVOKED"):
        strict.here(lambda: ApiClient(strict.url, known=strict.known(identity)).get("healthz"))
    strict.node.at = Instant(system_clock().wall_ms + 2 * DAY_MS, 0)
    with pytest.raises(CertificateRefused):
        strict.here(lambda: view(identity))


def test_a_key_that_others_can_read_is_not_shown(site: Tls) -> None:
    folder = site.enrol("acme/router", Role.WORKER)
    (folder / "signing.key").chmod(0o644)
    with pytest.raises(ConfigError) as refused:
        ApiClient("https://127.0.0.1:1", known=site.known(folder)).get("healthz")
    assert refused.value.fix == f"chmod 600 {folder}/signing.key"


def test_a_certificate_is_shown_in_tls_alone(site: Tls) -> None:
    with pytest.raises(ConfigError, match="nothing says who asks"):
        ApiClient("http://127.0.0.1:1", known=Known(identity=site.enrol("acme/router", Role.WORKER)))


def test_a_clients_certificate_answers_for_no_node(site: Tls, node: Node) -> None:
    shutil.rmtree(site.folder / "edge-acme.cbd")
    site.enrol("acme/cbd", Role.WORKER).rename(site.folder / "edge-acme.cbd")
    site.runner.run(site.start(required=False))
    with pytest.raises(PeerRefused):
        site.ask(None, "/healthz")
    assert calling(node.trust).check_hostname is False
