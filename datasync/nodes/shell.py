"""The shell around a node: clock, links and threads, and nothing that decides anything.

It gathers what arrived, runs one transaction for all of it (group commit) in a thread of its own, and after the
commit publishes, answers tickets and acknowledges to the broker. While that transaction runs the next inputs pile
up, so the more there is to do the more each commit carries.

What fails is undone as a whole: the node is built anew from the database, and what it had been given comes again, in
the order in which it came. When it was the database that failed, that is repeated until it is back. When it was the
node, its inputs are given in ever smaller groups until the one is found that fails alone; that one is dropped,
counted and, where somebody waits for its answer, refused: no input stops a node.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from prometheus_client import CollectorRegistry

from datasync.domain.clock import Instant
from datasync.domain.errors import DatasyncError, MessageTooLarge, NodeFailed, StoreError, StoreRefused
from datasync.nodes.compacting import Compacting
from datasync.nodes.metrics import Metrics
from datasync.nodes.node import Arrival, Effects, Input, LinkChange, Node, Outgoing
from datasync.policy.compiled import Policy
from datasync.store.database import Database
from datasync.transport.link import Link, Packet, Received

INPUTS_MAX = 512
"""Inputs of one transaction."""

BACKLOG_MAX = 4_096
"""Messages that wait for a link; beyond it they are dropped, and sent again when their time comes."""

RETRY_S = 1.0
FAILURE_PAUSE_S = 0.1
FAILURE_LOG_S = 10.0

_log = logging.getLogger(__name__)


def system_clock() -> Instant:
    """Return the present moment of this machine."""
    return Instant(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


def _is_away(error: Exception) -> TypeGuard[StoreError]:
    """Whether it is the database that failed, and the same may succeed when it is back."""
    return isinstance(error, StoreError) and not isinstance(error, StoreRefused)


class _Given(NamedTuple):
    """An input, its ticket (0: nobody waits), and what to call after the commit."""

    input: Input
    ticket: int = 0
    acknowledge: Callable[[], None] = lambda: None


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
        self._fixed_links = frozenset(links)
        self._clock = clock
        self._inputs: deque[_Given] = deque()
        self._awake = asyncio.Event()
        self._open: dict[str, _Open] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._held: dict[int, _Given] = {}
        """By ticket, what the node took in and has not answered."""
        self._careful = 0
        self._group = INPUTS_MAX
        self._timer: asyncio.TimerHandle | None = None
        self._last_ticket = 0
        self._logged_s = -FAILURE_LOG_S
        self._metrics = Metrics(registry)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="node")
        self.node = build()
        self._compacting = Compacting(database, self.node.kit.vault, clock, registry)
        self.started = asyncio.Event()
        self.policy: Policy | None = None
        """The policy in force, by what is committed; the node's own may be of a transaction that is not over."""
        self.trouble = ""
        """The code of what keeps the node from its work: its database is away, or it fails whatever it is given."""

    async def run(self) -> None:
        """Run until cancelled; what was taken in is committed or forgotten, never half done."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._begin(tasks)
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
        self._put(_Given(make(ticket), ticket))
        return await answer

    @property
    def links_up(self) -> frozenset[str]:
        """The links that are connected and subscribed."""
        return frozenset(self._metrics.up)

    def _put(self, given: _Given) -> None:
        self._inputs.append(given)
        self._awake.set()

    async def _step(self, tasks: asyncio.TaskGroup) -> None:
        await self._awake.wait()
        self._awake.clear()
        taken = self._take()
        inputs = [each.input for each in taken]
        self._held.update((each.ticket, each) for each in taken if each.ticket)
        try:
            effects = await self._turn(lambda tx, now: self.node.handle(tx, inputs, now))
        except Exception as error:
            if _is_away(error):
                await self._wait_for_store(tasks, taken, error)
            else:
                await self._recover(tasks, taken, error)
        else:
            self._follow_policy()
            for each in taken:
                each.acknowledge()
            self._keep_links(tasks, effects)
            await self._settle(effects)
        if self._inputs and not (self._careful and self._held):
            self._awake.set()

    def _take(self) -> list[_Given]:
        """Take the next inputs; while looking for one that fails, few, and none until the last were answered."""
        if self._careful and self._held:
            return []
        if not self._careful:
            self._group = INPUTS_MAX
        taken = [self._inputs.popleft() for _ in range(min(self._group, len(self._inputs)))]
        self._careful = max(0, self._careful - len(taken))
        return taken

    # --- when something fails

    async def _wait_for_store(self, tasks: asyncio.TaskGroup, taken: list[_Given], error: Exception) -> None:
        """The database is away or full: nothing was done, so everything is done again when it is back."""
        self._give_back(self._suspects(taken))
        await self._pause(error)
        await self._begin(tasks)

    async def _recover(self, tasks: asyncio.TaskGroup, taken: list[_Given], error: Exception) -> None:
        """The node failed, on one of what it was given and has not answered, or else on what its database says."""
        suspects = self._suspects(taken)
        self._metrics.failures.inc()
        if len(suspects) > 1:
            self._group = max(1, min(self._group, len(suspects)) // 2)
            self._careful = len(suspects)
            self._give_back(suspects)
        else:
            self._log_failure(suspects, error)
            for culprit in suspects:
                self._answer(culprit.ticket, NodeFailed("the node failed on this; its log says how"))
                culprit.acknowledge()
        await asyncio.sleep(FAILURE_PAUSE_S if suspects else RETRY_S)
        await self._begin(tasks)

    def _suspects(self, taken: list[_Given]) -> list[_Given]:
        """Return, in their order, what the node was given and did not finish."""
        now = {each.ticket for each in taken}
        before = [each for ticket, each in sorted(self._held.items()) if ticket not in now]
        self._held.clear()
        return [*before, *taken]

    def _give_back(self, suspects: list[_Given]) -> None:
        self._inputs.extendleft(reversed(suspects))

    async def _begin(self, tasks: asyncio.TaskGroup) -> None:
        """Build the node from the database; one that worked before is tried again for as long as it takes."""
        while True:
            node = self._build()
            try:
                effects = await self._turn(node.start)
                break
            except Exception as error:
                if not _is_away(error) and not self.started.is_set():
                    raise
                await self._pause(error)
        self.node = node
        self._follow_policy()
        self._keep_links(tasks, effects)
        changes = [_Given(LinkChange(name, up=True)) for name in sorted(self.links_up)]
        rest = [each for each in self._inputs if not isinstance(each.input, LinkChange)]
        self._inputs = deque([*changes, *rest])
        self._careful += len(changes) if self._careful else 0
        self._awake.set()
        await self._settle(effects)

    async def _pause(self, error: Exception) -> None:
        """Wait before the next attempt; say why, the first time."""
        code = error.code if _is_away(error) else NodeFailed.code
        if code != self.trouble:
            _log.error("%s: trying again until it passes", error, exc_info=None if _is_away(error) else error)
        self.trouble = code
        await asyncio.sleep(RETRY_S)

    def _log_failure(self, suspects: list[_Given], error: Exception) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s >= FAILURE_LOG_S:
            self._logged_s = now_s
            what = type(suspects[0].input).__name__ if suspects else "what its database says"
            _log.error("INTERNAL: the node failed on %s and was built anew", what, exc_info=error)

    # --- one transaction

    async def _turn(self, work: Callable[[Any, Instant], Effects]) -> Effects:
        loop = asyncio.get_running_loop()
        effects = await loop.run_in_executor(self._thread, self._commit, work)
        if self.trouble:
            _log.warning("%s has passed", self.trouble)
            self.trouble = ""
        for each in effects.send:
            self._post(each)
        for ticket, answer in effects.answers.items():
            self._answer(ticket, answer)
        for level, notes in ((logging.WARNING, effects.notes), (logging.ERROR, effects.alarms)):
            for note in notes:
                _log.log(level, "%s", "".join(mark if mark.isprintable() else "?" for mark in note))
        self._metrics.add(effects)
        return effects

    async def _settle(self, effects: Effects) -> None:
        """Do what follows when everybody was told what a turn came to, and come again when the node wants to."""
        await self._compact(effects)
        if self._timer is not None:
            self._timer.cancel()
        if effects.wake_ms is not None:
            delay_s = max(0.0, (effects.wake_ms - self._clock().steady_ms) / 1000)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._awake.set)

    async def _compact(self, effects: Effects) -> None:
        """Let files forget what was erased, when that is due, in the thread of the transactions."""
        if effects.compact:
            self._compacting.erased()
        if self._compacting.is_due(self.node.policy):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._compacting.work)
        effects.wake(self._compacting.due_ms)

    def _commit(self, work: Callable[[Any, Instant], Effects]) -> Effects:
        with self._metrics.turn_seconds.time(), self._database.write() as tx:
            return work(tx, self._clock())

    def _follow_policy(self) -> None:
        self.policy = self.node.policy
        self._metrics.follow(self.policy)

    def _answer(self, ticket: int, answer: Any) -> None:
        self._held.pop(ticket, None)
        waiting = self._answers.pop(ticket, None)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, DatasyncError):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)

    # --- links

    def _keep_links(self, tasks: asyncio.TaskGroup, effects: Effects) -> None:
        if effects.links is None and self._open.keys() >= self._fixed_links:
            return
        wanted = self._fixed_links | (effects.links or frozenset())
        for name in self._open.keys() - wanted:
            closed = self._open.pop(name)
            self._metrics.forget(name, closed.link)
            for task in closed.tasks:
                task.cancel()
        for name in wanted - self._open.keys():
            opened = self._open[name] = _Open(self._dial(name))
            self._metrics.watch(name, opened.link)
            opened.tasks = (
                tasks.create_task(self._run_link(name, opened), name=f"link {name}"),
                tasks.create_task(self._publish(opened), name=f"publish {name}"),
            )

    async def _run_link(self, name: str, opened: _Open) -> None:
        def receive(received: Received) -> None:
            self._put(_Given(Arrival(name, received.topic, received.payload), 0, received.acknowledge))

        def changed(up: bool) -> None:
            self._metrics.link(name, up)
            self._put(_Given(LinkChange(name, up)))

        await opened.link.run(receive, changed)

    async def _publish(self, opened: _Open) -> None:
        while True:
            each = await opened.queue.get()
            try:
                sent = await opened.link.publish(Packet(each.topic, each.payload, each.retain))
            except MessageTooLarge as error:
                _log.error("%s", error)
                sent = False
            self._metrics.sent.labels("sent" if sent else "unsent").inc()

    def _post(self, each: Outgoing) -> None:
        opened = self._open.get(each.link)
        if opened is None or opened.queue.full():
            self._metrics.sent.labels("dropped").inc()
        else:
            opened.queue.put_nowait(each)
