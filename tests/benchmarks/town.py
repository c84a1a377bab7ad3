"""A policy of realistic size, drawn with a fixed seed: 50 workers, 20 collections of 10 fields, 200 rules.

Fields are of all tiers, most with chains; rules select workers by name, place, kind and operator; one rule in ten is
a deny. No rule has conditions on rows: those never decide a question, and peers have nothing of the kind.
"""

import itertools
import json
import random
from dataclasses import dataclass

from datasync.policy.compiled import Policy, Worker
from datasync.policy.loading import load

WORKERS, COLLECTIONS, FIELDS, RULES = 50, 20, 10, 200
PLACES = {"device": "user-private", "edge": "edge-private", "cloud": "public"}
PURPOSES = ("service.routing", "improve.train", "research.stats")
_KINDS, _OPERATORS = ("infer", "train"), ("acme", "borealis")


@dataclass(frozen=True, slots=True)
class Question:
    """May this worker read this field for this purpose?"""

    worker: Worker
    collection: str
    field: str
    purpose: str


def source() -> bytes:
    """Return the policy as a file (JSON is YAML)."""
    draw = random.Random(20)
    workers = {f"w{number}": _worker(draw, number) for number in range(WORKERS)}
    document = {
        "schema": "datasync.policy/v1",
        "id": "town",
        "revision": 1,
        "operators": list(_OPERATORS),
        "purposes": list(PURPOSES),
        "transforms": {
            "pid": {"op": "hmac", "key": "subject", "from": "user-private", "to": "edge-private"},
            "alias": {"op": "hmac", "key": "subject", "from": "edge-private", "to": "public"},
        },
        "collections": {f"c{number}": _collection() for number in range(COLLECTIONS)},
        "workers": workers,
        "rules": [_rule(draw, number, list(workers)) for number in range(RULES)],
    }
    return json.dumps(document).encode()


def policy() -> Policy:
    """Return the loaded policy."""
    return load(source(), name="town.json")


def questions(loaded: Policy, count: int) -> list[Question]:
    """Return so many different questions, drawn from all of worker, collection, field and purpose."""
    every = list(itertools.product(loaded.workers.values(), loaded.collections.values(), range(FIELDS), PURPOSES))
    drawn = random.Random(21).sample(every, count)
    return [Question(worker, schema.name, f"f{field}", purpose) for worker, schema, field, purpose in drawn]


def _worker(draw: random.Random, number: int) -> dict[str, object]:
    place = list(PLACES)[number % len(PLACES)]
    purposes = draw.sample(PURPOSES, draw.choice((1, 2)))
    kind, operator = _KINDS[number // 3 % 2], _OPERATORS[number // 6 % 2]
    return {"place": place, "operator": operator, "kind": kind, "clearance": PLACES[place], "purposes": purposes}


def _collection() -> dict[str, object]:
    """Return ten fields: public, of the edge, of the user, with chains to the next place, to both, or to none."""
    kinds: tuple[dict[str, object], ...] = (
        {"tier": "public"},
        {"tier": "edge-private"},
        {"tier": "edge-private", "up": {"cloud": ["alias"]}},
        {"tier": "user-private", "up": {"edge": ["pid"]}},
        {"tier": "user-private", "up": {"edge": ["pid"], "cloud": ["pid", "alias"]}},
    )
    fields = {f"f{number}": {"type": "string", **kinds[number % len(kinds)]} for number in range(FIELDS)}
    return {"kind": "stream", "subject": "f4", "fields": fields}


def _rule(draw: random.Random, number: int, workers: list[str]) -> dict[str, object]:
    """Return a rule. Every allow has the public f0 and no deny has, so that none is void."""
    others = [f"f{field}" for field in range(1, FIELDS)]
    is_deny = number % 10 == 9
    fields = draw.sample(others, draw.randint(1, 3) if is_deny else draw.randint(0, 8))
    to = draw.choice(
        (
            {"worker": draw.choice(workers)},
            {"worker": draw.choice(workers)},
            {"kind": draw.choice(_KINDS), "place": draw.choice(list(PLACES))},
            {"operator": draw.choice(_OPERATORS), "kind": draw.choice(_KINDS)},
        )
    )
    chosen = fields if is_deny else "*" if number % 20 == 0 else ["f0", *fields]
    effect = "deny" if is_deny else "allow"
    return {"id": f"R{number}", "effect": effect, "to": to, "data": f"c{number % COLLECTIONS}", "fields": chosen}
