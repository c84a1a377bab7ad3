"""What the benchmarks measure on: a cloud and one edge as processes, each with a Mosquitto of its own, and devices.

They are enrolled, configured and started as the demo does it; the other operator's edge, which the demo has too, runs
beside them and has nothing to do. With ``sampled`` the edge runs under the sampler.
"""

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from datasync.cli.main import main
from datasync.demo.run import policy_source
from datasync.demo.town import Node, Town
from datasync.domain.errors import DependencyMissing
from datasync.transport.mosquitto import CONFIGURATION_FILE
from tests.benchmarks.machine import mosquitto

BROKER = """\
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 1000
max_queued_messages 100000
message_size_limit 17000000
set_tcp_nodelay true
"""
LISTEN_S_MAX = 10.0
HOME = "acme/cbd"


@dataclass(frozen=True, slots=True)
class Site:
    """The running processes, and the devices' folders by the devices' names."""

    folder: Path
    edge: Node
    cloud: Node
    devices: dict[str, Node]
    processes: dict[str, int]
    """Process ids of the servers and their brokers, by what to call them."""

    bare: bool = False
    """Whether messages travel without their envelope (:mod:`tests.benchmarks.bare`)."""


def command_of(samples: Path | None, *, bare: bool) -> list[str]:
    """Return the beginning of a command that runs a module: under the sampler when its result is wanted, or bare."""
    sampled = [] if samples is None else ["-m", "tests.benchmarks.sampled", str(samples)]
    return [sys.executable, *sampled, *(["-m", "tests.benchmarks.bare"] if bare else []), "-m"]


@contextmanager
def site(
    folder: Path, devices: Sequence[str], *, edge_samples: Path | None = None, tls: bool = False, bare: bool = False
) -> Iterator[Site]:
    """Start cloud and edge and give them when they are ready; every device's home is the edge.

    With ``tls`` every connection is, and the brokers are configured as ``datasync broker config`` has it; with ``bare``
    messages have no envelope.
    """
    town = Town(folder, [(name, HOME) for name in devices], tls=tls)
    del town.edges[1:]
    brokers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for node in town.servers:
            brokers[node.name] = _broker(node)
            node.config.write_text(node.config.read_text().replace("embedded+", "").replace("embedded:", "mqtt:"))
            command = command_of(edge_samples if node is town.edges[0] else None, bare=bare)
            node.run([*command, "datasync.cli.main", node.role.value, "--config", str(node.config)])
        town.open(policy_source())
        measured = (town.cloud, town.edges[0])
        processes = {str(node.role): node.process.pid for node in measured if node.process is not None}
        processes |= {f"broker of the {node.role}": brokers[node.name].pid for node in measured}
        named = dict(zip(devices, town.devices, strict=True))
        yield Site(folder, town.edges[0], town.cloud, named, processes, bare)
    finally:
        town.stop()
        for broker in brokers.values():
            broker.terminate()
            broker.wait()


def _plain(node: Node) -> Path:
    config = node.folder / "mosquitto.conf"
    config.write_text(BROKER.format(port=node.broker_port))
    return config


def _secured(node: Node) -> Path:
    command = ["broker", "config", "--for", node.role.value, "--config", str(node.config)]
    with redirect_stdout(io.StringIO()):
        if main(command) != 0:
            raise RuntimeError(f"no configuration for the broker of {node.name}")
    config = node.folder / "broker" / CONFIGURATION_FILE
    if os.geteuid() == 0:
        config.write_text(f"{config.read_text()}user root\n")
    return config


def _broker(node: Node) -> "subprocess.Popen[bytes]":
    config = _secured(node) if node.tls else _plain(node)
    try:
        process = subprocess.Popen(
            [mosquitto(), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise DependencyMissing("the benchmarks need Mosquitto", fix="apt-get install mosquitto") from error
    deadline = time.monotonic() + LISTEN_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", node.broker_port), timeout=1):
            return process
        time.sleep(0.01)
    process.kill()
    process.wait()
    raise DependencyMissing(f"Mosquitto did not start with {config}")
