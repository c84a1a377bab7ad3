"""Starting nodes: the story of a start, read from top to bottom.

Identity and trust, then the two databases and the vault between them, then the node in its shell with its links, then
the HTTP API. Each part is closed in the reverse order, whatever ends the node.
"""

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from datasync.api.app import application, probes
from datasync.domain.errors import ConfigError
from datasync.domain.ids import NodeName, operator_of
from datasync.nodes.backend import NodeBackend
from datasync.nodes.cloud import CloudNode
from datasync.nodes.config import Broker, CloudConfig, DeviceConfig, EdgeConfig, Http, NodeConfig, ServerConfig
from datasync.nodes.device import Beacons, DeviceNode, DeviceSettings
from datasync.nodes.edge import EdgeNode, EdgeSettings
from datasync.nodes.links import BACKBONE, DEVICES
from datasync.nodes.node import Activate, Kit, Node
from datasync.nodes.node_key import open_node_key, surroundings
from datasync.nodes.roster import Patience
from datasync.nodes.shell import Shell, system_clock
from datasync.policy.loading import load as load_policy
from datasync.protocol.revocations import LIST_BYTES_MAX
from datasync.security.certificates import expiry_warning
from datasync.security.files import read_file
from datasync.security.identity import Identity, Role
from datasync.security.tls import Caller, calling, listening
from datasync.security.trust import Trust
from datasync.security.vault import Vault
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.transport.embedded import EmbeddedBroker
from datasync.transport.mqtt import MqttLink

SHUTDOWN_S_MAX = 5.0
"""How long requests that are being answered may take to end when the node stops."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a node stands on: its kit, its database, and where its metrics go."""

    kit: Kit
    database: Database
    registry: CollectorRegistry


def run_device(config: DeviceConfig) -> None:
    """Run a device agent until it is told to stop."""
    _run(config, _device(config))


def run_edge(config: EdgeConfig) -> None:
    """Run an edge until it is told to stop."""
    _run(config, _edge(config))


def run_cloud(config: CloudConfig) -> None:
    """Run a cloud until it is told to stop."""
    _run(config, _cloud(config))


@contextmanager
def opened(config: NodeConfig, role: Role) -> Iterator[Opened]:
    """Open what a node stands on. Raises ConfigError and StoreError."""
    identity = Identity.load(config.identity)
    if identity.role is not role:
        raise ConfigError(f"{identity.name} is enrolled as {identity.role}, not as {role}", where=str(config.identity))
    trust = Trust.load(config.trust)
    keys = Database.open(config.keys, exclusive=True)
    try:
        node_key = open_node_key(config.node_key, keys, surroundings(), os.urandom)
        database = Database.open(config.database, exclusive=True)
        try:
            vault = Vault(node_key, SqlKeyShelf(keys), os.urandom)
            lists = tuple(_lists(config.trust))
            kit = Kit(identity, trust, vault, os.urandom, config.window_bytes, config.retry_ms, lists)
            yield Opened(kit, database, _watched(identity))
        finally:
            database.close()
    finally:
        keys.close()


def _lists(trust: Path) -> Iterator[bytes]:
    """Read the revocation lists beside the authorities' certificates; nodes judge them as they judge any."""
    for path in sorted(trust.glob("*.cose")):
        with path.open("rb") as file:
            yield file.read(LIST_BYTES_MAX + 1)


def _watched(identity: Identity) -> CollectorRegistry:
    """Return where metrics go, with the one that tells until when the node is itself; and say if that is soon."""
    registry, last_ms = CollectorRegistry(), identity.validity.last_ms
    gauge = Gauge("datasync_certificate_expires_seconds", "When the node's certificate expires", registry=registry)
    gauge.set(last_ms / 1000)
    if warning := expiry_warning(last_ms, system_clock()):
        _log.warning("%s: %s", identity.name, warning)
    return registry


def device_shell(config: DeviceConfig, base: Opened) -> Shell:
    """Return the shell of a device; its links are the brokers of its edges, by the edges' names."""
    addresses = {edge.name: edge.url for edge in config.edges}
    settings = DeviceSettings(
        edges=frozenset(addresses),
        home=config.first_edge.name,
        flush_rows=config.capture.flush_rows,
        flush_ms=config.capture.flush_ms,
        sign_ms=config.capture.sign_ms,
        meta=dict(config.meta),
    )

    beacons: Beacons = {}

    def build() -> DeviceNode:
        return DeviceNode(base.kit, settings, beacons)

    def dial(edge: str) -> MqttLink:
        name = NodeName(edge)
        if name not in addresses:
            raise ConfigError(f"the configuration has no address for the edge {edge!r}")
        caller = _caller(config, base, addresses[name], name)
        client_id = f"device-{base.kit.identity.name}"
        return MqttLink(addresses[name].url, client_id, build().subscriptions[""], caller=caller)

    return Shell(build, base.database, dial, (), base.registry)


async def _device(config: DeviceConfig) -> None:
    with opened(config, Role.DEVICE) as base:
        shell = device_shell(config, base)
        async with device_api(config, base, shell), asyncio.TaskGroup() as tasks:
            tasks.create_task(shell.run())
            await shell.started.wait()
            await offer_policy(shell, config)


