"""Databases that are away for a while, and nodes that fail on an input: nothing else is lost, and nobody stops."""

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.publish
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, insert

from datasync import Device
from datasync.domain.errors import Conflict, NodeFailed
from datasync.domain.ids import node_name
from datasync.domain.tiers import Tier
from datasync.nodes.cloud import CloudNode
from datasync.nodes.device import DeviceNode, DeviceSettings
from datasync.nodes.edge import EdgeNode, EdgeSettings
from datasync.nodes.links import DEVICES
from datasync.nodes.node import Activate, Change, Kit, Node, Record, Turn
from datasync.nodes.recording import Gathered
from datasync.nodes.roster import Patience
from datasync.nodes.shell import Shell, system_clock
from datasync.policy.projection import to_batch
from datasync.protocol.topics import Address
from datasync.security.identity import Role
from datasync.security.trust import Authority, Trust
from datasync.security.vault import Vault
from datasync.store import registers, segments, tables
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.sync.capture import own_streams
from datasync.transport.mqtt import MqttLink
from tests.integration import rows, verdict
from tests.integration.deployment import BROKER_SETTINGS, CBD, CLOUD, POLICY_KEY, Deployment, Place, Server
from tests.integration.mosquitto import PATIENCE_S
from tests.integration.rows import TRIPS

SETTLE_S_MAX = 90.0


@contextmanager
def locked(url: str) -> Iterator[None]:
    """While the block runs, another process has an SQLite database's one write lock, as a backup might."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=PATIENCE_S)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


# --- the database is away


def test_nothing_is_lost_while_a_database_of_the_edge_cannot_be_written(deploy) -> None:
    deployment: Deployment = deploy()
    device = deployment.device("watch-0")
    deployment.start()
    device.start()
    deployment.until(device.is_at_work, "the device to record")
    edge = deployment.edges[CBD]
    for number, database in enumerate((edge.database, edge.keys)):
        with locked(database):
            for row in range(5):
                publish(edge, f"plain-{number}", [rows.row_of(f"plain-{number}", row)])
            deployment.until(lambda: "STORE_FAILED" in edge.not_ready(), "the edge to miss its database")
        deployment.until(edge.is_at_work, "the edge to have its database again")
        deployment.until(lambda number=number: len(plain(edge, f"plain-{number}")) >= 5, "the rows of the plain device")
        assert plain(edge, f"plain-{number}") == [f"plain-{number}/{row}" for row in range(5)]
    deployment.halt()
    verdict.settle(deployment, SETTLE_S_MAX)
    assert [edge.metric("datasync_events_total", kind="refused"), edge.metric("datasync_failures_total")] == [0, 0]


def publish(edge: Server, device: str, published: list[dict[str, Any]]) -> None:
    payload = json.dumps(published, default=str)
    topic = f"ds/1/d/{device}/json/{TRIPS}"
    paho.mqtt.publish.single(topic, payload, qos=1, hostname="127.0.0.1", port=edge.broker.port)


def plain(edge: Server, device: str) -> list[str]:
    return [row["label"] for row in verdict.view(edge, rows.EDGE_WORKER) if row["label"].startswith(f"{device}/")]


def test_nothing_is_lost_while_the_clouds_postgres_is_down(deploy, postgres_cluster) -> None:
    names = [postgres_cluster.database() for _ in range(2)]
    deployment: Deployment = deploy(
        cloud_database=postgres_cluster.url(names[0]), cloud_keys=postgres_cluster.url(names[1])
    )
    device, cloud = deployment.device("watch-0"), deployment.cloud
    deployment.start()
    device.start()
    deployment.until(device.is_at_work, "the device to record")
    for _ in range(2):
        with postgres_cluster.away():
            deployment.until(lambda: "STORE_FAILED" in cloud.not_ready(), "the cloud to miss its database")
        deployment.until(cloud.is_at_work, "the cloud to have its database again")
    deployment.halt()
    verdict.settle(deployment, SETTLE_S_MAX)
    assert verdict.check(deployment) > 50
    assert cloud.metric("datasync_failures_total") == 0


def test_what_a_program_records_while_the_database_is_locked_is_kept_in_its_order(deploy, caplog) -> None:
    deployment: Deployment = deploy()
    place = deployment.device("watch-0")
    (place.folder / "policy.yaml").write_bytes(rows.POLICY)
    place.config.write_text('policy = "policy.yaml"\n' + place.config.read_text())
    numbers = iter(range(10_000))
    with Device(place.config) as device:
        stop = threading.Event()

        def record() -> None:
            while not stop.wait(0.02):
                device.record(TRIPS, [rows.row_of(place.name, next(numbers))])

        program = threading.Thread(target=record)
        program.start()
        with locked(place.database):
            await_true(lambda: "trying again" in caplog.text)
        await_true(lambda: device.recorded(TRIPS) > 100)
        stop.set()
        program.join()
    _check_own_rows(place, next(numbers))


def await_true(reached: Callable[[], bool]) -> None:
    deadline = system_clock().steady_ms + 60_000
    while not reached():
        assert system_clock().steady_ms < deadline
        threading.Event().wait(0.05)


def _check_own_rows(place: Place, count: int) -> None:
    found = verdict.shown(place)["user-private"]
    assert found == [(number, rows.device_form(place.name, number)) for number in range(count)]


# --- the node fails


class FragileEdge(EdgeNode):
    """An edge with a defect: it fails on payloads that say so."""

    def raw(self, turn: Turn, address: Address) -> None:
        if b"poison" in turn.arrival.payload:
            raise ZeroDivisionError("a defect")
        super().raw(turn, address)


class FragileDevice(DeviceNode):
    """A device with a defect: it fails when it makes rows durable that say so, well after it took them."""

    def _capture(self, turn: Turn, ready: Iterable[Gathered]) -> None:
        gathered = list(ready)
        if any("poison" in batch["label"].to_pylist() for each in gathered for batch in each.batches):
            raise ZeroDivisionError("a defect")
        super()._capture(turn, gathered)


class SickCloud(CloudNode):
    """A cloud with a defect that comes and goes: while it is there it can do nothing at all."""

    sick = False

    def duties(self, turn: Turn) -> None:
        if SickCloud.sick:
            raise ZeroDivisionError("a defect")
        super().duties(turn)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a node stands on, to run its shell in this process."""

    kit: Kit
    database: Database

    def shell(self, build: Callable[[], Node], dial: Callable[[str], MqttLink], *links: str) -> Shell:
        return Shell(build, self.database, dial, links, CollectorRegistry())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[[str, Role], Bench]]:
    authority = Authority.create("acme", system_clock())
    with ExitStack() as stack:

        def make(name: str, role: Role) -> Bench:
            databases = [Database.open(f"sqlite:///{tmp_path}/{part}.db") for part in ("data", "keys")]
            for each in databases:
                stack.callback(each.close)
            identity = authority.enrol(node_name(name), role, now=system_clock())
            vault = Vault(bytes(32), SqlKeyShelf(databases[1]), os.urandom)
            return Bench(Kit(identity, Trust([authority.certificate]), vault, os.urandom), databases[0])

        yield make


