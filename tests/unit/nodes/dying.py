"""A rotation of a node's key in a process of its own, which is killed at a chosen point."""

import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from datasync.nodes.config import EdgeConfig
from datasync.nodes.config_file import load
from datasync.nodes.rotating import rotate
from datasync.security.node_keys import KeyAddress, Surroundings

POINTS = ("os.rename", "os.link", "os.remove", "os.truncate")
"""Changes of files at which it may be killed, besides before and after each commit."""

PAGE = 2

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def rotate_and_die(config: Path, to: KeyAddress | None, at: int) -> bool:
    """Rotate and be killed (SIGKILL) at the point of this number; return whether it came to that."""
    process = _processes.Process(target=_rotate, args=(config, to, at))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def rotated(config: Path, to: KeyAddress | None) -> Any:
    """Rotate here, to the end."""
    return rotate(load(EdgeConfig, config, {}), to, Surroundings({}), random.Random(7).randbytes, 1, page=PAGE)


def _rotate(config: Path, to: KeyAddress | None, at: int) -> None:
    points = 0

    def reached() -> None:
        nonlocal points
        points += 1
        if points == at:
            os.kill(os.getpid(), signal.SIGKILL)

    commit = DefaultDialect.do_commit

    def dying_commit(self: DefaultDialect, connection: Any) -> None:
        has_written = connection.total_changes > 0
        if has_written:
            reached()
        commit(self, connection)
        if has_written:
            reached()

    DefaultDialect.do_commit = dying_commit  # type: ignore[method-assign]
    sys.addaudithook(lambda event, _: reached() if event in POINTS else None)
    rotated(config, to)
