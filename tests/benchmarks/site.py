"""What the benchmarks measure on: the demo's cloud and edge as processes, each with a Mosquitto of its own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datasync.demo.run import WORKERS, policy_source
from datasync.demo.town import Node, Town
from datasync.domain.errors import DependencyMissing

BROKER = """\
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 1000
max_queued_messages 100000
message_size_limit 17000000
set_tcp_nodelay true
"""
LISTEN_S_MAX = 10.0


@contextmanager
def site(folder: Path, devices: list[str]) -> Iterator[Town]:
    """Start a town whose devices are at home at the first edge; give it when it is ready."""
    town = Town(folder, [(name, "acme/cbd") for name in devices])
    brokers = [_broker(node) for node in town.servers]
    try:
        for node in town.servers:
            node.config.write_text(node.config.read_text().replace("embedded://", "mqtt://"))
        town.start()
        town.open(policy_source(), WORKERS)
        yield town
    finally:
        town.stop()
        for broker in brokers:
            broker.terminate()
            broker.wait()


def _broker(node: Node) -> "subprocess.Popen[bytes]":
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        raise DependencyMissing("the benchmarks need Mosquitto", fix="apt-get install mosquitto")
    config = node.folder / "mosquitto.conf"
    config.write_text(BROKER.format(port=node.broker_port))
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + LISTEN_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", node.broker_port), timeout=1):
            return process
    raise DependencyMissing(f"Mosquitto did not start with {config}")