@asynccontextmanager
async def running(shell: Shell) -> AsyncIterator[Shell]:
    task = asyncio.create_task(shell.run())
    try:
        await shell.started.wait()
        yield shell
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def test_an_input_on_which_an_edge_fails_is_dropped_alone_and_once(run, bench, start_mosquitto) -> None:
    broker = start_mosquitto(*BROKER_SETTINGS)
    edge = bench(CBD, Role.EDGE)
    settings = EdgeSettings(CLOUD, Patience())
    poison = {7, 23, 24, 59}

    def dial(name: str) -> MqttLink:
        subscriptions = EdgeNode(edge.kit, settings).subscriptions[name]
        return MqttLink(broker.url, f"edge-{name}", subscriptions, durable_session=name == DEVICES)

    def say(numbers: Iterable[int]) -> None:
        topic = f"ds/1/d/plain/json/{TRIPS}"
        payloads = [{"label": str(number), "mode": "poison" if number in poison else "walk"} for number in numbers]
        messages = [{"topic": topic, "payload": json.dumps(each), "qos": 1} for each in payloads]
        paho.mqtt.publish.multiple(messages, hostname="127.0.0.1", port=broker.port)

    async def main() -> None:
        async with running(edge.shell(lambda: FragileEdge(edge.kit, settings), dial, DEVICES)) as shell:
            await shell.ask(lambda ticket: Activate(ticket, rows.POLICY))
            await reached(lambda: shell.links_up == {DEVICES})
        await asyncio.to_thread(say, range(60))  # the broker keeps them: they will come all at once
        async with running(edge.shell(lambda: FragileEdge(edge.kit, settings), dial, DEVICES)):
            await reached(lambda: len(captured(edge, "plain")) == 60 - len(poison))
            await asyncio.to_thread(say, [60])
            await reached(lambda: captured(edge, "plain")[-1] == "60")
        assert captured(edge, "plain") == [str(number) for number in range(61) if number not in poison]
        async with running(edge.shell(lambda: EdgeNode(edge.kit, settings), dial, DEVICES)):
            await asyncio.to_thread(say, [61])
            await reached(lambda: captured(edge, "plain")[-1] == "61")
        assert captured(edge, "plain") == [str(number) for number in range(62) if number not in poison]

    run(main())


