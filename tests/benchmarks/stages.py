"""What a node's time is spent on: the stage that a frame of its stack belongs to.

A stack is walked from the inside out; the first frame that a rule names decides. So CBOR within a signature counts as
CBOR, and whatever SQLAlchemy does counts as the statement for which the store called it. What waits in its innermost
frame is idle.
"""

from collections.abc import Sequence
from types import CodeType, FrameType
from typing import NamedTuple

OTHER = "other"
IDLE = "waiting for work"


class Rule(NamedTuple):
    """Frames of modules that begin so, all of them or functions with these qualified names, belong to a stage."""

    stage: str
    module: str
    functions: frozenset[str] = frozenset()

    def fits(self, module: str, function: str) -> bool:
        inside = module == self.module or module.startswith(f"{self.module}.")
        return inside and (not self.functions or function in self.functions)


def _rule(stage: str, module: str, *functions: str) -> Rule:
    return Rule(stage, module, frozenset(functions))


RULES = (
    _rule("the benchmark itself", "__main__"),
    _rule("rows checked", "datasync.policy.projection", "to_batch"),
    _rule("split and transforms", "datasync.policy.projection", "split"),
    _rule("Arrow columns packed, checked", "datasync.protocol.columns"),
    _rule("signatures", "datasync.protocol.cose", "sign", "Signed.verify"),
    _rule("signatures", "datasync.security.trust"),
    _rule("signatures", "datasync.security.points"),
    _rule("signatures", "datasync.security.identity"),
    _rule("sealing to the receiver", "datasync.protocol.cose", "seal", "Sealed.open"),
    _rule("sealing to the receiver", "datasync.security.sealing"),
    _rule("CBOR", "datasync.protocol.cbor"),
    _rule("messages checked", "datasync.protocol.parts"),
    _rule("messages checked", "datasync.protocol.messages"),
    _rule("segments: headers, hashes", "datasync.protocol.segment"),
    _rule("encryption at rest", "datasync.security.vault"),
    _rule("commit", "sqlalchemy.engine.default", "DefaultDialect.do_commit"),
    _rule("SQL", "datasync.store"),
    _rule("MQTT", "paho"),
    _rule("MQTT", "datasync.transport"),
    _rule("shell and event loop", "datasync.nodes.shell"),
    _rule("shell and event loop", "datasync.nodes.agent"),
    _rule("shell and event loop", "datasync.nodes.metrics"),
    _rule("shell and event loop", "asyncio"),
    _rule("HTTP", "aiohttp"),
    _rule("node: its own work", "datasync.nodes"),
    _rule("node: its own work", "datasync.sync"),
    _rule("node: its own work", "datasync.handover"),
    _rule("node: its own work", "datasync.domain"),
)

# The module that runs as a program is the recorder in the devices' process, and nothing but a start in the edge's.
WAITING = (
    _rule(IDLE, "concurrent.futures.thread", "_worker"),
    _rule(IDLE, "selectors", "EpollSelector.select"),
    _rule(IDLE, "threading", "Condition.wait", "Thread._wait_for_tstate_lock"),
    _rule(IDLE, "__main__", "_until", "main"),
)
"""Where a thread has nothing to do, when its innermost frame is there."""


class Stages:
    """Names the stage of a stack, and the innermost function of datasync in it."""

    def __init__(self) -> None:
        self._stages: dict[CodeType, str | None] = {}
        self._waiting: dict[CodeType, str | None] = {}

    def of(self, innermost: FrameType) -> str:
        """Return the stage of the thread that is in this frame."""
        if _first(WAITING, innermost, self._waiting):
            return IDLE
        frame: FrameType | None = innermost
        while frame is not None:
            stage = _first(RULES, frame, self._stages)
            if stage is not None:
                return stage
            frame = frame.f_back
        return OTHER

    @staticmethod
    def function(frame: FrameType | None) -> str:
        """Return the innermost function of datasync on the stack, as ``module.function``; empty when there is none."""
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if module.startswith("datasync."):
                return f"{module.removeprefix('datasync.')}.{frame.f_code.co_qualname}"
            frame = frame.f_back
        return ""


def _first(rules: Sequence[Rule], frame: FrameType, known: dict[CodeType, str | None]) -> str | None:
    """Return the stage that the first fitting rule names, remembering it by the frame's code."""
    code = frame.f_code
    if code not in known:
        module = str(frame.f_globals.get("__name__", ""))
        known[code] = next((rule.stage for rule in rules if rule.fits(module, code.co_qualname)), None)
    return known[code]
