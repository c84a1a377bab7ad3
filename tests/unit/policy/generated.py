"""Generated policies, as plain documents, and generated rows that are unkind to them."""

import math
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from datasync.policy import shape
from datasync.policy.compiling import compile_policy
from datasync.policy.problems import PolicyInvalid, Position
from datasync.policy.tree import Report, Tree
from tests.unit.policy import oracle

NOW_MS = 1_700_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
U, E, P = "user-private", "edge-private", "public"

TRANSFORMS = {
    "pid": {"op": "hmac", "key": "subject", "rotate": "30d", "from": U, "to": E},
    "alias": {"op": "hmac", "key": "subject", "from": E, "to": P},
    "nick": {"op": "hmac", "key": "subject", "from": U, "to": P},
    "cell": {"op": "geohash", "precision": 6, "from": U, "to": E},
    "area": {"op": "geohash", "precision": 3, "from": E, "to": P},
    "land": {"op": "geohash", "precision": 1, "from": U, "to": P},
    "hour": {"op": "truncate", "unit": "1h", "from": U, "to": E},
    "day": {"op": "truncate", "unit": "1d", "from": E, "to": P},
    "year": {"op": "truncate", "unit": "1y", "from": U, "to": P},
    "fine": {"op": "round", "decimals": 2, "from": U, "to": E},
    "coarse": {"op": "round", "decimals": 0, "from": E, "to": P},
    "tens": {"op": "round", "decimals": -1, "from": U, "to": P},
    "band": {"op": "bucket", "edges": [-10, 0, 10, 60], "from": E, "to": P},
    "step": {"op": "bucket", "edges": [0, 50], "from": U, "to": E},
}
# By type: transforms from user-private to edge-private, from edge-private to public, from user-private to public.
WAYS = {
    "string": (["pid"], ["alias"], ["nick"]),
    "int64": (["pid", "step"], ["alias", "band"], ["nick"]),
    "float32": (["fine", "step"], ["coarse", "band"], ["tens"]),
    "float64": (["fine", "step"], ["coarse", "band"], ["tens"]),
    "timestamp": (["hour"], ["day"], ["year"]),
    "point": (["cell"], ["area"], ["land"]),
    "bool": ([], [], []),
}
AFTER = {"pid": ["alias"], "step": ["alias"], "cell": ["area", "alias"], "hour": ["day"], "fine": ["coarse", "band"]}

floats = [0.0, -0.0, 0.5, -0.04, 9.75, 10.0, 59.99, -1e30, 1e30, math.inf, -math.inf, math.nan]
VALUES = {
    "string": ["", "a", "b", "PRIVATE", "ü\u0000", "canary"],
    "int64": [0, 1, -1, 10, 59, 60, 2**53 + 1, -(2**63), 2**63 - 1],
    "float32": [oracle.as_float32(each) for each in (*floats, 0.1, 3.4e38)],
    "float64": [*floats, 0.1, 1.7e308, 5e-324],
    "timestamp": [
        (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1),
        -1,
        0,
        NOW_MS * 1_000,
        NOW_MS * 1_000 - oracle.HOUR_US,
        NOW_MS * 1_000 - 86_400_000_001,
    ],
    "point": [
        {"lat": lat, "lon": lon}
        for lat, lon in [
            (90.0, 180.0),
            (-90.0, -180.0),
            (0.0, 0.0),
            (-5e-324, -5e-324),
            (-37.8136, 144.9631),
            (math.nan, 0.0),
            (0.0, math.inf),
            (90.1, 0.0),
            (0.0, -180.5),
        ]
    ],
    "bool": [True, False],
}
LITERALS = {
    "string": ["a", "b", "PRIVATE", "u4pru"],
    "int64": [0, 1, 10, 60, 2**53 + 1],
    "float32": [0, 0.1, 10, 9.75, -0.04],
    "float64": [0, 0.1, 10, 9.75, -0.04],
    "timestamp": ["now-1h", "now-1d"],
    "bool": [True, False],
}
WORKERS = {
    "watch": {"place": "device", "kind": "infer", "clearance": U, "purposes": ["p"], "region": "north"},
    "coach": {
        "place": "edge",
        "operator": "acme",
        "kind": "infer",
        "clearance": E,
        "purposes": ["p"],
        "region": "north",
    },
    "guest": {
        "place": "edge",
        "operator": "acme",
        "kind": "train",
        "clearance": P,
        "purposes": ["p"],
        "region": "south",
    },
    "cloud": {
        "place": "cloud",
        "operator": "acme",
        "kind": "train",
        "clearance": P,
        "purposes": ["p"],
        "region": "north",
    },
}
META = {"region": P}
MOSTLY = st.sampled_from([True, True, True, False])


@st.composite
def fields(draw):
    """A field's spec: any type, any label or none, and chains that fit."""
    kind = draw(st.sampled_from(sorted(WAYS)))
    spec = {"type": kind}
    tier = draw(st.sampled_from([P, E, U, None]))
    if tier is not None:
        spec["tier"] = tier
    to_edge, to_public, across = WAYS[kind]
    up = {}
    if tier in (U, None) and to_edge and draw(MOSTLY):
        up["edge"] = [draw(st.sampled_from(to_edge))]
    if tier == E and to_public and draw(MOSTLY):
        up["cloud"] = [draw(st.sampled_from(to_public))]
    if tier in (U, None) and across and draw(MOSTLY):
        longer = up and draw(st.booleans())
        up["cloud"] = [*up["edge"], draw(st.sampled_from(AFTER[up["edge"][0]]))] if longer else [across[0]]
    return {**spec, "up": up} if up else spec


