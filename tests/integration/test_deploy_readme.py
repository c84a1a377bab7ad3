"""deploy/README.md, followed to the letter: one shell runs its commands in their order, with real servers.

What a person would put in place of the document's words is put in place here: where the files are, ports that are free,
and a PostgreSQL of the tests' own instead of the machine's. ``BEFORE`` is what a person waits for, or checks, before a
block. Every command has to succeed.
"""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deqr
import pytest

from tests.conftest import PostgresCluster
from tests.integration.mosquitto import SBIN, free_port, mosquitto_program
from tests.unit.cli.test_enroll_qr import pixels

DEPLOY = Path(__file__).parents[2] / "deploy"
PORTS = ("8883", "8884", "8885", "8080", "8081", "8082", "8090", "8091")
SOON_S = 90.0
POLL_S = 0.1
INSTALLING = ("apt-get ", "python3 -m venv ")
AS_ROOT = "chown -R mosquitto: "
SUDO = """#!/bin/sh
# sudo -u postgres COMMAND…, at the tests' own server
shift 2
exec env PGHOST={folder} PGUSER=postgres "$@"
"""


def blocks(document: str) -> Iterator[str]:
    """Yield the document's indented blocks, which are its commands."""
    for each in re.finditer(r"(?:^ {4}.*\n(?:\n(?= {4}))*)+", document, re.MULTILINE):
        yield textwrap.dedent(each[0]).strip("\n")


