"""A device agent inside a program: ``with datasync.Device("device.toml") as device: device.record("trips", rows)``.

The node runs on an event loop in a thread of its own; every method here may be called from any thread. Rows are
checked and converted in the caller's thread, so a mistake raises where it was made.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.errors import HandoverError, NodeStopped, PolicyMissing
from datasync.domain.ids import StreamId, node_name
from datasync.handover.whereabouts import Whereabouts
from datasync.nodes.config import DeviceConfig
from datasync.nodes.config_file import load
from datasync.nodes.device import DeviceNode
from datasync.nodes.local_view import LocalView
from datasync.nodes.node import Change, ConsentInput, Erase, Input, Move, Record
from datasync.nodes.recording import pieces
from datasync.nodes.run import Opened, device_api, device_shell, offer_policy, opened, sole
from datasync.nodes.shell import Shell, system_clock
from datasync.policy.compiled import Policy
from datasync.policy.projection import to_batch
from datasync.security.identity import Role
from datasync.store import consents, erasures, segments
from datasync.store.segments import State
from datasync.sync.capture import recorded


class Device:
    """One device, running from ``with`` to its end; leaving the block waits until all recorded rows are durable."""

    def __init__(self, config: str | Path | DeviceConfig) -> None:
        """Take a configuration, or the path of a TOML file that has it. Raises ConfigError."""
        self._config = config if isinstance(config, DeviceConfig) else load(DeviceConfig, Path(config), os.environ)
        self._thread = threading.Thread(target=self._run, name="datasync-device", daemon=True)
        self._begun = threading.Event()
        self._changed = threading.Condition()
        # What follows is read and written under the condition, which is told of every change.
        self._inside: _Inside | None = None
        self._pending_rows = 0
        self._failed: BaseException | None = None
        self._ended: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait()
        if self._ended is not None:
            self._thread.join()
            raise self._ended
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Stop the device; rows that are not yet durable are forgotten, see :meth:`flush`."""
        with self._changed:
            if self._inside is not None:
                self._inside.loop.call_soon_threadsafe(self._inside.stop.set)
        self._thread.join()

    def record(self, collection: str, rows: Any, *, wait: bool = False) -> None:
        """Record rows: dicts, an Arrow batch or table, or a pandas frame, of the collection's fields.

        With ``wait`` the rows are durable on this device when it returns; otherwise soon, see :meth:`flush`. Blocks
        while more than ``PENDING_ROWS_MAX`` rows are not yet durable. Raises RecordError and its kinds for rows that
        do not fit, PolicyMissing before there is a policy, NodeStopped.
        """
        batch = to_batch(self._policy().collection(collection), rows)
        answers = [self._give(collection, piece, wait) for piece in list(pieces(batch, limits.SEGMENT_ROWS_MAX))]
        if wait:
            for answer in answers:
                self._result(answer)

    def flush(self) -> None:
        """Wait until everything recorded is durable on this device. Raises what kept rows from becoming so."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending_rows == 0 or self._failed is not None)
            failed, self._failed = self._failed or self._ended, None
        if failed is not None:
            raise failed

    def move(self, edge: str, *, planned: bool = True) -> None:
        """Go to another edge, prepared by the present one, or at once. Raises HandoverError; returns before arrival."""
        try:
            target = node_name(edge)
        except ValueError as error:
            raise HandoverError(str(error)) from error
        self._result(self._ask(lambda ticket: Move(ticket, target, planned)))

    def consent(self, purpose: str, *, given: bool) -> None:
        """Note, durably, that the subject allows a purpose or no longer does; it travels with the streams."""
        self._result(self._ask(lambda ticket: ConsentInput(ticket, purpose, given)))

    def erase(self, collection: str | None = None, *, everything: bool = False) -> list[StreamId]:
        """Erase what the subject recorded, of one collection or of all, here and in every other place.

        When it returns, the streams' keys are destroyed on this device, and the other places are told for as long as it
        takes; :meth:`erasure_awaited` says how far that is. What is private to the user goes with ``everything``
        alone. Raises NotFound for an unknown collection. Returns the streams.
        """
        return list(self._result(self._ask(lambda ticket: Erase(ticket, None, collection, everything))))

    def erasure_awaited(self) -> set[str]:
        """Return the places that have not yet confirmed that they erased what this subject wanted erased."""
        with self.read() as tx:
            return erasures.awaited(tx)

    def recorded(self, collection: str) -> int:
        """Return how many rows of a collection are durable here: where a program goes on after a restart."""
        base = self._running().base
        with base.database.read() as tx:
            return recorded(tx, base.kit.identity.name, collection)

    def view(self, worker: str, collection: str, purpose: str, *, after: int = 0) -> pa.RecordBatchReader:
        """Return what one of the policy's workers on this device may read of a collection, as an Arrow reader.

        It is in the decision log. Read it to its end, or let it go. Raises NotFound for an unknown worker, Forbidden
        for one that works elsewhere and when the policy changes meanwhile, AccessDenied, PolicyMissing, NodeStopped.
        """
        inside, policy = self._running(), self._policy()
        base, shell = inside.base, inside.shell

        def write(change: Callable[[Connection], object]) -> object:
            return self._result(self._ask(lambda ticket: Change(ticket, change)))

        view = LocalView(base.database, base.kit.vault, lambda: shell.policy, write, system_clock)
        return view.open(policy, worker, collection, purpose, after)

    def read(self) -> AbstractContextManager[Connection]:
        """Open a transaction that reads the device's own database."""
        return self._running().base.database.read()

    def owed(self) -> int:
        """Return how many segments and consents are not yet safe elsewhere, of those that may leave the device."""
        with self.read() as tx:
            return segments.count(tx, [State.WAITING, State.DURABLE]) + consents.count(tx, State.WAITING)

    @property
    def whereabouts(self) -> Whereabouts:
        """Which edge serves the device, and under which epoch."""
        node = self._running().shell.node
        assert isinstance(node, DeviceNode)
        return node.whereabouts

    @property
    def policy_revision(self) -> int | None:
        """The revision of the policy that rows are recorded under now; a newer one comes with the edge's connection."""
        policy = self._running().shell.policy
        return None if policy is None else policy.revision

    @property
    def has_policy(self) -> bool:
        """Whether a policy is active, so that rows may be recorded; a new device gets it from its edge."""
        return self._running().shell.policy is not None

    def _policy(self) -> Policy:
        policy = self._running().shell.policy
        if policy is None:
            raise PolicyMissing("there is no policy yet that says what may be recorded and read")
        return policy

    def _give(self, collection: str, batch: pa.RecordBatch, waited_for: bool) -> Future[None]:
        """Give the node rows; what keeps them from becoming durable is raised to who waits for them, or by flush."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending_rows < limits.PENDING_ROWS_MAX or self._inside is None)
            answer = self._ask(lambda ticket: Record(ticket, collection, batch))
            self._pending_rows += batch.num_rows
        answer.add_done_callback(lambda done: self._settle(batch.num_rows, done, waited_for))
        return answer

    def _settle(self, rows: int, done: Future[None], waited_for: bool) -> None:
        error = _stopped() if done.cancelled() else done.exception()
        with self._changed:
            self._pending_rows -= rows
            if not waited_for:
                self._failed = self._failed or error
            self._changed.notify_all()

    def _ask(self, make: Callable[[int], Input]) -> "Future[Any]":
        with self._changed:
            inside = self._running()
            return asyncio.run_coroutine_threadsafe(inside.shell.ask(make), inside.loop)

    def _result(self, answer: "Future[Any]") -> Any:
        try:
            return answer.result()
        except CancelledError:
            raise _stopped() from self._ended

    def _running(self) -> "_Inside":
        inside = self._inside
        if inside is None:
            raise NodeStopped("the device is not running") from self._ended
        return inside

    def _run(self) -> None:
        ended: BaseException | None = None
        try:
            asyncio.run(self._main())
        except BaseException as error:  # handed to the threads that wait
            ended = sole(error)
        with self._changed:
            self._ended = ended
            self._changed.notify_all()
        self._begun.set()

    async def _main(self) -> None:
        with opened(self._config, Role.DEVICE) as base:
            shell = device_shell(self._config, base)
            async with device_api(self._config, base, shell), asyncio.TaskGroup() as tasks:
                running = tasks.create_task(shell.run())
                await shell.started.wait()
                await offer_policy(shell, self._config)
                inside = _Inside(asyncio.get_running_loop(), base, shell, asyncio.Event())
                self._show(inside)
                self._begun.set()
                try:
                    await inside.stop.wait()
                finally:
                    self._show(None)
                    await asyncio.sleep(0)  # what was asked until now becomes a task, which ends with the loop
                running.cancel()

    def _show(self, inside: "_Inside | None") -> None:
        with self._changed:
            self._inside = inside
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Inside:
    """What runs in the thread."""

    loop: asyncio.AbstractEventLoop
    base: Opened
    shell: Shell
    stop: asyncio.Event


def _stopped() -> NodeStopped:
    return NodeStopped("the device stopped before this was done")