@st.composite
def clauses(draw, types):
    """A condition on one of the columns, whose types are given, that can be translated."""
    column = draw(st.sampled_from(sorted(types)))
    literals = LITERALS.get(types[column])
    if literals is None or draw(st.integers(0, 4)) == 0:
        return [column, "exists", draw(st.booleans())]
    if types[column] != "timestamp" and draw(st.integers(0, 3)) == 0:
        return [column, draw(st.sampled_from(["in", "not_in"])), draw(st.lists(st.sampled_from(literals), min_size=1))]
    ops = ["eq", "ne"] if types[column] == "bool" else ["eq", "ne", "lt", "le", "gt", "ge"]
    return [column, draw(st.sampled_from(ops)), draw(st.sampled_from(literals))]


@st.composite
def rules(draw, document, number):
    """A rule for one worker, with conditions on what that worker sees, or for a kind of workers without any."""
    names = sorted(document["collections"]["c"]["fields"])
    rule = {"id": f"R{number}", "effect": draw(st.sampled_from(["allow", "allow", "allow", "deny"])), "data": "c"}
    rule["fields"] = draw(st.one_of(st.just("*"), st.lists(st.sampled_from(names), min_size=1, unique=True)))
    if draw(st.integers(0, 2)) == 0:
        rule["to"] = draw(st.sampled_from([{"place": "edge"}, {"kind": "train"}, {"operator": "acme"}]))
        return rule
    worker_id = draw(st.sampled_from(sorted(WORKERS)))
    rule["to"] = {"worker": worker_id}
    worker = WORKERS[worker_id]
    ceiling = min(oracle.HOLDS[worker["place"]], worker["clearance"], key=oracle.rank)
    chains = {name: oracle.seen(document, "c", name, ceiling) for name in names}
    types = {n: oracle.type_after(document, "c", n, chain) for n, chain in chains.items() if chain is not None}
    where = draw(st.lists(clauses(types), max_size=2)) if types else []
    if draw(st.integers(0, 3)) == 0:
        where.append(["region", draw(st.sampled_from(["eq", "ne"])), "$worker.region"])
    return {**rule, "where": where} if where else rule


def compiled(document):
    """Return a document's policy without the way over YAML, which would take most of the time."""
    report = Report(Tree("generated", document, {(): Position(1, 1)}, {}))
    return compile_policy(shape.check(report), b"", report)


def void_rules(document):
    """Return the ids of the rules that the product says can never allow anything; no other problem is expected."""
    try:
        compiled(document)
    except PolicyInvalid as error:
        assert {each.code for each in error.problems} == {"POLICY_RULE_VOID"}, str(error)  # noqa: PT017
        return {each.message.partition(" ")[0] for each in error.problems}
    return set()


def without(document, ids):
    """Return the document without some of its rules."""
    return {**document, "rules": [rule for rule in document["rules"] if rule["id"] not in ids]}


@st.composite
def documents(draw):
    """A policy that loads."""
    document = draw(drafts())
    return without(document, void_rules(document))


@st.composite
def drafts(draw):
    """A policy with one collection, ``c``, of which some rules may allow nothing."""
    specs = [draw(fields()) for _ in range(draw(st.sampled_from([6, 4, 2, 1])))]
    names = {f"f{index}": spec for index, spec in enumerate(specs)}
    schema = {"kind": "stream", "subject": "f0", "meta": META, "fields": names}
    types = {name: spec["type"] for name, spec in names.items()}
    raises = st.fixed_dictionaries(
        {"to": st.sampled_from([E, U]), "where": st.lists(clauses(types), min_size=1, max_size=2)}
    )
    if lifts := [draw(raises) for _ in range(draw(st.sampled_from([1, 0, 2])))]:
        schema["raise"] = lifts
    document = {
        "schema": "datasync.policy/v1",
        "id": "generated",
        "revision": 1,
        "operators": ["acme"],
        "purposes": ["p"],
        "transforms": TRANSFORMS,
        "collections": {"c": schema},
        "workers": WORKERS,
    }
    count = draw(st.sampled_from([5, 3, 1, 0]))
    broad = {"id": "broad", "effect": "allow", "data": "c", "fields": "*"}
    to = draw(st.sampled_from([{"operator": "acme"}, {"kind": "infer"}, None]))
    first = [] if to is None else [{**broad, "to": to}]
    return {**document, "rules": [*first, *(draw(rules(document, number)) for number in range(count))]}


@st.composite
def rows_of(draw, document):
    """Rows for a document: mostly values that are unkind to their type, some nulls; also no rows at all."""
    cells = {
        name: st.sampled_from([*VALUES[spec["type"]], None])
        for name, spec in document["collections"]["c"]["fields"].items()
    }
    return [draw(st.fixed_dictionaries(cells)) for _ in range(draw(st.sampled_from([6, 3, 1, 0])))]