def captured(edge: Bench, device: str) -> list[str]:
    """Return the labels of a device's rows at an edge, in their order."""
    found = []
    with edge.database.read() as tx:
        stream = own_streams(tx, node_name(device), TRIPS).get(Tier.PUBLIC)
        stored = segments.of_stream(tx, stream.stream) if stream else []
    for each in stored:
        batch, _ = verdict.opened(edge.database, edge.kit.vault, each)
        found += batch["label"].to_pylist()
    return found


def test_rows_on_which_a_device_fails_are_refused_alone_and_the_others_keep_their_order(run, bench) -> None:
    device = bench("watch", Role.DEVICE)
    settings = DeviceSettings(frozenset([CBD]), CBD, flush_rows=5, flush_ms=20, meta={})
    shell = device.shell(
        lambda: FragileDevice(device.kit, settings), lambda name: MqttLink("mqtt://127.0.0.1:9", "device", [name])
    )
    poison = {0, 11, 12, 39}

    async def main() -> None:
        async with running(shell):
            policy = await shell.ask(lambda ticket: Activate(ticket, rows.POLICY))

            def record(number: int) -> Coroutine[Any, Any, None]:
                label = "poison" if number in poison else str(number)
                batch = to_batch(policy.collection(TRIPS), [{"label": label, "mode": "walk"}])
                return shell.ask(lambda ticket: Record(ticket, TRIPS, batch))

            answers = await asyncio.gather(*(record(number) for number in range(40)), return_exceptions=True)
        assert {number for number, answer in enumerate(answers) if isinstance(answer, NodeFailed)} == poison
        assert [answer for number, answer in enumerate(answers) if number not in poison] == [None] * 36

    run(main())
    assert captured(device, "watch") == [str(number) for number in range(40) if number not in poison]


def test_a_change_that_fails_is_told_why_and_one_that_the_database_refuses_is_not_tried_for_ever(run, bench) -> None:
    cloud = bench(CLOUD, Role.CLOUD)
    shell = cloud.shell(lambda: CloudNode(cloud.kit), lambda name: MqttLink("mqtt://127.0.0.1:9", "cloud", [name]))

    def conflict(_tx: Connection) -> None:
        raise Conflict("there is one already")

    def twice(tx: Connection) -> None:
        for _ in range(2):
            tx.execute(insert(tables.registers), {"name": "twice", "value": "1"})

    def once(tx: Connection) -> str:
        tx.execute(insert(tables.registers), {"name": "once", "value": "1"})
        return "done"

    async def main() -> None:
        async with running(shell):
            changes = [shell.ask(lambda ticket, make=make: Change(ticket, make)) for make in (conflict, twice, once)]
            answers = await asyncio.gather(*changes, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Conflict, NodeFailed, str]
        with cloud.database.read() as tx:
            assert registers.get(tx, "once") == 1
            assert registers.get(tx, "twice") is None

    run(main())


def test_a_node_that_can_do_nothing_says_so_and_goes_on_when_it_can(run, bench) -> None:
    cloud = bench(CLOUD, Role.CLOUD)
    shell = cloud.shell(lambda: SickCloud(cloud.kit), lambda name: MqttLink("mqtt://127.0.0.1:9", "cloud", [name]))

    async def main() -> None:
        async with running(shell):
            SickCloud.sick = True
            asked = asyncio.create_task(shell.ask(lambda ticket: Change(ticket, lambda tx: "well")))
            await reached(lambda: shell.trouble == NodeFailed.code)
            later = asyncio.create_task(shell.ask(lambda ticket: Change(ticket, lambda tx: "well")))
            SickCloud.sick = False
            first, second = await asyncio.gather(asked, later, return_exceptions=True)
            assert first == "well" or isinstance(first, NodeFailed)  # the one that it was given when it failed
            assert second == "well"
            assert shell.trouble == ""

    try:
        run(main())
    finally:
        SickCloud.sick = False


def test_a_policy_is_in_force_for_others_when_it_is_committed_and_not_before(run, bench) -> None:
    cloud = bench(CLOUD, Role.CLOUD)
    key = Authority.create("acme", system_clock()).enrol(POLICY_KEY, Role.POLICY, now=system_clock())
    seen: list[tuple[int | None, object]] = []

    class Watched(CloudNode):
        def duties(self, turn: Turn) -> None:
            super().duties(turn)
            seen.append((self.revision, shell.policy))

    shell = cloud.shell(lambda: Watched(cloud.kit, key), lambda name: MqttLink("mqtt://127.0.0.1:9", "cloud", [name]))

    async def main() -> None:
        async with running(shell):
            await shell.ask(lambda ticket: Activate(ticket, rows.POLICY))
            assert seen[-1] == (1, None)
            assert shell.policy is not None
            assert shell.policy.revision == 1

    run(main())