@dataclass(slots=True)
class Reader:
    """Somebody with a shell in a new folder, who does what the document says, with words of the own place."""

    folder: Path
    environment: dict[str, str]
    words: dict[str, str] = field(default_factory=lambda: {each: str(free_port()) for each in PORTS})
    numbers: Iterator[int] = field(default_factory=itertools.count)
    output: Path = field(init=False)
    shell: "subprocess.Popen[str]" = field(init=False)

    def __post_init__(self) -> None:
        self.shell = subprocess.Popen(
            ["bash"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def here(self, text: str) -> str:
        """Return a text of the document with this reader's words: ports, a cursor, a name that was given."""
        return re.sub(rf"\b({'|'.join(self.words)})\b", lambda word: self.words[word[0]], text)

    def run(self, commands: str) -> str:
        """Run commands, each of which must succeed, in the one shell; return what they print."""
        script = self.folder / "block.sh"
        output = self.output = self.folder / f"output-{next(self.numbers)}"
        script.write_text(f"set -e\n{self.here(commands)}\n")
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f". ./block.sh > {output.name} 2>&1; echo done\n")
        self.shell.stdin.flush()
        ended = self.shell.stdout.readline()
        printed = output.read_text(errors="replace")
        assert ended == "done\n", f"this failed:\n{commands}\n\n{printed}"
        return printed

    def close(self) -> None:
        """Stop all that was started, whatever became of the shell."""
        with suppress(ProcessLookupError):
            os.killpg(self.shell.pid, signal.SIGKILL)
        self.shell.communicate()

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Return when it is reached; fail when that takes too long."""
        deadline_s = time.monotonic() + SOON_S
        while not reached():
            assert time.monotonic() < deadline_s, f"waited for {what} in vain"
            time.sleep(POLL_S)  # other processes are at work: there is nothing to wait on but the clock

    def answers(self, command: str) -> Any:
        """Return what a command prints as JSON, None while it fails."""
        printed = self.run(f"{command} --json 2> /dev/null || echo null")
        return json.loads(printed)


# --- what a person waits for, and sees


def nodes_are_ready(reader: Reader) -> None:
    """The nodes were started a moment ago."""
    for port in ("8080", "8081"):
        ready = f"curl -s -o ready.json -w '%{{http_code}}' http://127.0.0.1:{port}/readyz || true"
        reader.until(lambda ready=ready: reader.run(ready).strip() == "200", f"the node at {port} to be ready")


def next_policy_arrived(reader: Reader, _: str) -> None:
    status = "datasync status --url http://127.0.0.1:8081"
    reader.until(lambda: reader.answers(status)["node"]["policy_revision"] == 2, "the edge to follow the new policy")


def all_places_confirmed(_: Reader, printed: str) -> None:
    assert "every place confirmed it" in printed


def nothing_is_lost(reader: Reader, _: str) -> None:
    """The plain device's row is left, and both nodes are at work again."""
    nodes_are_ready(reader)
    view = "datasync view motion --purpose service.coaching --url http://127.0.0.1:8081 --token-file coach.token"
    assert reader.run(view).count("user_id") == 1


def is_ready_again(reader: Reader, _: str) -> None:
    nodes_are_ready(reader)


def is_logged(_: Reader, printed: str) -> None:
    assert "worker-enrolled" in printed


def read_to(reader: Reader, printed: str) -> None:
    """Note the cursor, and train."""
    reader.words["4711"] = printed.split()[-1]
    (reader.folder / "stride.bin").write_bytes(b"what was learned")


def has_an_id(reader: Reader, _: str) -> None:
    listed = reader.answers("datasync model list --url http://127.0.0.1:8081 --token-file admin.token")
    reader.words["ID"] = listed[0]["model"]


def scanned(reader: Reader) -> None:
    """The device's camera reads the picture, and its user types the code."""
    (symbol,) = deqr.QRdecDecoder().decode(pixels((reader.folder / "watch-8.png").read_bytes()))
    text = symbol.data_entries[0].data
    (reader.folder / "watch-8.txt").write_text(text if isinstance(text, str) else bytes(text).decode())
    reader.run("export DATASYNC_ENROLMENT_CODE=$(cat watch-8.code)")


def renewed(reader: Reader, _: str) -> None:
    """What was renewed is started again."""
    stop(reader)
    reader.run("kill %?cbd/broker; wait %?cbd/broker")
    reader.run("mosquitto -c cbd/broker/mosquitto.conf &")
    start(reader)
    nodes_are_ready(reader)


def with_tls(reader: Reader) -> None:
    """The edge's API speaks TLS, as on another address than loopback."""
    stop(reader)
    reader.run("export DATASYNC_HTTP__TLS=true")
    start(reader)


def without_tls(reader: Reader, _: str) -> None:
    stop(reader)
    reader.run("unset DATASYNC_HTTP__TLS DATASYNC_CA DATASYNC_CERT")
    start(reader)


def stop(reader: Reader) -> None:
    reader.run("kill %?edge.toml; wait %?edge.toml")


def start(reader: Reader, _: str = "") -> None:
    reader.run("datasync edge --config cbd/edge.toml &")
    log = reader.output
    reader.until(lambda: "serves on" in log.read_text(), "the edge to serve")


def is_refused_at_the_broker(reader: Reader, _: str) -> None:
    publish = (
        "mosquitto_pub -h localhost -p 8884 --cafile authority/authority.pem --cert {0}/identity/certificate.pem"
        " --key {0}/identity/signing.key -q 1 -t ds/1/d/{0}/json/motion -m '{{}}' && echo taken || true"
    )
    reader.until(lambda: "taken" in reader.run(publish.format("watch")), "the broker to take what others publish")
    assert "taken" not in reader.run(publish.format("watch-9"))


BEFORE: dict[str, Callable[[Reader], None]] = {
    "export DATASYNC_TOKEN": nodes_are_ready,
    "enroll push-revocations": nodes_are_ready,
    "enroll scan": scanned,
    "enroll admin acme/alice": with_tls,
    "keys rotate": stop,
}
AFTER: dict[str, Callable[[Reader, str], None]] = {
    "datasync policy push": next_policy_arrived,
    "kill -9": nothing_is_lost,
    "datasync subject erase --config": all_places_confirmed,
    "--crl revoked.pem": is_refused_at_the_broker,
    "datasync db check": is_ready_again,
    "v1/admin/audit": is_logged,
    "--output rows.arrow": read_to,
    "model register": has_an_id,
    "enroll renew --folder cbd": renewed,
    "enroll worker prometheus": without_tls,
    "keys rotate": start,
}


@pytest.fixture
def reader(postgres_cluster: PostgresCluster) -> Iterator[Reader]:
    """A reader in a folder that other users of the machine reach, as Mosquitto has to when root starts it."""
    mosquitto_program()
    with tempfile.TemporaryDirectory(prefix="datasync-readme-") as folder, ExitStack() as stack:
        place = Path(folder)
        place.chmod(0o755)
        programs = place / "programs"
        programs.mkdir()
        (programs / "sudo").write_text(SUDO.format(folder=postgres_cluster.folder))
        (programs / "sudo").chmod(0o755)
        path = [programs, Path(sys.executable).parent, postgres_cluster.binaries, os.environ["PATH"], SBIN]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATASYNC_", "PG"))}
        found = Reader(place, {**kept, "PATH": ":".join(map(str, path)), "DATASYNC_NEW_PASSPHRASE": "what is typed"})
        stack.callback(found.close)
        samples = shutil.copytree(DEPLOY, place / "deploy")
        for each in samples.glob("*.toml"):
            each.write_text(found.here(each.read_text()).replace("/var/run/postgresql", str(postgres_cluster.folder)))
        yield found


@pytest.mark.timeout(600)
def test_every_command_of_the_document_works_in_its_order(reader: Reader) -> None:
    document = (DEPLOY / "README.md").read_text().replace("/path/to/datasync/deploy", str(reader.folder / "deploy"))
    document = document.replace("edge.example", "localhost").replace("192.0.2.7", "127.0.0.1")
    for block in blocks(document):
        if block.startswith(INSTALLING) or (block.startswith(AS_ROOT) and os.geteuid() != 0):
            continue
        for phrase, wait in BEFORE.items():
            if phrase in block:
                wait(reader)
        printed = reader.run(block)
        print(f"$ {block}\n{printed}")
        for phrase, check in AFTER.items():
            if phrase in block:
                check(reader, printed)
    status = "datasync status --url http://127.0.0.1:8080 --token-file admin.token"
    reader.until(lambda: not reader.answers(status)["node"]["compaction_owed"], "PostgreSQL's files to be rewritten")
