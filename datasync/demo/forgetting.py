"""A wearer asks to be forgotten while others record and roam, and while an edge that has some of it is down.

The guest's wearer asks as a person would, with ``datasync subject erase`` at the watch. Before, all that any node has
of the guest is copied and searched for what is known of the guest's rows: a search that cannot find would prove
nothing. When every place has signed its receipt, no key that is left at any node opens any copy, and no file of a node
has the bytes of a destroyed key. That nothing of the guest is in any file, or opens at any node, is looked for in the
end, with the search for leaks.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datasync.demo import remains
from datasync.demo.guest import LEAVE, VISIT, needles
from datasync.demo.meanwhile import until
from datasync.demo.options import DemoOptions
from datasync.demo.recordings import DeviceData
from datasync.demo.remains import Held
from datasync.demo.town import GUEST, Node, Town, serve
from datasync.domain.errors import NodeStopped
from datasync.nodes.shell import system_clock
from datasync.security import files

WISH = ("subject", "erase", GUEST, "--everything", "--wait", "1")
"""What the wearer says; when the command no longer waits for receipts, the watch still asks for them."""

GUEST_S_MAX = 240.0
"""How long the guest may take for one of its steps, beside watches that record as fast as the machine can."""

COMPACTION_S_MAX = 20.0
"""How long files may take to let destroyed keys go: that is done at once, but after the receipt."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What a place signed that it deleted, and how long after the wish."""

    place: str
    segments: int
    rows: int
    keys: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How the guest was forgotten; see the module. Of ``planted`` things ``planted_found`` were found before."""

    device: str
    command: str
    held: tuple[Held, ...]
    planted: int
    planted_found: int
    down: str
    awaited: tuple[str, ...]
    """Whose receipts the command could not wait for."""
    confirmed: tuple[Confirmed, ...]
    seconds: float
    seconds_after_return: float
    """From the wish, and from when the edge that was down was started, to the last receipt."""
    recording: int
    """How many watches had not ended when the wish was made."""
    copies: int
    copies_opened: int
    keys: int
    keys_left: int

    @property
    def is_clean(self) -> bool:
        """Whether everything that was there was found before, every place signed, and nothing is left."""
        signed = {each.place for each in self.confirmed}
        could_find = self.planted == self.planted_found > 0 and self.copies > 0 and self.keys > 0
        return could_find and signed >= {each.place for each in self.held} and not (self.copies_opened + self.keys_left)


class Forgetting:
    """The guest's time in town, from its first row to the last receipt."""

    def __init__(self, town: Town, guest: DeviceData, all_edges: asyncio.Lock) -> None:
        """``all_edges`` is held while one of them is down."""
        self._town = town
        self._wanted = needles(guest)
        self._all_edges = all_edges

    def start(self, options: DemoOptions, start_ms: int) -> None:
        """Start the guest's watch."""
        self._town.guest.run([
            *(sys.executable, "-m", "datasync.demo.guest", "--config", str(self._town.guest.config)),
            *("--devices", str(options.devices), "--seed", str(options.seed), "--start-ms", str(start_ms)),
        ])  # fmt: skip

    async def run(self) -> Forgotten:
        """Let the guest come, go and be forgotten. Raises NodeStopped."""
        town, guest, hub = self._town, self._town.guest, self._town.hub
        await self._guest_has("roamed")
        async with self._all_edges:
            (guest.folder / VISIT).touch()
            await self._guest_has("come back")
            await asyncio.to_thread(_kill, hub)
            await self._guest_has("recorded all")
            before = await asyncio.to_thread(remains.gather, town.nodes, guest, self._wanted)
            recording = sum(node.is_running for node in town.devices)
            asked_ms, began = system_clock().wall_ms, time.monotonic()
            awaited = await asyncio.to_thread(_ask, guest)
            serve(hub)
            started = time.monotonic()
            await until(lambda: not _where(guest)["awaited"], f"every place to forget {guest.name}", GUEST_S_MAX)
            ended = time.monotonic()
            await asyncio.to_thread(town.wait_for, hub, set())
        opened = await asyncio.to_thread(remains.opened, town.nodes, guest.name, before.copies)
        left = await self._keys_left(before.keys)
        confirmed = tuple(_confirmed(_where(guest)["erased"], asked_ms))
        (guest.folder / LEAVE).touch()
        return Forgotten(
            device=guest.name,
            command=" ".join(["datasync", *WISH]),
            held=before.held,
            planted=len(self._wanted),
            planted_found=len(before.found),
            down=hub.name,
            awaited=tuple(awaited),
            confirmed=confirmed,
            seconds=ended - began,
            seconds_after_return=ended - started,
            recording=recording,
            copies=len(before.copies),
            copies_opened=opened,
            keys=len(before.keys),
            keys_left=left,
        )

    async def _guest_has(self, step: str) -> None:
        """Wait until the guest's watch says that it has come so far."""
        log, said = self._town.guest.log, json.dumps({"step": step})
        await until(lambda: said in log.read_text(errors="replace"), f"the guest to have {step}", GUEST_S_MAX)

    async def _keys_left(self, keys: Iterable[bytes]) -> int:
        deadline = time.monotonic() + COMPACTION_S_MAX
        while left := await asyncio.to_thread(remains.keys_left, self._town.nodes, keys):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        return left


def _kill(node: Node) -> None:
    if node.process is not None:
        node.process.kill()
        node.process.wait()


def _ask(guest: Node) -> list[str]:
    """Ask at the guest's watch, by the command line; return whose receipts are awaited. Raises NodeStopped."""
    token = guest.folder / "wearer" / "admin.token"
    files.write_private(token, guest.admin_token.encode())
    shown = guest.known()
    known = ["--ca", str(shown.ca), "--peer", shown.peer, "--cert", str(shown.identity)] if guest.tls else []
    words = [*WISH, "--url", guest.url, "--token-file", str(token), *known, "--json"]
    command = [sys.executable, "-m", "datasync.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if not done.stdout:
        raise NodeStopped(f"nobody took the wish to be forgotten: {done.stderr[-2000:]}", where=guest.url)
    found: list[str] = json.loads(done.stdout)["awaited"]
    return found


def _where(guest: Node) -> dict[str, Any]:
    found: dict[str, Any] = guest.admin.get("v1", "subjects", guest.name, "where")
    return found


def _confirmed(erased: Iterable[Mapping[str, Any]], asked_ms: int) -> Iterator[Confirmed]:
    receipts = [receipt for each in erased for receipt in each["receipts"]]
    for place in sorted({receipt["place"] for receipt in receipts}):
        own = [receipt for receipt in receipts if receipt["place"] == place]
        sums = {name: sum(receipt[name] for receipt in own) for name in ("segments", "rows", "keys")}
        last_ms = max(receipt["erased_ms"] for receipt in own)
        yield Confirmed(place, **sums, seconds=(last_ms - asked_ms) / 1_000)
