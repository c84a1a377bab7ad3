"""The demo's town: a cloud, edges of two operators and the devices, in one folder, each enrolled, each a process.

Nothing here is a special path: the nodes are started by the same command and configuration files that a person
would use, with brokers inside the edges' and the cloud's processes, and are talked to over their sockets.
"""

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.cli.api_client import ApiClient, Refused
from datasync.demo.positions import SITES
from datasync.domain.clock import Instant
from datasync.domain.errors import DatasyncError, NodeStopped
from datasync.domain.ids import NodeName, node_name, operator_of
from datasync.nodes.shell import system_clock
from datasync.policy.loading import load as load_policy
from datasync.security.certificates import Role
from datasync.security.tls import Caller, calling
from datasync.security.trust import Authority, Trust
from datasync.security.vault import Vault, load_or_create_node_key
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.workers import token_hash
from datasync.views.client import open_view
from datasync.views.connection import Known

CLOUD = node_name("acme/cloud")
POLICY_KEY = node_name("acme/policy")
EDGES = tuple(node_name(site.edge) for site in SITES)
HUB = node_name("borealis/hub")
GUEST = node_name("guest")
TAP = node_name("tap")
OPERATORS = ("acme", "borealis")
ADMINISTRATOR = "administrator"
START_S_MAX = 60.0
STOP_S_MAX = 10.0


@dataclass(slots=True)
class Node:
    """One node's folder and addresses, and its process while it runs."""

    name: NodeName
    role: Role
    folder: Path
    broker_port: int = 0
    http_port: int = 0
    admin_token: str = ""
    tls: bool = False
    tokens: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where its HTTP API listens, if it has one."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.http_port}"

    @property
    def operator(self) -> str:
        """Who enrolled it; devices are all of one operator."""
        return OPERATORS[0] if self.role is Role.DEVICE else operator_of(self.name)

    def known(self, client: str = ADMINISTRATOR) -> Known:
        """How its HTTP API is known, and what the administrator or a worker shows there; at a device, its own."""
        if not self.tls:
            return Known()
        shown = self.folder / "identity" if self.role is Role.DEVICE else self.folder / "clients" / client
        return Known(self.folder / "trust" / f"{self.operator}.pem", self.name, shown)

    @property
    def broker(self) -> str:
        """Where its broker listens, for clients."""
        return f"{'mqtts' if self.tls else 'mqtt'}://127.0.0.1:{self.broker_port}"

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.folder / "node.toml"

    @property
    def log(self) -> Path:
        """What its process printed."""
        return self.folder / "node.log"

    @property
    def admin(self) -> ApiClient:
        """A client with the administrator's token."""
        return ApiClient(self.url, self.admin_token, self.known())

    def view(self, worker: str, collection: str, purpose: str) -> pa.Table:
        """Return what one of its workers may read of a collection, over HTTP."""
        return open_view(self.url, self.tokens[worker], collection, purpose, known=self.known(worker)).read_all()

    def run(self, command: Sequence[str]) -> None:
        """Start the node's process; what it prints goes to its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @contextmanager
    def store(self) -> Iterator[tuple[Database, Vault]]:
        """Open the node's database and vault, beside the running node, to look at what is really there."""
        with ExitStack() as stack:
            keys = Database.open(f"sqlite:///{self.folder}/keys.db", create=False)
            stack.callback(keys.close)
            database = Database.open(f"sqlite:///{self.folder}/data.db", create=False)
            stack.callback(database.close)
            node_key = load_or_create_node_key(self.folder / "keys" / "node.key", secrets.token_bytes)
            yield database, Vault(node_key, SqlKeyShelf(keys, is_owner=False), secrets.token_bytes)


