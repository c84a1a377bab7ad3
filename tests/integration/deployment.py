"""A whole deployment of real processes: a cloud, two edges, devices, and a Mosquitto for each server.

Nodes are started by the commands and files that a person would use, and are looked at from outside: over HTTP, by
their logs, and in their databases, which can be read beside the running node. Whoever makes a deployment closes it;
that ends every process, whatever happened.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client.parser import text_string_to_metric_families

from datasync.cli.api_client import ApiClient, Refused, pieces
from datasync.domain.errors import DatasyncError
from datasync.domain.ids import NodeName, node_name
from datasync.domain.limits import WINDOW_BYTES
from datasync.handover import accounts, whereabouts
from datasync.handover.accounts import Account
from datasync.handover.whereabouts import Whereabouts
from datasync.nodes.shell import system_clock
from datasync.security.identity import Identity, Role
from datasync.security.trust import Authority
from datasync.security.vault import Vault, load_or_create_node_key
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.workers import token_hash
from datasync.transport.mosquitto import ACCESS_FILE, AUTHORITIES_FILE, BrokerPlan, access_list, configuration
from datasync.views.connection import Known
from tests.integration import rows
from tests.integration.mosquitto import Mosquitto, free_port, mosquitto_program

ROOT = Path(__file__).parents[2]
CLOUD = node_name("acme/cloud")
POLICY_KEY = node_name("acme/policy")
CBD, DOCKS = EDGES = (node_name("acme/cbd"), node_name("acme/docks"))
BROKER_SETTINGS = ("max_inflight_messages 1000", "message_size_limit 17000000", "set_tcp_nodelay true")
START_S_MAX = 90.0
STOP_S_MAX = 30.0
POLL_S = 0.05
LOG_TAIL_CHARACTERS = 6_000


@dataclass(slots=True)
class Place:
    """One node's folder, identity and databases, and its process while it runs."""

    name: NodeName
    folder: Path
    identity: Identity
    command: Sequence[str] = ()
    database: str = ""
    keys: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    started_s: float = 0.0

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    def start(self) -> None:
        self.started_s = time.time()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command, "--config", str(self.config)],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if not name.startswith("DATASYNC_")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an operator would; return its exit code."""
        return self._end(signal.SIGTERM)

    def is_at_work(self) -> bool:
        """Whether it has begun to do what it is for since it was last started."""
        raise NotImplementedError

    def check_alive(self) -> None:
        """Fail when the process was started and has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if self.log.exists() else ""

    @contextmanager
    def store(self) -> Iterator[tuple[Database, Vault]]:
        """Open the node's database and vault, beside the running node, to look at what is really there."""
        with ExitStack() as stack:
            keys = Database.open(self.keys, create=False)
            stack.callback(keys.close)
            database = Database.open(self.database, create=False)
            stack.callback(database.close)
            node_key = load_or_create_node_key(self.folder / "keys" / "node.key", secrets.token_bytes)
            yield database, Vault(node_key, SqlKeyShelf(keys, is_owner=False), secrets.token_bytes)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(how)
        try:
            return process.wait(STOP_S_MAX)
        finally:
            process.kill()
            process.wait()


@dataclass(slots=True)
class Server(Place):
    """An edge or the cloud."""

    broker: Mosquitto = field(kw_only=True)
    http_port: int = field(default_factory=free_port)
    admin_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    tokens: dict[str, str] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    """How its HTTP API is known; with an authority it speaks TLS, and tokens come over the node's own certificate."""

    @property
    def url(self) -> str:
        return f"{'http' if self.known.ca is None else 'https'}://127.0.0.1:{self.http_port}"

    @property
    def admin(self) -> ApiClient:
        return ApiClient(self.url, self.admin_token, self.known)

    def is_at_work(self) -> bool:
        return not self.not_ready()

    def not_ready(self) -> set[str]:
        """Return the codes of why it cannot serve; empty when it is ready."""
        try:
            with self.admin.request("GET", ("readyz",), {}):
                return set()
        except Refused as refused:
            return set(refused.reasons) or {refused.code}
        except DatasyncError as error:
            return {error.code}

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels, 0 when there are none."""
        with self.admin.request("GET", ("metrics",), {}) as response:
            text = b"".join(pieces(response)).decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def refused(self, code: str) -> float:
        """Return how many inputs were refused with a code."""
        return self.metric("datasync_events_total", kind="refused", what=code)

    def account(self, device: NodeName) -> Account:
        """Return an edge's account of a device."""
        with self.store() as (database, _), database.read() as tx:
            return accounts.load(tx, device)


