"""Generated policies, as plain documents, and generated rows that are unkind to them.

Hypothesis draws one string of bytes for a whole policy, and a :class:`Tape` makes choices of it: a draw for every
choice would take ten times as long as everything that is then tested. It shrinks as bytes do, towards the first of
all options, and what is reported is the policy.
"""

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
    "head": {"op": "mask", "keep": 2, "from": U, "to": E},
    "tail": {"op": "mask", "keep": 1, "side": "end", "from": E, "to": P},
    "hide": {"op": "mask", "keep": 0, "from": U, "to": P},
    "blank": {"op": "drop", "from": U, "to": E},
    "gone": {"op": "drop", "from": E, "to": P},
    "seven": {"op": "constant", "value": 7, "from": U, "to": E},
    "word": {"op": "constant", "value": "b", "from": E, "to": P},
    "half": {"op": "constant", "value": 0.5, "from": U, "to": P},
    "yes": {"op": "constant", "value": True, "from": U, "to": P},
}
# By type: transforms from user-private to edge-private, from edge-private to public, from user-private to public.
WAYS = {
    "string": (["pid", "head", "blank"], ["alias", "tail", "gone", "word"], ["nick", "hide"]),
    "int64": (["pid", "step", "seven"], ["alias", "band", "gone"], ["nick", "half"]),
    "int32": (["pid", "step", "blank"], ["alias", "band", "word"], ["nick", "yes"]),
    "float32": (["fine", "step", "seven"], ["coarse", "band", "gone"], ["tens"]),
    "float64": (["fine", "step", "blank"], ["coarse", "band", "word"], ["tens", "half"]),
    "timestamp": (["hour", "blank"], ["day", "gone"], ["year", "yes"]),
    "point": (["cell", "seven"], ["area", "gone"], ["land"]),
    "bool": (["blank"], ["gone"], ["yes"]),
    "bytes": (["pid", "blank"], ["alias", "word"], ["nick"]),
    "[string]": (["blank"], ["gone", "word"], ["half"]),
    "vector(2)": (["seven"], ["gone"], ["half"]),
}
AFTER = {
    "pid": ["alias", "tail"], "head": ["tail", "alias"], "step": ["alias", "tail"], "cell": ["area", "alias"],
    "hour": ["day", "gone"], "fine": ["coarse", "band"], "seven": ["band", "alias"], "blank": ["gone", "word"],
}  # fmt: skip

