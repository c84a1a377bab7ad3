"""Generated changes of generated policies: some that can only narrow, and some of which nobody knows."""

import copy

from hypothesis import assume
from hypothesis import strategies as st

from datasync.policy.problems import PolicyInvalid
from tests.unit.policy import oracle
from tests.unit.policy.generated import (
    WORKERS,
    E,
    P,
    U,
    clauses,
    compiled,
    documents,
    fields,
    rules,
    void_rules,
    without,
)

OTHER_PARAMETERS = {
    "pid": [{"rotate": "15d"}, {"rotate": "20d"}, {"rotate": "60d"}],
    "nick": [{"rotate": "1d"}],
    "cell": [{"precision": 5}, {"precision": 7}],
    "area": [{"precision": 2}],
    "land": [{"precision": 2}],
    "hour": [{"unit": "1m"}, {"unit": "2h"}, {"unit": "7h"}],
    "day": [{"unit": "2d"}],
    "year": [{"unit": "30d"}, {"unit": "2y"}],
    "fine": [{"decimals": 1}],
    "tens": [{"decimals": -2}],
    "band": [{"edges": [0, 10]}, {"edges": [-10, 0, 10, 20, 60]}, {"edges": [5]}],
    "step": [{"edges": [0]}, {"edges": [0, 25, 50]}],
    "head": [{"keep": 3}, {"keep": 1}, {"keep": 0}],
    "tail": [{"side": "start"}, {"keep": 0}],
    "seven": [{"value": 8}],
}


@st.composite
def narrowed(draw):
    """A policy, and one in which allows have become fewer or stricter, or denies and raises more or broader."""
    old = draw(documents())
    return old, draw(changed(old, [_remove_allow, _restrict, _add_deny, _broaden_deny, _add_raise]))


@st.composite
def mutated(draw):
    """A policy, and one with one to three differences."""
    old = new = draw(documents())
    for _ in range(draw(st.sampled_from([1, 2, 3]))):
        new = draw(changed(new, ANY))
    return old, new


def loadable(document):
    """Return a changed document without rules that can never allow anything, compiled; skip one that does not load."""
    try:
        return document, compiled(document)
    except PolicyInvalid as error:
        assume({each.code for each in error.problems} == {"POLICY_RULE_VOID"})
    document = without(document, void_rules(document))
    return document, compiled(document)


@st.composite
def changed(draw, document, changes):
    """The policy with one difference: the first change, in any order, that there is something for."""
    new = copy.deepcopy(document)
    for change in draw(st.permutations(changes)):
        change(draw, new)
        if new != document:
            break
    return new


def _remove_allow(draw, document):
    allows = [rule for rule in document["rules"] if rule["effect"] == "allow"]
    if allows:
        document["rules"].remove(draw(st.sampled_from(allows)))


def _restrict(draw, document):
    rule = _some_rule(draw, document, "allow")
    if rule is not None and (types := _types(document, rule)):
        rule["where"] = [*rule.get("where", []), draw(clauses(types))]


def _broaden_deny(draw, document):
    rule = _some_rule(draw, document, "deny")
    if rule is not None and "where" in rule:
        rule["where"] = rule["where"][1:]
        if not rule["where"]:
            del rule["where"]


def _add_deny(draw, document):
    document["rules"].append({**draw(rules(document, _unused(document))), "effect": "deny"})


def _add_raise(draw, document):
    schema = document["collections"]["c"]
    types = {name: spec["type"] for name, spec in schema["fields"].items()}
    lift = {"to": draw(st.sampled_from([E, U])), "where": [draw(clauses(types))]}
    schema["raise"] = [*schema.get("raise", []), lift]


def _add_rule(draw, document):
    document["rules"].append(draw(rules(document, _unused(document))))


def _change_condition(draw, document):
    rule = draw(st.sampled_from(document["rules"])) if document["rules"] else None
    if rule is not None and rule.get("where") and (types := _types(document, rule)):
        rule["where"][draw(st.integers(0, len(rule["where"]) - 1))] = draw(clauses(types))


def _loosen(draw, document):
    rule = draw(st.sampled_from(document["rules"])) if document["rules"] else None
    if rule is not None:
        rule.pop("where", None)


def _change_fields(draw, document):
    if document["rules"]:
        names = sorted(document["collections"]["c"]["fields"])
        chosen = st.lists(st.sampled_from(names), min_size=1, unique=True)
        draw(st.sampled_from(document["rules"]))["fields"] = draw(st.one_of(st.just("*"), chosen))


def _remove_raise(draw, document):
    document["collections"]["c"].pop("raise", None)


def _change_raise(draw, document):
    for lift in document["collections"]["c"].get("raise", []):
        lift["to"] = U if lift["to"] == E else E


def _change_worker(draw, document):
    name = draw(st.sampled_from(sorted(WORKERS)))
    changes = [{"clearance": P}, {"clearance": E}, {"region": "south"}, {"region": "north"}, {"purposes": ["p", "q"]}]
    change = draw(st.sampled_from(changes))
    document["workers"][name] = {**document["workers"][name], **change}


def _change_basis(draw, document):
    purpose = draw(st.sampled_from(document["purposes"]))
    basis = draw(st.sampled_from(["contract", "opt_in", "opt_out"]))
    document["consent"] = {"basis": {**document.get("consent", {}).get("basis", {}), purpose: basis}}


def _change_parameters(draw, document):
    name = draw(st.sampled_from(sorted(OTHER_PARAMETERS)))
    changed = {**document["transforms"][name], **draw(st.sampled_from(OTHER_PARAMETERS[name]))}
    document["transforms"] = {**document["transforms"], name: changed}


def _change_field(draw, document):
    names = document["collections"]["c"]["fields"]
    name = draw(st.sampled_from(sorted(names)))
    names[name] = {**draw(fields()), "type": names[name]["type"]} if draw(st.booleans()) else draw(fields())


def _drop_chain(draw, document):
    field = draw(st.sampled_from(sorted(document["collections"]["c"]["fields"].values(), key=str)))
    if field.get("up"):
        del field["up"][draw(st.sampled_from(sorted(field["up"])))]


ANY = [
    _remove_allow, _restrict, _broaden_deny, _add_deny, _add_raise, _add_rule, _change_condition, _loosen,
    _change_fields, _remove_raise, _change_raise, _change_worker, _change_parameters, _change_parameters,
    _change_field, _drop_chain, _change_basis,
]  # fmt: skip


def _unused(document):
    return 1 + max((int(rule["id"][1:]) for rule in document["rules"] if rule["id"] != "broad"), default=-1)


def _some_rule(draw, document, effect):
    found = [rule for rule in document["rules"] if rule["effect"] == effect]
    return draw(st.sampled_from(found)) if found else None


def _types(document, rule):
    """Return the types of the columns that every worker of the rule sees alike."""
    workers = document["workers"].items()
    readers = [worker for name, worker in workers if oracle.selects(rule["to"], name, worker)]
    return oracle.types_seen_by_all(document, "c", readers)
