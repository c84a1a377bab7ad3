"""A sampler: what the threads of this process spend processor time and, for the node's thread, real time on.

A thread of its own looks at every thread's stack some hundreds of times a second. The processor time that a thread has
used since it was last seen at work goes to the stage that it is in now; summed over thousands of looks that is its
share. A thread that waits for work is passed over, so what it used before counts when it is next seen at work.
"""

import sys
import threading
import time
from collections import Counter
from types import FrameType
from typing import Any

from tests.benchmarks.stages import IDLE, Stages

INTERVAL_S = 0.003
SWITCH_S = 300e-6
"""How long the sampler waits before it asks for the interpreter's lock. With Python's 5 ms it would mostly see threads
where they give the lock away by themselves, in SQLite or in a signature; a much shorter time makes threads that wait
for the lock use the processor."""

NODE_THREAD = "node_"
"""How the shell names the thread in which the node's transactions run."""


class Sampler:
    """Samples from ``start`` to ``stop``."""

    def __init__(self) -> None:
        self._stages = Stages()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._ended = threading.Event()
        self._cpu_s: Counter[str] = Counter()
        self._functions_s: Counter[str] = Counter()
        self._node_s: Counter[str] = Counter()
        self._last_s: dict[int, float] = {}
        self._process_s = self._own_s = 0.0
        self._samples = 0

    def start(self) -> None:
        """Begin to look."""
        sys.setswitchinterval(SWITCH_S)
        self._process_s = time.process_time()
        self._thread.start()

    def stop(self) -> dict[str, Any]:
        """Look no more; return seconds of processor time by stage and by function, and the node's time by stage."""
        self._ended.set()
        self._thread.join()
        return {
            "samples": self._samples,
            "process_cpu_s": time.process_time() - self._process_s - self._own_s,
            "cpu_s": dict(self._cpu_s),
            "functions_s": dict(self._functions_s),
            "node_s": dict(self._node_s),
        }

    def _run(self) -> None:
        mine = threading.get_ident()
        looked = time.perf_counter()
        while not self._ended.wait(INTERVAL_S):
            now = time.perf_counter()
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for thread, frame in sys._current_frames().items():
                name = "sampler" if thread == mine else names.get(thread, "")
                self._look(thread, name, frame, now - looked)
            looked = now
            self._samples += 1

    def _look(self, thread: int, name: str, frame: FrameType, passed_s: float) -> None:
        used = time.clock_gettime(time.pthread_getcpuclockid(thread))
        spent_s = used - self._last_s.setdefault(thread, used)
        if name == "sampler":
            self._own_s += spent_s
            self._last_s[thread] = used
            return
        stage = self._stages.of(frame)
        if name.startswith(NODE_THREAD):
            self._node_s[stage] += passed_s
        if stage != IDLE and spent_s:
            self._cpu_s[stage] += spent_s
            self._functions_s[self._stages.function(frame) or stage] += spent_s
            self._last_s[thread] = used