async def _edge(config: EdgeConfig) -> None:
    with opened(config, Role.EDGE) as base:
        patience = Patience(int(config.hold_s * 1000), int(config.source_timeout_s * 1000))
        settings = EdgeSettings(config.cloud, patience, config.devices_max)
        links = {DEVICES: (config.broker, base.kit.identity.name), BACKBONE: (config.backbone, config.cloud)}
        await _serve(config, base, lambda: EdgeNode(base.kit, settings), links)


async def _cloud(config: CloudConfig) -> None:
    with opened(config, Role.CLOUD) as base:
        key = None if config.policy_key is None else _policy_key(config.policy_key, base.kit.identity)
        await _serve(
            config, base, lambda: CloudNode(base.kit, key), {BACKBONE: (config.broker, base.kit.identity.name)}
        )


def _policy_key(folder: Path, cloud: Identity) -> Identity:
    """Return the policy key in a folder. Raises ConfigError when it is none, or another operator's."""
    key = Identity.load(folder)
    if key.role is not Role.POLICY or operator_of(key.name) != operator_of(cloud.name):
        raise ConfigError(f"{key.name} is enrolled as {key.role}, not as {cloud.name}'s policy key", where=str(folder))
    return key


async def _serve(
    config: ServerConfig, base: Opened, build: Callable[[], Node], links: dict[str, tuple[Broker, NodeName]]
) -> None:
    """Run an edge or a cloud: its broker if that is in this process, its shell, its HTTP API.

    ``links`` are its links' brokers, each with the name of the node whose broker it is.
    """

    def dial(name: str) -> MqttLink:
        broker, peer = links[name]
        client_id = f"{base.kit.identity.name.replace('/', '.')}-{name}"
        # a plain device's message is kept by the broker until it is committed here
        return MqttLink(
            broker.url,
            client_id,
            build().subscriptions[name],
            caller=_caller(config, base, broker, peer),
            durable_session=name == DEVICES,
        )

    shell = Shell(build, base.database, dial, tuple(links), base.registry)
    backend = NodeBackend(shell, base.database, base.kit.vault, base.registry, config.admin_hash())
    async with _broker(config, base), _http(config.http, config, backend, base.kit.trust), asyncio.TaskGroup() as tasks:
        tasks.create_task(shell.run())
        await shell.started.wait()
        await offer_policy(shell, config)
        _log.info("%s serves on %s", base.kit.identity.name, config.http.url)


@asynccontextmanager
async def device_api(config: DeviceConfig, base: Opened, shell: Shell) -> AsyncIterator[None]:
    """Serve a device's HTTP API, if it is to have one. Raises ConfigError."""
    if config.api is None:
        yield
        return
    backend = NodeBackend(shell, base.database, base.kit.vault, base.registry, config.api.admin_hash())
    async with _http(config.api, config, backend, base.kit.trust):
        yield


async def offer_policy(shell: Shell, config: NodeConfig) -> None:
    """Activate the configured policy file unless the node has it, or a newer one. Raises PolicyError."""
    if config.policy is None:
        return
    source = read_file(config.policy)
    offered = load_policy(source, name=str(config.policy))
    active = shell.policy
    if active is None or active.revision < offered.revision:
        await shell.ask(lambda ticket: Activate(ticket, source))


def _caller(config: NodeConfig, base: Opened, broker: Broker, peer: NodeName) -> Caller | None:
    """Return how to speak TLS with ``peer``'s broker, if that does."""
    trust = base.kit.trust
    return Caller(peer, trust, calling(trust, config.identity), system_clock) if broker.tls else None


@asynccontextmanager
async def _broker(config: ServerConfig, base: Opened) -> AsyncIterator[None]:
    broker = config.broker
    if not broker.embedded:
        yield
        return
    context = listening(config.identity, base.kit.trust) if broker.tls else None
    async with EmbeddedBroker(broker.host, broker.port, context):
        yield


@asynccontextmanager
async def _http(http: Http, config: NodeConfig, backend: NodeBackend, trust: Trust) -> AsyncIterator[None]:
    api = application(backend)
    async with _site(api, http.host, http.port, _tls(http, config.identity, trust)):
        if http.probes_port is None:
            yield
            return
        async with _site(probes(api), http.host, http.probes_port, None):
            yield


@asynccontextmanager
async def _site(app: web.Application, host: str, port: int, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S_MAX)
    await runner.setup()
    try:
        await _listen(web.TCPSite(runner, host, port, ssl_context=context))
        yield
    finally:
        await runner.cleanup()


def _tls(http: Http, identity: Path, trust: Trust) -> ssl.SSLContext | None:
    """Return how the HTTP API speaks TLS, if it does, and whose certificates it asks clients for."""
    if not http.is_tls:
        return None
    return listening(identity, None if http.asks == "off" else trust, required=http.asks == "required")


async def _listen(site: web.TCPSite) -> None:
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"cannot listen: {error.strerror or error}", where=site.name, fix="choose another port"
        ) from error


def _run(config: NodeConfig, node: Coroutine[Any, Any, None]) -> None:
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells at every start that there is nothing to do
    asyncio.run(_until_told(node))


async def _until_told(node: Coroutine[Any, Any, None]) -> None:
    running = asyncio.ensure_future(node)
    loop = asyncio.get_running_loop()
    for told in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(told, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        pass
    except BaseExceptionGroup as group:
        raise sole(group) from None


def sole(error: BaseException) -> BaseException:
    """Return the one error that a group of tasks failed with; a group of several as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