floats = [0.0, -0.0, 0.5, -0.04, 9.75, 10.0, 59.99, -1e30, 1e30, math.inf, -math.inf, math.nan]
FIRST_US, LAST_US = oracle.FIRST_US, 253_402_300_799_999_999
VALUES = {
    "string": ["", "a", "b", "PRIVATE", "ü\u0000", "canary"],
    "int64": [0, 1, -1, 10, 59, 60, 2**53 + 1, -(2**63), 2**63 - 1],
    "int32": [0, 1, -1, 10, 59, 60, -(2**31), 2**31 - 1],
    "float32": [oracle.as_float32(each) for each in (*floats, 0.1, 3.4e38)],
    "float64": [*floats, 0.1, 1.7e308, 5e-324],
    "timestamp": [
        FIRST_US,
        LAST_US,
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
            (90.0, -180.0),
            (0.0, 180.0),
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
    "bytes": [b"", b"a", b"\x00\xff"],
    "[string]": [[], [""], ["a", "b"], ["a", "a"]],
    "vector(2)": [[0.0, math.nan], [math.inf, -math.inf], [1.5, 0.0]],
}
LITERALS = {
    "string": ["a", "b", "PRIVATE", "u4pru", "", "***", "0-10", "7"],
    "int64": [0, 1, 10, 60, 7, 2**53 + 1, 2**63 - 1],
    "int32": [0, 1, 10, 60, 2**31 - 1],
    "float32": [0, 0.1, 10, 9.75, -0.04],
    "float64": [0, 0.1, 10, 9.75, -0.04, 0.5],
    "timestamp": ["now-1h", "now-1d", "now", "1970-01-01T00:00:00Z", "2023-11-14T22:13:20Z", "9999-12-31T23:59:59Z"],
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
META = {"region": P, "zone": E}
METAS = [{}, {"region": "north"}, {"region": "south", "zone": "a"}, {"region": 3, "zone": True}, {"zone": ""}]
"""Constants of devices: also of another type than conditions name."""

MOSTLY = [True, True, True, False]


class Tape:
    """Choices, made of one byte each; the first option when there are none left."""

    def __init__(self, data):
        self.rest = iter(data)

    def pick(self, options):
        return options[next(self.rest, 0) % len(options)]

    def some(self, options, most):
        return [self.pick(options) for _ in range(1 + self.pick(range(most)))]

    def subset(self, options):
        """Return at least one of the options, in their order."""
        chosen = [option for option in options if self.pick([True, False])]
        return chosen or [self.pick(options)]


@st.composite
def made(draw, length, make, *given):
    """What ``make`` makes of what is given and a tape."""
    return make(*given, Tape(draw(st.binary(min_size=length, max_size=length))))


def fields():
    """A field's spec: any type, any label or none, and chains that fit."""
    return made(8, _field)


def clauses(types):
    """A condition on one of the columns, whose types are given, that can be translated."""
    return made(8, _clause, types)


def rules(document, number):
    """A rule for one worker or for some kind of workers, with conditions on what all of them see alike."""
    return made(40, _rule, document, number)


def drafts():
    """A policy with one collection, ``c``, of which some rules may allow nothing."""
    return made(300, _document)


@st.composite
def documents(draw):
    """A policy that loads."""
    document = draw(drafts())
    return without(document, void_rules(document))


@st.composite
def timed_documents(draw):
    """A policy that loads and in which every allow asks for times, so that segments can be ruled out by theirs."""
    document = draw(made(400, _timed))
    return without(document, void_rules(document))


@st.composite
def keepers(draw):
    """A policy that loads and whose collection is one of documents, told apart by ``who`` and ``key``."""
    document = draw(documents())
    schema = {name: each for name, each in document["collections"]["c"].items() if name != "time"}
    roles = {"who": {"type": "string", "tier": draw(st.sampled_from([U, E]))}, "key": {"type": "int64", "tier": E}}
    schema |= {"kind": "document", "subject": "who", "key": "key", "fields": {**schema["fields"], **roles}}
    return {**document, "collections": {"c": schema}}


def rows_of(document, most=12):
    """Rows for a document: mostly values that are unkind to their type, some nulls; also no rows at all."""
    return made(1 + most * len(document["collections"]["c"]["fields"]), _rows, document, most)


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


def as_given(document, rows):
    """Return the rows as a device's program would give them: times as datetimes."""
    fields = document["collections"]["c"]["fields"]
    times = [name for name, spec in fields.items() if spec["type"] == "timestamp"]
    return [
        {**row, **{name: EPOCH + timedelta(microseconds=row[name]) for name in times if row[name] is not None}}
        for row in rows
    ]


def _field(tape):
    kind = tape.pick(sorted(WAYS))
    spec = {"type": kind}
    tier = tape.pick([P, E, U, None])
    if tier is not None:
        spec["tier"] = tier
    to_edge, to_public, across = WAYS[kind]
    up = {}
    if tier in (U, None) and tape.pick(MOSTLY):
        up["edge"] = [tape.pick(to_edge)]
    if tier == E and tape.pick(MOSTLY):
        up["cloud"] = [tape.pick(to_public)]
    if tier in (U, None) and tape.pick(MOSTLY):
        longer = up and tape.pick([True, False])
        up["cloud"] = [*up["edge"], tape.pick(AFTER[up["edge"][0]])] if longer else [tape.pick(across)]
    return {**spec, "up": up} if up else spec


def _clause(types, tape):
    column = tape.pick(sorted(types))
    literals = LITERALS.get(types[column])
    if literals is None or tape.pick(range(5)) == 4:
        return [column, "exists", tape.pick([True, False])]
    if tape.pick(range(4)) == 3:
        listed = [each for each in literals if not str(each).startswith("now")]
        return [column, tape.pick(["in", "not_in"]), tape.some(listed, 4)]
    ops = ["eq", "ne"] if types[column] == "bool" else ["eq", "ne", "lt", "le", "gt", "ge"]
    return [column, tape.pick(ops), tape.pick(literals)]


def _meta_clause(names, tape):
    name = tape.pick(names)
    match tape.pick(range(6)):
        case 0 | 1:
            return [name, tape.pick(["eq", "ne"]), "$worker.region"]
        case 2:
            return [name, tape.pick(["in", "not_in"]), tape.some(["north", "south", 3, True], 3)]
        case 3:
            return [name, "exists", tape.pick([True, False])]
        case _:
            return [name, tape.pick(["eq", "ne", "lt", "le", "gt", "ge"]), tape.pick(["north", "", "a", 3, 2.5])]


def _rule(document, number, tape):
    names = sorted(document["collections"]["c"]["fields"])
    rule = {"id": f"R{number}", "effect": tape.pick(["allow", "allow", "allow", "deny"]), "data": "c"}
    rule["fields"] = tape.pick(["*", tape.subset(names)])
    groups = [{"place": "edge"}, {"kind": "train"}, {"operator": "acme"}, {"place": "edge", "kind": "infer"}]
    rule["to"] = tape.pick([*({"worker": name} for name in sorted(document["workers"])), *groups])
    readers = oracle.selected(document, rule)
    where = []
    if types := oracle.types_seen_by_all(document, "c", readers):
        where = tape.some([None, *range(8)], 3)
        where = [_clause(types, tape) for each in where if each is not None and each < 5]
    constants = oracle.meta_seen_by_all(document, "c", readers)
    if constants and tape.pick(range(4)) == 3:
        where.append(_meta_clause(constants, tape))
    return {**rule, "where": where} if where else rule


def _worker(worker, tape):
    """Return the worker with another clearance, region, purposes and operator, sometimes."""
    highest = oracle.rank(oracle.HOLDS[worker["place"]])
    changes = {
        "clearance": tape.pick([worker["clearance"], worker["clearance"], *oracle.TIERS[: highest + 1]]),
        "region": tape.pick([worker["region"], "north", "south"]),
        "purposes": tape.pick([["p"], ["p", "q"], ["p", "r"]]),
    }
    operator = {"operator": tape.pick(["acme", "acme", "borealis"])} if "operator" in worker else {}
    return {**worker, **changes, **operator}


def _document(tape):
    names = {f"f{index}": _field(tape) for index in range(tape.pick([6, 5, 4, 2, 1]))}
    schema = {"kind": "stream", "subject": "f0", "meta": META, "fields": names}
    types = {name: spec["type"] for name, spec in names.items()}
    if (times := [name for name, kind in types.items() if kind == "timestamp"]) and tape.pick(MOSTLY):
        schema["time"] = tape.pick(times)
    lifts = range(tape.pick([1, 0, 2]))
    lifts = [{"to": tape.pick([E, U]), "where": [_clause(types, tape) for _ in tape.some([0], 2)]} for _ in lifts]
    if lifts:
        schema["raise"] = lifts
    bases = {purpose: tape.pick(["contract", "opt_in", "opt_out", None]) for purpose in ("p", "q", "r")}
    document = {
        "schema": "datasync.policy/v1",
        "id": "generated",
        "revision": 1,
        "operators": ["acme", "borealis"],
        "purposes": list(bases),
        "transforms": TRANSFORMS,
        "collections": {"c": schema},
        "workers": {name: _worker(worker, tape) for name, worker in WORKERS.items()},
        "consent": {"basis": {purpose: basis for purpose, basis in bases.items() if basis is not None}},
    }
    broad = {"id": "broad", "effect": "allow", "data": "c", "fields": "*"}
    to = tape.pick([{"operator": "acme"}, {"kind": "infer"}, {"place": "cloud"}, None])
    first = [] if to is None else [{**broad, "to": to}]
    count = tape.pick([6, 4, 2, 1, 0])
    return {**document, "rules": [*first, *(_rule(document, number, tape) for number in range(count))]}


def _timed(tape):
    document = _document(tape)
    spec = {"type": "timestamp", "tier": tape.pick([P, E, U])}
    spec = {**spec, "up": {"edge": ["hour"], "cloud": ["hour", "day"]}} if spec["tier"] == U else spec
    schema = document["collections"]["c"]
    schema = {**schema, "time": "t", "fields": {**schema["fields"], "t": spec}}
    document = {**document, "collections": {"c": schema}}
    return {**document, "rules": [_asking_for_times(document, rule, tape) for rule in document["rules"]]}


def _asking_for_times(document, rule, tape):
    """Return the rule with a condition on ``t``, if it is an allow and all of its workers see it."""
    types = oracle.types_seen_by_all(document, "c", oracle.selected(document, rule))
    if rule["effect"] == "deny" or "t" not in types:
        return rule
    condition = ["t", tape.pick(["ge", "gt", "eq"]), tape.pick(LITERALS["timestamp"])]
    return {**rule, "where": [*rule.get("where", []), condition]}


def _rows(document, most, tape):
    schema = document["collections"]["c"]
    cells = {
        name: VALUES[spec["type"]] if name in ("who", "key") else [*VALUES[spec["type"]], None]
        for name, spec in schema["fields"].items()
    }
    count = tape.pick([most, most // 2, 1, 0])
    return [{name: tape.pick(values) for name, values in cells.items()} for _ in range(count)]
