"""``datasync demo``: real recordings through real nodes, and a check of everything that is claimed.

Cloud, edges and devices are processes with sockets between them. While the devices record and roam, a tap listens
on every broker, a wearer withdraws consent, a new revision of the policy is rolled out, and a guest is forgotten; then
what arrived is compared with what was recorded, the workers' views are explained and learned from, two watches visit
another operator's edge, and everything outside the devices is searched for what is private. No figure is assumed.
"""

import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from datasync.demo import findings, report
from datasync.demo.findings import Findings
from datasync.demo.forgetting import Forgetting, Forgotten
from datasync.demo.guest import guest_of
from datasync.demo.guest import needles as guest_needles
from datasync.demo.leaks import Tap, needles, search
from datasync.demo.meanwhile import SECOND, Happened, Meanwhile
from datasync.demo.options import DemoOptions
from datasync.demo.proofs import proofs
from datasync.demo.recordings import DemoData, DeviceData, load
from datasync.demo.town import Node, Town
from datasync.demo.visiting import visits
from datasync.domain.errors import NodeStopped
from datasync.nodes.run import sole
from datasync.nodes.shell import system_clock

POLL_S = 0.1
REPORT_WIDTH = 160
"""Where the output is no terminal, whose width one could ask for."""


def main_demo(options: DemoOptions) -> int:
    """Run the demo and print what it found; return 0 if nothing was lost, doubled, changed or leaked."""
    console = Console(stderr=True)
    logging.getLogger("datasync.transport").setLevel(logging.ERROR)  # an edge that is killed is lost to the tap, too
    with _folder(keep=options.keep) as folder:
        found, town = _run(options, folder, console)
        try:
            if options.json:
                print(json.dumps(report.as_json(found), indent=2))
            else:
                report.show(found, Console(width=None if sys.stdout.isatty() else REPORT_WIDTH))
            if options.keep:
                _keep(town, console)
        finally:
            town.stop()
    return 0 if found.is_clean else 1


def _run(options: DemoOptions, folder: Path, console: Console) -> tuple[Findings, Town]:
    start_ms = system_clock().wall_ms
    data = load(options.seed, options.devices, start_ms=start_ms)
    town = Town(folder, [(device.name, device.home) for device in data.devices], tls=options.tls)
    try:
        with _progress(console) as progress:
            task = progress.add_task("starting a cloud and the edges of two operators", total=None)
            town.start()
            town.open(policy_source())
            progress.remove_task(task)
            found = asyncio.run(_tapped(town, data, options, start_ms, folder / "brokers.tap", progress))
    except BaseException as error:
        town.stop()
        raise sole(error) from None
    return found, town


async def _tapped(
    town: Town, data: DemoData, options: DemoOptions, start_ms: int, tap: Path, progress: Progress
) -> Findings:
    """Let everything happen, all that passes the brokers tapped, and look at what is there."""
    began = time.monotonic()
    async with Tap([(node.broker, town.caller(node)) for node in town.servers], tap):
        guest = guest_of(data, options.seed)
        happened, forgotten = await _record(town, data, guest, options, start_ms, progress)
        told = [findings.Told.parse(_last(node)) for node in town.devices]
        with _step(progress, "comparing every row, learning"):
            looked = await asyncio.to_thread(findings.look, town, data, told)
        with _step(progress, "visiting another operator's edge"):
            visited = await visits(town, data)
    with _step(progress, "searching for leaks"):
        everybody = [*town.devices, town.guest]
        leaks = search(needles(data), guest_needles(guest), tap, town.servers, everybody)
    with _step(progress, "verifying signatures and logs once more"):
        proven = proofs(town)
    return Findings(looked, told, happened, forgotten, visited, proven, leaks, time.monotonic() - began)


async def _record(
    town: Town, data: DemoData, guest: DeviceData, options: DemoOptions, start_ms: int, progress: Progress
) -> tuple[Happened, Forgotten]:
    """Let the watches record and roam, and meanwhile what happens meanwhile."""
    withdraw, all_edges = town.devices[0].folder / "withdraw", asyncio.Lock()
    forgetting = Forgetting(town, guest, all_edges)
    forgetting.start(options, start_ms)
    for index, node in enumerate(town.devices):
        node.run([
            *(sys.executable, "-m", "datasync.demo.watch", "--config", str(node.config)),
            *("--index", str(index), "--devices", str(options.devices), "--seed", str(options.seed)),
            *("--start-ms", str(start_ms), "--speed", str(options.speed), "--revision", str(SECOND)),
            *(("--withdraw", str(withdraw)) if index == 0 else ()),
        ])  # fmt: skip
    meanwhile = Meanwhile(town, data.devices[0], withdraw, policy_source(), all_edges)
    async with asyncio.TaskGroup() as tasks:
        happened = tasks.create_task(meanwhile.run())
        forgotten = tasks.create_task(forgetting.run())
        tasks.create_task(_show_progress(town, data, progress))
    return happened.result(), forgotten.result()


async def _show_progress(town: Town, data: DemoData, progress: Progress) -> None:
    """Show how far each watch is until the last has ended. Raises NodeStopped when one failed."""
    bars = [
        progress.add_task(f"{node.name} records and roams", total=device.rows.num_rows)
        for node, device in zip(town.devices, data.devices, strict=True)
    ]
    while any(node.is_running for node in town.devices):
        await asyncio.sleep(POLL_S)
        for node, bar in zip(town.devices, bars, strict=True):
            progress.update(bar, completed=float(_last(node).get("rows", 0)))
        for node in (*town.devices, town.guest):
            if not node.is_running and node.process is not None and node.process.returncode:
                raise NodeStopped(f"{node.name} failed", where=str(node.log), fix=node.log.read_text()[-2000:])
    for bar in bars:
        progress.remove_task(bar)


@contextmanager
def _step(progress: Progress, what: str) -> Iterator[None]:
    task = progress.add_task(what, total=None)
    yield
    progress.remove_task(task)


def policy_source() -> bytes:
    """Return the demo's policy: beside the package's files in a wheel, under deploy/ in a checkout."""
    packaged = resources.files("datasync.demo") / "policy.yaml"
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).parents[2] / "deploy" / "policies" / "demo.yaml").read_bytes()


def _last(node: Node) -> dict[str, Any]:
    """Return the last thing that a watch printed."""
    lines = [line for line in node.log.read_text(errors="replace").splitlines() if line.startswith("{")]
    try:
        said: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return said
    except ValueError:
        return {}  # half a line: the rest comes


def _keep(town: Town, console: Console) -> None:
    """Say where everything is, and wait until told to stop."""
    for node in town.servers:
        console.print(f"{node.name}: {node.url}  broker {node.broker}  admin token {node.admin_token}")
        known = node.known()
        if known.identity is not None:
            console.print(f"  verified by: --ca {known.ca} --peer {known.peer} --cert {known.identity}")
        for worker, token in node.tokens.items():
            console.print(f"  worker {worker}: {token}")
    console.print(f"policies, databases and logs: {town.cloud.folder.parent}; Ctrl-C ends it")
    try:
        while all(node.is_running for node in town.servers):
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        console.print("stopping")


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    """A folder for everything; with ``keep`` it stays."""
    if keep:
        yield Path(tempfile.mkdtemp(prefix="datasync-demo-"))
        return
    with tempfile.TemporaryDirectory(prefix="datasync-demo-") as folder:
        yield Path(folder)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=not console.is_terminal)
