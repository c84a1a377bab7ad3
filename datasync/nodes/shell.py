"""The shell around a node: clock, links and threads, and nothing that decides anything.

It gathers what arrived, runs one transaction for all of it (group commit) in a thread of its own, and after the
commit publishes, answers tickets and acknowledges to the broker. While that transaction runs the next inputs pile
up, so the more there is to do the more each commit carries. A node that fails is built anew from the database; then
its inputs are tried one by one, and the one that fails again is dropped and counted: no input stops a node.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from datasync.domain.clock import Instant
from datasync.domain.errors import DatasyncError, MessageTooLarge, StoreError
from datasync.nodes.node import Arrival, Effects, Input, LinkChange, Node, Outgoing
from datasync.store.database import Database
from datasync.transport.link import Link, Packet, Received

INPUTS_MAX = 512
"""Inputs of one transaction."""

BACKLOG_MAX = 4_096
"""Messages that wait for a link; beyond it they are dropped, and sent again when their time comes."""

STORE_RETRY_S = 1.0

_log = logging.getLogger(__name__)


def system_clock() -> Instant:
    """Return the present moment of this machine."""
    return Instant(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


@dataclass(slots=True)
class _Open:
    """A link in use, what waits for it, and the tasks that run it."""

    link: Link
    queue: asyncio.Queue[Outgoing] = field(default_factory=lambda: asyncio.Queue(BACKLOG_MAX))
    tasks: tuple[asyncio.Task[None], ...] = ()


class Shell:
    """Runs one node. ``build`` makes it from nothing but its configuration; ``dial`` makes the link of a name."""

    def __init__(
        self,
        build: Callable[[], Node],
        database: Database,
        dial: Callable[[str], Link],
        links: Sequence[str],
        registry: CollectorRegistry,
        clock: Callable[[], Instant] = system_clock,
    ) -> None:
        self._build = build
        self._database = database
        self._dial = dial
        self._fixed_links = tuple(links)
        self._clock = clock
        self._inputs: deque[tuple[Input, Callable[[], None] | None]] = deque()
        self._awake = asyncio.Event()
        self._open: dict[str, _Open] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._unanswered: dict[int, Input] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last_ticket = 0
        self._metrics = _Metrics(registry)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="node")
        self.node = build()
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled; what was taken in is committed or forgotten, never half done."""
        try:
            async with asyncio.TaskGroup() as tasks:
                effects = await self._turn(lambda tx, now: self.node.start(tx, now))
                self._keep_links(tasks, (effects.links or frozenset()) | frozenset(self._fixed_links))
                self.started.set()
                while True:
                    await self._step(tasks)
        finally:
            self._thread.shutdown(wait=True)
            for answer in self._answers.values():
                answer.cancel()

    async def ask(self, make: Callable[[int], Input]) -> Any:
        """Give the node an input made with a ticket and return its answer after the commit. Raises what it raised."""
        self._last_ticket += 1
        ticket = self._last_ticket
        answer = self._answers[ticket] = asyncio.get_running_loop().create_future()
        each = self._unanswered[ticket] = make(ticket)
        self.put(each)
        return await answer

    def put(self, each: Input, acknowledge: Callable[[], None] | None = None) -> None:
        """Give the node an input; ``acknowledge`` is called after the commit. For the event loop's thread only."""
        self._inputs.append((each, acknowledge))
        self._awake.set()

    @property
    def links_up(self) -> frozenset[str]:
        """The links that are connected and subscribed."""
        return frozenset(self._metrics.up)

    async def _step(self, tasks: asyncio.TaskGroup) -> None:
        await self._awake.wait()
        self._awake.clear()
        taken = [self._inputs.popleft() for _ in range(min(INPUTS_MAX, len(self._inputs)))]
        if self._inputs:
            self._awake.set()
        await self._take(tasks, taken)

    async def _take(self, tasks: asyncio.TaskGroup, taken: list[tuple[Input, Callable[[], None] | None]]) -> None:
        inputs = [each for each, _ in taken]
        try:
            effects = await self._turn(lambda tx, now: self.node.handle(tx, inputs, now))
        except StoreError as error:
            # the database is away or full: nothing was done, and the inputs come again
            _log.error("%s", error)
            self._inputs.extendleft(reversed([pair for pair in taken if not hasattr(pair[0], "ticket")]))
            await self._rebuild(leave=())
            return
        except Exception as error:
            await self._isolate(tasks, taken, error)
            return
        for _, acknowledge in taken:
            if acknowledge is not None:
                acknowledge()
        if effects.links is not None:
            self._keep_links(tasks, effects.links | frozenset(self._fixed_links))

    async def _isolate(
        self, tasks: asyncio.TaskGroup, taken: list[tuple[Input, Callable[[], None] | None]], error: Exception
    ) -> None:
        """Find the input that the node failed on: try each by itself, and drop the one that fails alone."""
        await self._rebuild(leave=[each for each, _ in taken])
        if len(taken) > 1:
            for pair in taken:
                await self._take(tasks, [pair])
            return
        _log.error("INTERNAL: the node failed and was built anew", exc_info=error)
        self._metrics.failures.inc()
        for dropped, acknowledge in taken:
            self._answer(getattr(dropped, "ticket", 0), DatasyncError("the node failed on this; see its log"))
            if acknowledge is not None:
                acknowledge()

    async def _rebuild(self, leave: Sequence[Input]) -> None:
        """Build the node anew, and give it again what it had taken in but not answered, except ``leave``."""
        while True:
            self.node = self._build()
            try:
                await self._turn(lambda tx, now: self.node.start(tx, now))
                break
            except StoreError as error:
                _log.error("%s", error)
                await asyncio.sleep(STORE_RETRY_S)
        for name in self.links_up:
            self.put(LinkChange(name, up=True))
        left = {id(each) for each in (*leave, *(each for each, _ in self._inputs))}
        for each in list(self._unanswered.values()):
            if id(each) not in left:
                self.put(each)

    async def _turn(self, work: Callable[[Any, Instant], Effects]) -> Effects:
        loop = asyncio.get_running_loop()
        effects = await loop.run_in_executor(self._thread, self._commit, work)
        for each in effects.send:
            self._post(each)
        for ticket, answer in effects.answers.items():
            self._answer(ticket, answer)
        for note in effects.notes:
            _log.warning("%s", note)
        self._metrics.add(effects)
        if self._timer is not None:
            self._timer.cancel()
        if effects.wake_ms is not None:
            delay_s = max(0.0, (effects.wake_ms - self._clock().steady_ms) / 1000)
            self._timer = loop.call_later(delay_s, self._awake.set)
        return effects

    def _commit(self, work: Callable[[Any, Instant], Effects]) -> Effects:
        started = time.perf_counter()
        with self._database.write() as tx:
            effects = work(tx, self._clock())
        self._metrics.turn_seconds.observe(time.perf_counter() - started)
        return effects

    def _answer(self, ticket: int, answer: Any) -> None:
        self._unanswered.pop(ticket, None)
        waiting = self._answers.pop(ticket, None)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, DatasyncError):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)

    # --- links

    def _keep_links(self, tasks: asyncio.TaskGroup, wanted: frozenset[str]) -> None:
        for name in self._open.keys() - wanted:
            for task in self._open.pop(name).tasks:
                task.cancel()
        for name in wanted - self._open.keys():
            opened = self._open[name] = _Open(self._dial(name))
            opened.tasks = (
                tasks.create_task(self._run_link(name, opened), name=f"link {name}"),
                tasks.create_task(self._publish(opened), name=f"publish {name}"),
            )

    async def _run_link(self, name: str, opened: _Open) -> None:
        def receive(received: Received) -> None:
            self.put(Arrival(name, received.topic, received.payload), received.acknowledge)

        def changed(up: bool) -> None:
            self._metrics.link(name, up)
            self.put(LinkChange(name, up))

        await opened.link.run(receive, changed)

    async def _publish(self, opened: _Open) -> None:
        while True:
            each = await opened.queue.get()
            try:
                sent = await opened.link.publish(Packet(each.topic, each.payload, each.retain))
            except MessageTooLarge as error:
                _log.error("%s", error)
                continue
            self._metrics.sent.labels("sent" if sent else "unsent").inc()

    def _post(self, each: Outgoing) -> None:
        opened = self._open.get(each.link)
        if opened is None or opened.queue.full():
            self._metrics.sent.labels("dropped").inc()
        else:
            opened.queue.put_nowait(each)


class _Metrics:
    """The node's metrics: what its effects counted, and what the shell sees."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up: set[str] = set()
        self._events = Counter("datasync_events", "What the node counted", ["kind", "what"], registry=registry)
        self._links = Gauge("datasync_link_up", "Whether a link is connected", ["link"], registry=registry)
        self.sent = Counter("datasync_packets", "Packets given to links", ["outcome"], registry=registry)
        self.failures = Counter("datasync_failures", "Inputs on which the node failed", registry=registry)
        self.turn_seconds = Histogram("datasync_turn_seconds", "Time of one transaction", registry=registry)

    def add(self, effects: Effects) -> None:
        for (kind, what), number in effects.counts.items():
            self._events.labels(kind, what).inc(number)

    def link(self, name: str, up: bool) -> None:
        (self.up.add if up else self.up.discard)(name)
        self._links.labels(name).set(up)
