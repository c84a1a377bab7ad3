"""What a policy means, row by row: slow, obvious, and made from the document alone.

This is the model that the compiled policy is compared with. It shares no code with it: it reads the plain document,
walks rows as dicts, and knows each rule of the language as one sentence of code. Timestamps are microseconds since
1970; a point is a dict of lat and lon; null is None.
"""

import hashlib
import hmac
import itertools
import math
import struct
from datetime import UTC, datetime, timedelta

TIERS = ["public", "edge-private", "user-private"]
HOLDS = {"device": "user-private", "edge": "edge-private", "cloud": "public"}
UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "y": 365 * 86_400_000}
FIRST_US = -62_135_596_800_000_000
HOUR_US = 3_600_000_000


def rank(tier):
    return TIERS.index(tier)


def duration_ms(text):
    return int(text[:-1]) * UNITS_MS[text[-1]]


# Forms: what a field looks like at each tier.


def forms(document, collection, field):
    """Return {tier: chain} of a field."""
    spec = document["collections"][collection]["fields"][field]
    found = {spec.get("tier", "user-private"): []}
    for chain in spec.get("up", {}).values():
        found[document["transforms"][chain[-1]]["to"]] = chain
    return found


def seen(document, collection, field, ceiling):
    """Return the chain of the form with the highest tier up to ``ceiling``; None when there is none."""
    allowed = {tier: chain for tier, chain in forms(document, collection, field).items() if rank(tier) <= rank(ceiling)}
    return allowed[max(allowed, key=rank)] if allowed else None


def type_after(document, collection, field, chain):
    kind = document["collections"][collection]["fields"][field]["type"]
    for name in chain:
        spec = document["transforms"][name]
        if spec["op"] in ("hmac", "geohash", "bucket", "mask"):
            kind = "string"
        if spec["op"] == "constant":
            kind = {str: "string", int: "int64", float: "float64", bool: "bool"}[type(spec["value"])]
    return kind


def ceiling_of(worker):
    return min(HOLDS[worker["place"]], worker["clearance"], key=rank)


def types_seen_by(document, collection, worker):
    """Return {field: type} of the columns that a worker sees."""
    names = document["collections"][collection]["fields"]
    chains = {name: seen(document, collection, name, ceiling_of(worker)) for name in names}
    return {n: type_after(document, collection, n, chain) for n, chain in chains.items() if chain is not None}


def types_seen_by_all(document, collection, workers):
    """Return {field: type} of the columns that all workers see, and see alike; none for no workers."""
    each = [types_seen_by(document, collection, worker) for worker in workers]
    return {n: kind for n, kind in (each[0] if each else {}).items() if all(one.get(n) == kind for one in each)}


def meta_seen_by_all(document, collection, workers):
    """Return the constants that all workers see; none for no workers."""
    meta = document["collections"][collection].get("meta", {})
    lowest = min((rank(ceiling_of(worker)) for worker in workers), default=-1)
    return [name for name, tier in meta.items() if rank(tier) <= lowest]


# Transforms, one value at a time.


def transformed(document, chain, value, kind, key, now_ms):
    for name in chain:
        if value is not None or document["transforms"][name]["op"] == "constant":
            value = transform(name, document["transforms"][name], value, kind, key, now_ms)
    return value


def transform(name, spec, value, kind, key, now_ms):
    match spec["op"]:
        case "hmac":
            period = now_ms // duration_ms(spec["rotate"]) if "rotate" in spec else 0
            message = value if isinstance(value, bytes) else str(value).encode()
            return hmac.new(key(name, period), message, hashlib.sha256).hexdigest()[:32]
        case "geohash":
            return value[: spec["precision"]] if isinstance(value, str) else geohash(value, spec["precision"])
        case "truncate":
            unit_us = duration_ms(spec["unit"]) * 1_000
            floor = value // unit_us * unit_us
            return floor if floor >= FIRST_US else None
        case "round":
            return rounded(value, spec["decimals"], kind)
        case "bucket":
            return bucket(value, spec["edges"])
        case "mask":
            keep = spec["keep"] if len(value) > spec["keep"] else 0
            return "***" + value[len(value) - keep :] if spec.get("side") == "end" else value[:keep] + "***"
        case "drop":
            return None
        case "constant":
            return spec["value"]


def geohash(point, precision):
    lat, lon = point["lat"], point["lon"]
    if lat is None or lon is None or not (-90 <= lat <= 90 and -180 <= lon <= 180):
        return None
    bounds = {"lat": [-90.0, 90.0], "lon": [-180.0, 180.0]}
    bits = ""
    while len(bits) < 5 * precision:
        axis = "lat" if len(bits) % 2 else "lon"
        low, high = bounds[axis]
        middle = (low + high) / 2
        upper = {"lat": lat, "lon": lon}[axis] >= middle
        bounds[axis] = [middle, high] if upper else [low, middle]
        bits += "1" if upper else "0"
    letters = "0123456789bcdefghjkmnpqrstuvwxyz"
    return "".join(letters[int(bits[start : start + 5], 2)] for start in range(0, len(bits), 5))