class Town:
    """All nodes of the demo. Whoever starts it stops it, whatever happens."""

    def __init__(self, folder: Path, devices: Sequence[tuple[str, str]], *, tls: bool = False) -> None:
        """Enrol everybody in ``folder``; ``devices`` are names and home edges. ``tls`` is for every connection.

        One more device, the guest, has an HTTP API of its own.
        """
        self.tls = tls
        self._authorities = {operator: Authority.create(operator, system_clock()) for operator in OPERATORS}
        ports = iter(free_ports(2 * (2 + len(EDGES)) + 1))
        self.cloud = self._enrol(folder, CLOUD, Role.CLOUD, next(ports), next(ports))
        self.edges = [self._enrol(folder, name, Role.EDGE, next(ports), next(ports)) for name in EDGES]
        self.hub = self._enrol(folder, HUB, Role.EDGE, next(ports), next(ports))
        self.devices = [self._enrol(folder, node_name(name), Role.DEVICE) for name, _ in devices]
        self.guest = self._enrol(folder, GUEST, Role.DEVICE, http_port=next(ports))
        policy_key = self._authorities["acme"].enrol(POLICY_KEY, Role.POLICY, now=system_clock())
        policy_key.save(self.cloud.folder / "policy-key")
        self._tap = folder / "tap"
        self._authorities["acme"].enrol(TAP, Role.DEVICE, now=system_clock()).save(self._tap)
        for node in self.servers:
            node.config.write_text(self._server_config(node))
            self._certify(node, ADMINISTRATOR, Role.ADMIN)
        for node, (_, home) in zip(self.devices, devices, strict=True):
            node.config.write_text(self._device_config(home))
        self.guest.config.write_text(self._device_config(EDGES[0]) + self._guest_api())

    @property
    def servers(self) -> list[Node]:
        """The cloud, its operator's edges, and the other operator's."""
        return [self.cloud, *self.edges, self.hub]

    @property
    def nodes(self) -> list[Node]:
        """Every node."""
        return [*self.servers, *self.devices, self.guest]

    def start(self) -> None:
        """Start the cloud's and the edges' processes."""
        for node in self.servers:
            serve(node)

    def stop(self) -> None:
        """End every process."""
        running = [node.process for node in reversed(self.nodes) if node.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def open(self, policy: bytes) -> None:
        """Wait for the servers, activate the policy, register its workers. Raises NodeStopped, DatasyncError."""
        for node in self.servers:
            self.wait_for(node, {"POLICY_MISSING"})
        self.activate(policy)
        workers = load_policy(policy).workers.values()
        for node in self.servers:
            self.wait_for(node, set())
            for worker in workers:
                if (worker.place.value, worker.operator) == (node.role.value, operator_of(node.name)):
                    registered = node.admin.post("v1", "admin", "workers", document={"worker": worker.id})
                    node.tokens[worker.id] = registered["token"]
                    self._certify(node, worker.id, Role.WORKER)

    def activate(self, policy: bytes) -> None:
        """Give the cloud a policy, which passes it on. Raises Refused with every problem."""
        with self.cloud.admin.request("POST", ("v1", "admin", "policies"), {}, policy, "application/yaml") as response:
            response.read()

    def caller(self, node: Node) -> Caller | None:
        """Return how an identity of the demo's own calls a node's broker, if that is TLS."""
        if not self.tls:
            return None
        trust = Trust(authority.certificate for authority in self._authorities.values())
        return Caller(node.name, trust, calling(trust, self._tap), system_clock)

    def wait_for(self, node: Node, allowed: set[str]) -> None:
        """Wait until a server is ready, but for the allowed reasons. Raises NodeStopped."""
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            if not node.is_running:
                break
            try:
                if set(_not_ready(node)) <= allowed:
                    return
            except DatasyncError:
                pass  # not listening yet
            time.sleep(0.1)
        raise NodeStopped(f"{node.name} did not become ready", where=str(node.log), fix=node.log.read_text()[-2000:])

    def _enrol(self, folder: Path, name: NodeName, role: Role, broker_port: int = 0, http_port: int = 0) -> Node:
        home = folder / name.replace("/", "-")
        now: Instant = system_clock()
        own = self._authorities[operator_of(name) if role is not Role.DEVICE else "acme"]
        own.enrol(name, role, now=now).save(home / "identity")
        if role is not Role.DEVICE:
            own.enrol(name, Role.BROKER, now=now).save(home / "broker")
        (home / "trust").mkdir(parents=True)
        for operator, authority in self._authorities.items():
            (home / "trust" / f"{operator}.pem").write_bytes(_pem(authority.certificate))
        return Node(name, role, home, broker_port, http_port, secrets.token_urlsafe(32), self.tls)

    def _certify(self, node: Node, client: str, role: Role) -> None:
        operator = operator_of(node.name)
        name = NodeName(f"{operator}/{client}")
        self._authorities[operator].enrol(name, role, now=system_clock()).save(node.folder / "clients" / client)

    def _server_config(self, node: Node) -> str:
        lines = [
            *_COMMON,
            f'broker = "embedded{"+mqtts" if self.tls else ""}://127.0.0.1:{node.broker_port}"',
            f'admin_token_hash = "{token_hash(node.admin_token)}"',
        ]
        if node.role is Role.CLOUD:
            lines += ['policy_key = "policy-key"']
        if node.role is Role.EDGE:
            hold_s = 60.0 if node.name == HUB else 5.0
            lines += [f'backbone = "{self.cloud.broker}"', f'cloud = "{CLOUD}"', f"hold_s = {hold_s}"]
        return "\n".join([*lines, "[http]", f"port = {node.http_port}", f"tls = {str(self.tls).lower()}", ""])

    def _device_config(self, home: str) -> str:
        lines = [*_COMMON, f'home = "{home}"']
        for edge in (*self.edges, self.hub):
            lines += ["[[edges]]", f'name = "{edge.name}"', f'url = "{edge.broker}"']
        return "\n".join([*lines, "[meta]", 'region = "melbourne"', ""])

    def _guest_api(self) -> str:
        token = f'admin_token_hash = "{token_hash(self.guest.admin_token)}"'
        return "\n".join(["[api]", f"port = {self.guest.http_port}", f"tls = {str(self.tls).lower()}", token, ""])


_COMMON = (
    'identity = "identity"',
    'trust = "trust"',
    'database = "sqlite:///data.db"',
    'keys = "sqlite:///keys.db"',
    'node_key = "keys/node.key"',
)


def serve(node: Node) -> None:
    """Start the process of a cloud or an edge."""
    node.run([sys.executable, "-m", "datasync.cli.main", node.role.value, "--config", str(node.config)])


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _not_ready(node: Node) -> list[str]:
    try:
        with node.admin.request("GET", ("readyz",), {}):
            return []
    except Refused as refused:
        return refused.reasons or [refused.detail]


def _pem(certificate: bytes) -> bytes:
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
