"""A cloud and an edge as processes, set up by the commands and the samples that a person would use."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest.mock
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from datasync.cli.main import main

DEPLOY = Path(__file__).parents[3] / "deploy"
START_S_MAX = 60.0


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Site:
    """One folder with everything; ``url`` and ``port`` are by name, ``cloud`` or ``edge``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = ""
        self.http = dict(zip(("cloud", "edge"), _free_ports(2), strict=True))
        self.broker = dict(zip(("cloud", "edge"), _free_ports(2), strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, node: str) -> str:
        return f"http://127.0.0.1:{self.http[node]}"

    def datasync(self, *words: str, token: str | None = None) -> Ended:
        """Run a command as the administrator, or with another token."""
        environment = {**_without_settings(os.environ), "DATASYNC_TOKEN": self.token if token is None else token}
        output, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        with (
            unittest.mock.patch.dict(os.environ, environment, clear=True),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            code = main(words)
        output.seek(0)
        return Ended(code, output.read(), errors.getvalue())

    def done(self, *words: str, token: str | None = None) -> str:
        """Run a command that must succeed; return what it printed."""
        ended = self.datasync(*words, token=token)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def set_up(self) -> None:
        self.token = json.loads(self.done("enroll", "admin", "--json"))["token"]
        (self.folder / "admin.token").write_text(self.token)
        authority = str(self.folder / "authority")
        self.done("enroll", "ca", "acme", "--folder", authority)
        for node, name in (("cloud", "acme/cloud"), ("edge", "acme/cbd")):
            home = self.folder / node
            self.done("enroll", node, name, "--authority", authority, "--folder", str(home))
            shutil.copy(DEPLOY / f"{node}.toml", home)
            shutil.copy(self.folder / "admin.token", home)
        key = str(self.folder / "cloud" / "policy-key")
        self.done("enroll", "policy-key", "acme/policy", "--authority", authority, "--folder", key)
        shutil.copy(DEPLOY / "policies" / "demo.yaml", self.folder / "cloud" / "policy.yaml")

    def start(self, node: str, **overrides: str) -> None:
        settings = {"BROKER": f"embedded://127.0.0.1:{self.broker[node]}", "HTTP__PORT": str(self.http[node])}
        variables = {f"DATASYNC_{key}": value for key, value in {**settings, **overrides}.items()}
        command = [sys.executable, "-m", "datasync.cli.main", node]
        with (self.folder / f"{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                [*command, "--config", str(self.folder / node / f"{node}.toml")],
                env={**_without_settings(os.environ), **variables},
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, node: str) -> None:
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline and self.processes[node].poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url(node)}/readyz", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)  # another process gets ready: there is nothing to wait on but the clock
        raise AssertionError(f"{node} is not ready: {(self.folder / f'{node}.log').read_text()}")

    def stop(self, node: str) -> int:
        process = self.processes.pop(node)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(20)
        finally:
            process.kill()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("DATASYNC_")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running site with the demo's policy active."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.set_up()
    try:
        site.start("cloud", DATABASE="sqlite:///cloud.db")
        site.start("edge", BACKBONE=f"mqtt://127.0.0.1:{site.broker['cloud']}")
        site.wait_ready("cloud")
        site.wait_ready("edge")
        yield site
    finally:
        for node in list(site.processes):
            site.stop(node)