def rounded(value, decimals, kind):
    if not math.isfinite(value):
        return value
    scale = 10.0 ** abs(decimals)
    scaled = value * scale if decimals >= 0 else value / scale
    if math.isinf(scaled):
        return value
    near = float(round(scaled))
    result = near / scale if decimals >= 0 else near * scale
    result = as_float32(result) if kind == "float32" else result
    return 0.0 if result == 0 else result


def as_float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def bucket(value, edges):
    if math.isnan(value):
        return None
    if value < edges[0]:
        return f"<{edges[0]}"
    for low, high in itertools.pairwise(edges):
        if low <= value < high:
            return f"{low}-{high}"
    return f">={edges[-1]}"


# Conditions: true, false or unknown (None).


def clause_holds(cell, op, wanted):
    if op == "exists":
        return (cell is not None) == wanted
    if cell is None:
        return None
    match op:
        case "eq":
            return cell == wanted
        case "ne":
            return cell != wanted
        case "lt":
            return cell < wanted
        case "le":
            return cell <= wanted
        case "gt":
            return cell > wanted
        case "ge":
            return cell >= wanted
        case "in":
            return any(cell == one for one in wanted)
        case "not_in":
            return all(cell != one for one in wanted)


def where_holds(where, cells, types, attributes, now_ms, unknown):
    """Return whether all conditions hold; a comparison with null counts as ``unknown``.

    What has no type is a constant of the device, which compares to values of its own kind only.
    """
    for column, op, value in where:
        wanted = [as_compared(each, types.get(column), attributes, now_ms) for each in listed(value)]
        cell = cells.get(column)
        if column not in types and op != "exists":
            alike = [each for each in wanted if kind_of(each) == kind_of(cell)]
            cell, wanted = (cell if alike else None), alike
        held = clause_holds(cell, op, wanted if isinstance(value, list) else (wanted or [None])[0])
        if not (unknown if held is None else held):
            return False
    return True


def listed(value):
    return value if isinstance(value, list) else [value]


def kind_of(value):
    return "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"


def as_compared(value, kind, attributes, now_ms):
    """Return a literal as it compares with a column of this type: looked up, as microseconds, as a float32."""
    if isinstance(value, str) and value.startswith("$worker."):
        value = attributes[value.removeprefix("$worker.")]
    if kind == "timestamp" and isinstance(value, str):
        return moment(value, now_ms)
    return as_float32(value) if kind == "float32" and isinstance(value, int | float) else value


def moment(text, now_ms):
    if text.startswith("now"):
        return now_ms * 1_000 - (duration_ms(text.removeprefix("now-")) * 1_000 if text != "now" else 0)
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def lifted_to(document, collection, row, now_ms):
    """Return the tier that ``raise`` lifts a row to; public when none does."""
    schema = document["collections"][collection]
    types = {name: spec["type"] for name, spec in schema["fields"].items()}
    tiers = [
        each["to"]
        for each in schema.get("raise", [])
        if where_holds(each["where"], row, types, {}, now_ms, unknown=True)
    ]
    return max(tiers, key=rank, default="public")


# What each layer holds, and what each worker sees.


def layers(document, collection, rows, key, now_ms):
    """Return {tier: {row: {field: value}}}: every cell that each layer holds."""
    fields = document["collections"][collection]["fields"]
    held = {tier: {} for tier in TIERS}
    for index, row in enumerate(rows):
        lifted = lifted_to(document, collection, row, now_ms)
        for tier in TIERS:
            if rank(tier) < rank(lifted):
                continue
            cells = {}
            for name, spec in fields.items():
                chain = forms(document, collection, name).get(tier)
                if chain is None and tier == lifted:
                    chain = seen(document, collection, name, tier)  # the lower layers do not have the row
                if chain is not None:
                    cells[name] = transformed(document, chain, row.get(name), spec["type"], key, now_ms)
            if has_layer(document, collection, tier) and (name := doc(document, collection, row, key)) is not None:
                cells["_doc"] = name
            held[tier][index] = cells
    return held


def has_layer(document, collection, tier):
    """Whether a tier has a layer: some field has a form there, or one below, and rows are lifted to it."""
    schema = document["collections"][collection]
    ranks = [rank(one) for name in schema["fields"] for one in forms(document, collection, name)]
    return rank(tier) in ranks or (min(ranks) < rank(tier) and tier in [each["to"] for each in schema.get("raise", [])])


def doc(document, collection, row, key):
    """Return which document a row changes, by a pseudonym of subject and key; None where rows are no changes."""
    schema = document["collections"][collection]
    if schema["kind"] != "document":
        return None
    subject, name = (str(row[schema[role]]).encode() for role in ("subject", "key"))
    secret = key(f"document:{collection}", 0)
    return hmac.new(secret, len(subject).to_bytes(8, "big") + subject + name, hashlib.sha256).hexdigest()[:32]


