"""A device's program: records numbered rows, in order and without end, and moves between the edges.

It may be killed at any moment and started again; it goes on from what is durable. What ``record(wait=True)`` said to
be durable it notes in a file of its own, and it ends with an error if that was not so after a restart. While its
folder has a file ``halt`` it neither records nor moves, and says so with a file ``halted``. On SIGTERM it ends.
"""

import argparse
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import datasync
from datasync.domain.errors import HandoverError
from datasync.handover.states import DeviceState
from tests.integration.deployment import EDGES
from tests.integration.rows import TRIPS, row_of

POLL_S = 0.05


class Wanderer:
    """What one process of the program does."""

    def __init__(self, device: datasync.Device, folder: Path, seed: int, move_share: float) -> None:
        self._device = device
        self._name = device.whereabouts.device
        self._halt = folder / "halt"
        self._halted = folder / "halted"
        self._promised = folder / "promised"
        self._chance = random.Random(f"{seed} {self._name} {os.getpid()}")
        self._move_share = move_share
        self.told = threading.Event()

    def run(self) -> None:
        if not self._until(lambda: self._device.has_policy):
            return
        number = self._device.recorded(TRIPS)
        promised = int(self._promised.read_text()) if self._promised.exists() else 0
        if number < promised:
            raise AssertionError(f"{promised} rows were said to be durable, {number} are")
        while not self.told.wait(self._chance.uniform(0.02, 0.12)):
            if self._halt.exists():
                self._device.flush()
                self._halted.touch()
                continue
            if self._chance.random() < self._move_share:
                self._move()
            number = self._record(number)

    def _record(self, number: int) -> int:
        last = number + self._chance.randint(1, 12)
        wait = self._chance.random() < 0.5
        self._device.record(TRIPS, [row_of(self._name, each) for each in range(number, last)], wait=wait)
        if wait:
            self._promise(last)
        return last

    def _promise(self, rows: int) -> None:
        beside = self._promised.with_suffix(".new")
        beside.write_text(str(rows))
        beside.replace(self._promised)

    def _move(self) -> None:
        here = self._device.whereabouts
        if here.state is not DeviceState.ATTACHED and self._chance.random() < 0.8:
            return  # mostly it arrives before it leaves again
        target = self._chance.choice([edge for edge in EDGES if edge != here.edge])
        try:
            self._device.move(target, planned=self._chance.random() < 0.5)
        except HandoverError as error:
            print(f"not moved: {error}", flush=True)

    def _until(self, reached: Callable[[], bool]) -> bool:
        while not reached():
            if self.told.wait(POLL_S):
                return False
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--move-share", type=float, default=0.0, help="how often it moves before it records")
    said = parser.parse_args()
    with datasync.Device(said.config) as device:
        wanderer = Wanderer(device, said.config.parent, said.seed, said.move_share)
        signal.signal(signal.SIGTERM, lambda *_: wanderer.told.set())
        wanderer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
