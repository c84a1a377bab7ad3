"""Decisions one by one, beside Cedar (cedarpy) and Casbin (pycasbin): the same policy, questions and answers.

That every side gives the same answer to every question is checked before anything is timed. In each repetition all
sides are timed one after the other, so that what disturbs the machine disturbs all; a ratio is of one repetition.

datasync remembers the answer to each question that a policy has an answer to, so the figures tell questions that it
was asked before from those that it was not. Neither peer remembers answers; pycasbin has no cached enforcer.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cedarpy

from datasync.policy.compiled import Policy
from datasync.policy.decide import decide
from tests.benchmarks import peers, town
from tests.benchmarks.figures import MICROSECONDS, MILLISECONDS, TIMES, Figure, figure, seconds_each
from tests.benchmarks.town import Question

FEW, ASKED_AGAIN = 20, 500
SLOW_MAX = 300
"""As many questions as the side that needs milliseconds for each is asked."""

Times = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another engine: how it is asked, how many questions at most, and what to say beside its figures."""

    key: str
    name: str
    make: Callable[[Policy, Sequence[Question]], peers.Answers]
    most: int
    note: str


PEERS = (
    Peer("cedarpy", "cedarpy, is_authorized", peers.cedar, 1 << 20,
         "policies and entities parsed beforehand, requests built; it tells the rules that decided, not tier or chain"),
    Peer("cedarpy_batch", "cedarpy, is_authorized_batch", peers.cedar_batch, 1 << 20,
         "all questions in one call, so not one by one"),
    Peer("pycasbin", "pycasbin, Enforcer", peers.casbin_plain, SLOW_MAX,
         f"the first {SLOW_MAX} questions; it gives a truth value; tier and purpose come from ready dictionaries"),
    Peer("pycasbin_fast", "pycasbin, FastEnforcer", peers.casbin_fast, 1 << 20,
         "the same for all questions, with the policy's lines in a dictionary by collection and field"),
)  # fmt: skip
STATES = {"first": "for the first time", "again": "asked again"}
OURS = (
    f"{town.RULES} rules, {town.WORKERS} workers, {town.COLLECTIONS * town.FIELDS} fields; the answer has rules, tier, "
    "chain and a sentence; consent is not asked"
)


def measure(repetitions: int, say: Callable[[str], None]) -> list[Figure]:
    """Return the figures of both mixes, and what it takes to make a policy ready."""
    policy = town.policy()
    every = town.questions(policy, town.WORKERS * town.COLLECTIONS * town.FIELDS * len(town.PURPOSES))
    few = random.Random(22).choices(every[:FEW], k=FEW * ASKED_AGAIN)
    say(f"decisions: {FEW} questions, each about {ASKED_AGAIN} times")
    repeated = _times(policy, few, repetitions)
    say(f"decisions: {len(every):,} different questions")
    distinct = _times(policy, every, repetitions)
    return [
        *_figures("few", f"{FEW} questions again and again", repeated, ["again"]),
        *_figures("every", f"{len(every):,} different questions", distinct, ["first", "again"]),
        *_ready(policy, repetitions),
    ]


def _times(policy: Policy, asked: Sequence[Question], repetitions: int) -> Times:
    """Return each side's seconds for one decision, by repetition; ours for the first time and when asked again."""

    def ours() -> list[bool]:
        return [decide(policy, each.worker, each.collection, each.field, each.purpose).allowed for each in asked]

    right, works = ours(), {peer: peer.make(policy, asked[: peer.most]) for peer in PEERS}
    for peer, work in works.items():
        if work() != right[: peer.most]:
            raise AssertionError(f"{peer.name} gives other answers than datasync, so its times compare to nothing")
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(repetitions):
        policy.memo.clear()
        for key in ("first", "again"):
            times[key].append(_seconds(ours) / len(asked))
        for peer, work in works.items():
            times[peer.key].append(_seconds(work) / len(asked[: peer.most]))
    return times


def _figures(mix: str, what: str, times: Times, states: Sequence[str]) -> Iterator[Figure]:
    for state in states:
        text = f"a decision: {what}, each {STATES[state]}"
        yield figure(f"decisions.{mix}.{state}", text, MICROSECONDS, _scaled(times[state], 1e6), OURS)
    for peer in PEERS:
        key = f"decisions.{mix}.{peer.key}"
        yield figure(key, f"    {peer.name}", MICROSECONDS, _scaled(times[peer.key], 1e6), peer.note)
        for state in states:
            ratios = [theirs / ours for theirs, ours in zip(times[peer.key], times[state], strict=True)]
            yield figure(f"{key}.ratio.{state}", f"        times as long as datasync, {STATES[state]}", TIMES, ratios)


def _ready(policy: Policy, repetitions: int) -> Iterator[Figure]:
    """Yield what it takes to make the policy ready: no decision, and done once for each revision."""
    note = "YAML read with positions, every name, chain and condition checked, tests run, compiled"
    loading = seconds_each(town.policy, 1, repetitions)
    yield figure("decisions.load", "the policy made ready", MILLISECONDS, _scaled(loading, 1e3), note)
    text, entities = peers.cedar_text(policy), peers.cedar_entities(policy)

    def parse() -> None:
        cedarpy.PolicySet.from_str(text)
        cedarpy.Entities.from_json_str(entities)

    parsing = seconds_each(parse, 1, repetitions)
    yield figure("decisions.load.cedarpy", "    cedarpy", MILLISECONDS, _scaled(parsing, 1e3), "parsed; no schema")


def _scaled(seconds: Sequence[float], by: float) -> list[float]:
    return [by * each for each in seconds]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