def view(document, worker_id, collection, rows, meta, key, now_ms):
    """Return {row: {field: value}}: the cells that a worker may see, null where no rule grants the cell."""
    worker = document["workers"][worker_id]
    ceiling = ceiling_of(worker)
    fields = document["collections"][collection]["fields"]
    chains = {name: seen(document, collection, name, ceiling) for name in fields}
    chains = {name: chain for name, chain in chains.items() if chain is not None}
    types = {name: type_after(document, collection, name, chain) for name, chain in chains.items()}
    rules = [
        rule for rule in document["rules"] if rule["data"] == collection and selects(rule["to"], worker_id, worker)
    ]
    never = {
        name
        for name in fields
        for rule in rules
        if rule["effect"] == "deny" and "where" not in rule and covers(rule, name)
    }
    columns = [
        name
        for name in chains
        if name not in never and any(rule["effect"] == "allow" and covers(rule, name) for rule in rules)
    ]
    result = {}
    for index, row in enumerate(rows):
        if rank(lifted_to(document, collection, row, now_ms)) > rank(ceiling):
            continue
        cells = {
            name: transformed(document, chain, row.get(name), fields[name]["type"], key, now_ms)
            for name, chain in chains.items()
        }
        matching = [
            rule
            for rule in rules
            if where_holds(
                rule.get("where", []),
                {**cells, **meta},
                types,
                {**worker, "id": worker_id},
                now_ms,
                unknown=rule["effect"] == "deny",
            )
        ]
        granted = [
            name
            for name in columns
            if any(rule["effect"] == "allow" and covers(rule, name) for rule in matching)
            and not any(rule["effect"] == "deny" and covers(rule, name) for rule in matching)
        ]
        if granted:
            result[index] = {name: cells[name] if name in granted else None for name in columns}
    return columns, result


def selects(selector, worker_id, worker):
    return all(({**worker, "worker": worker_id}).get(key) == value for key, value in selector.items())


def selected(document, rule):
    """Return the workers that a rule is for."""
    return [worker for name, worker in document["workers"].items() if selects(rule["to"], name, worker)]


def covers(rule, field):
    return rule.get("fields", "*") == "*" or field in rule["fields"]


# Decisions.

ORDER = ["DENIED_BY", "NO_RULE", "NO_RULE_FIELD", "NO_READ_UP", "NO_PATH", "NO_PURPOSE", "NO_OPERATOR", "NO_CONSENT"]


def decide(document, worker_id, collection, field, purpose, consent, operator):
    """Return (code, ids of rules, tier, chain): the first question that fails, in the order of the language."""
    worker = document["workers"][worker_id]
    found = by_rules(document, worker_id, collection, field)
    if found[0] != "ALLOW":
        return found
    if purpose not in worker["purposes"]:
        return denied("NO_PURPOSE")
    if worker["place"] != "device" and operator not in (None, worker["operator"]):
        return denied("NO_OPERATOR")
    if consent is not None and not consented(document, purpose, consent):
        return denied("NO_CONSENT")
    return found


def by_rules(document, worker_id, collection, field):
    """Return the answer of rules, tiers and chains; for a whole collection, any field's, or that of the furthest."""
    if field is not None:
        return for_field(document, worker_id, collection, field)
    answers = [
        for_field(document, worker_id, collection, each) for each in document["collections"][collection]["fields"]
    ]
    allowed = [each for each in answers if each[0] == "ALLOW"]
    if allowed:
        tier = max((tier for _, _, tier, _ in allowed), key=rank)
        return "ALLOW", set().union(*(ids for _, ids, _, _ in allowed)), tier, []
    named = [each for each in answers if each[0] != "NO_RULE_FIELD"]
    return max(named, key=lambda each: ORDER.index(each[0]))


def for_field(document, worker_id, collection, field):
    worker = document["workers"][worker_id]
    rules = [
        rule for rule in document["rules"] if rule["data"] == collection and selects(rule["to"], worker_id, worker)
    ]
    denies = {r["id"] for r in rules if r["effect"] == "deny" and "where" not in r and covers(r, field)}
    allows = [rule for rule in rules if rule["effect"] == "allow"]
    granting = {rule["id"] for rule in allows if covers(rule, field)}
    chain = seen(document, collection, field, ceiling_of(worker))
    if denies:
        return denied("DENIED_BY", denies)
    if not allows:
        return denied("NO_RULE")
    if not granting:
        return denied("NO_RULE_FIELD")
    if chain is None:
        readable_there = seen(document, collection, field, HOLDS[worker["place"]]) is not None
        return denied("NO_READ_UP" if readable_there else "NO_PATH")
    tier = next(tier for tier, one in forms(document, collection, field).items() if one == chain)
    return "ALLOW", granting, tier, chain


def denied(code, rules=()):
    return code, set(rules), None, []


def consented(document, purpose, consent):
    match document.get("consent", {}).get("basis", {}).get(purpose, "opt_in"):
        case "contract":
            return True
        case "opt_in":
            return consent.get(purpose, False)
        case "opt_out":
            return consent.get(purpose, True)