@dataclass(slots=True)
class Wanderer(Place):
    """A device, whose process runs a small program; see :mod:`tests.integration.wanderer`."""

    def tell(self, *, halt: bool) -> None:
        """Have the program neither record nor move, or go on."""
        (self.folder / "halted").unlink(missing_ok=True)
        if halt:
            (self.folder / "halt").touch()
        else:
            (self.folder / "halt").unlink()

    def is_halted(self) -> bool:
        """Whether the program has obeyed, and all that it recorded is durable."""
        return (self.folder / "halted").exists()

    def is_at_work(self) -> bool:
        promised = self.folder / "promised"
        return promised.exists() and promised.stat().st_mtime > self.started_s

    def whereabouts(self) -> Whereabouts:
        with self.store() as (database, vault), database.read() as tx:
            return whereabouts.load(tx, vault, self.name)


class Deployment:
    """All nodes and brokers, in one folder; with ``tls`` every connection between them is verified at both ends."""

    def __init__(
        self,
        folder: Path,
        *,
        cloud_database: str = "",
        cloud_keys: str = "",
        hold_s: float = 1.0,
        tls: bool = False,
    ) -> None:
        """Enrol the servers and start their brokers. The cloud's databases are SQLite unless said."""
        self.folder = folder
        self._tls = tls
        self.authority = Authority.create("acme", system_clock())
        self.policy_key = self.authority.enrol(POLICY_KEY, Role.POLICY, now=system_clock())
        self.devices: list[Wanderer] = []
        self._brokers: list[Mosquitto] = []
        self._hold_s = hold_s
        try:
            self.cloud = self._server(CLOUD, Role.CLOUD, cloud_database, cloud_keys)
            self.edges = {name: self._server(name, Role.EDGE) for name in EDGES}
        except BaseException:
            self._stop_brokers()
            raise

    @property
    def servers(self) -> list[Server]:
        return [self.cloud, *self.edges.values()]

    @property
    def places(self) -> list[Place]:
        return [*self.servers, *self.devices]

    def start(self, policy: bytes = rows.POLICY, workers: Mapping[Role, Sequence[str]] = rows.WORKERS) -> None:
        """Start the servers, activate the policy in the cloud, and register the workers."""
        for server in self.servers:
            server.start()
        for server in self.servers:
            self.until(lambda server=server: server.not_ready() <= {"POLICY_MISSING"}, f"{server.name} to start")
        with self.cloud.admin.request("POST", ("v1", "admin", "policies"), {}, policy, "application/yaml") as response:
            response.read()
        for server in self.servers:
            self.until(lambda server=server: not server.not_ready(), f"{server.name} to be ready")
            for worker in workers.get(server.identity.role, ()):
                registered = server.admin.post("v1", "admin", "workers", document={"worker": worker})
                server.tokens[worker] = registered["token"]

    def close(self) -> None:
        """End every process and broker, and print their logs."""
        for place in self.places:
            if place.process is not None:
                place.kill()
        self._stop_brokers()
        self.print_logs()

    def print_logs(self) -> None:
        """Print what the nodes said last: pytest shows it when the test failed."""
        for place in self.places:
            print(f"--- {place.name}\n{place.tail()}")

    def until(self, reached: Callable[[], bool], what: str, seconds_max: float = START_S_MAX) -> None:
        """Return when ``reached`` says so; fail when it takes too long, or when a process ends by itself."""
        deadline = time.monotonic() + seconds_max
        while not reached():
            for place in self.places:
                place.check_alive()
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds_max:.0f} s for {what} in vain")
            time.sleep(POLL_S)  # other processes are at work: there is nothing to wait on but the clock

    def halt(self) -> None:
        """Return when no device's program records or moves any more."""
        for device in self.devices:
            device.tell(halt=True)
        self.until(lambda: all(device.is_halted() for device in self.devices), "the devices to halt")

    def device(self, name: str, home: NodeName = CBD, *program: str) -> Wanderer:
        """Enrol and configure a device; ``program`` are more words of its command."""
        identity = self._enrol(node_name(name), Role.DEVICE)
        folder = self._folder(identity.name)
        command = ["-m", "tests.integration.wanderer", *program]
        device = Wanderer(identity.name, folder, identity, command, *_sqlite(folder))
        lines = [*_COMMON, f'database = "{device.database}"', f'keys = "{device.keys}"', f'home = "{home}"']
        for edge in self.edges.values():
            lines += ["[[edges]]", f'name = "{edge.name}"', f'url = "{edge.broker.url}"']
        lines += ["[capture]", "flush_rows = 50", "flush_ms = 100"]
        device.config.write_text("\n".join([*lines, "[meta]", 'region = "melbourne"', ""]))
        self.devices.append(device)
        return device

    def _stop_brokers(self) -> None:
        for broker in self._brokers:
            broker.kill()

    def _server(self, name: NodeName, role: Role, database: str = "", keys: str = "") -> Server:
        identity, folder = self._enrol(name, role), self._folder(name)
        broker = self._broker(name, role)
        own_database, own_keys = _sqlite(folder)
        command = ["-m", "datasync.cli.main", role.value]
        known = Known(folder / "trust" / "acme.pem", name, folder / "identity") if self._tls else Known()
        data, wrapped = database or own_database, keys or own_keys
        server = Server(name, folder, identity, command, data, wrapped, broker=broker, known=known)
        lines = [
            *_COMMON,
            f'database = "{server.database}"',
            f'keys = "{server.keys}"',
            f'broker = "{broker.url}"',
            f'admin_token_hash = "{token_hash(server.admin_token)}"',
        ]
        if role is Role.CLOUD:
            self.policy_key.save(folder / "policy-key")
            lines += ['policy_key = "policy-key"']
        if role is Role.EDGE:
            cloud = self.cloud
            lines += [f'backbone = "{cloud.broker.url}"', f'cloud = "{cloud.name}"']
            lines += [f"hold_s = {self._hold_s}", "source_timeout_s = 3.0"]
        lines += ["[http]", f"port = {server.http_port}", f"tls = {str(self._tls).lower()}", ""]
        server.config.write_text("\n".join(lines))
        return server

    def _broker(self, name: NodeName, role: Role) -> Mosquitto:
        folder = self._folder(name) / "mosquitto"
        if self._tls:
            own = self._folder(name) / "broker"
            self.authority.enrol(name, Role.BROKER, now=system_clock()).save(own)
            plan = BrokerPlan(name, role, "127.0.0.1", 0, own, folder, WINDOW_BYTES, connections_max=100)
            broker = Mosquitto(mosquitto_program(), folder, generate=partial(self._configure, plan))
        else:
            broker = Mosquitto(mosquitto_program(), folder, *BROKER_SETTINGS)
        self._brokers.append(broker)
        broker.start()
        return broker

    def _configure(self, plan: BrokerPlan, port: int) -> str:
        """Write what a broker with TLS needs, and return its configuration for a port."""
        folder = Path(plan.folder)
        (folder / ACCESS_FILE).write_text(access_list(plan.owner, plan.role))
        (folder / AUTHORITIES_FILE).write_bytes(self._authority())
        return configuration(replace(plan, port=port))

    def _authority(self) -> bytes:
        return x509.load_der_x509_certificate(self.authority.certificate).public_bytes(Encoding.PEM)

    def _enrol(self, name: NodeName, role: Role) -> Identity:
        folder = self._folder(name)
        identity = self.authority.enrol(name, role, now=system_clock())
        identity.save(folder / "identity")
        (folder / "trust").mkdir(parents=True)
        (folder / "trust" / "acme.pem").write_bytes(self._authority())
        return identity

    def _folder(self, name: NodeName) -> Path:
        return self.folder / name.replace("/", "-")


_COMMON = ('identity = "identity"', 'trust = "trust"', 'node_key = "keys/node.key"', "retry_ms = 300")


def _sqlite(folder: Path) -> tuple[str, str]:
    return f"sqlite:///{folder}/data.db", f"sqlite:///{folder}/keys.db"
