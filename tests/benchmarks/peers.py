"""The town's policy in the words of Cedar and of Casbin, and the fastest way that each documents to ask it.

What both are spared: the forms of a field and the chains that make them (each field carries the lowest tier that it
has a form at, worked out beforehand), consent, and conditions on rows. What they answer is a truth value; Cedar's
Python binding adds the rules that decided, as datasync does, which also tells tier, chain and a sentence.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import casbin
import cedarpy
from casbin.model import FastModel

from datasync.policy.compiled import Policy, Rule, Worker
from datasync.policy.document import Selector
from tests.benchmarks.town import Question

Answers = Callable[[], list[bool]]

CASBIN_MODEL = """
[request_definition]
r = sub, obj, fld, pur
[policy_definition]
p = sub, obj, fld, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.fld == p.fld && reads(r.sub, r.obj, r.fld, r.pur)
"""


def cedar(policy: Policy, asked: Sequence[Question]) -> Answers:
    """Ask cedarpy one by one: policies and entities parsed beforehand (``PolicySet``, ``Entities``), requests built."""
    policies, entities, requests = _cedar(policy, asked)
    return lambda: [cedarpy.is_authorized(request, policies, entities).allowed for request in requests]


def cedar_batch(policy: Policy, asked: Sequence[Question]) -> Answers:
    """Ask cedarpy all at once."""
    policies, entities, requests = _cedar(policy, asked)
    return lambda: [each.allowed for each in cedarpy.is_authorized_batch(requests, policies, entities)]


def casbin_plain(policy: Policy, asked: Sequence[Question]) -> Answers:
    """Ask pycasbin's Enforcer, which tries every line of the policy."""
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=CASBIN_MODEL))
    return _casbin(enforcer, policy, asked)


def casbin_fast(policy: Policy, asked: Sequence[Question]) -> Answers:
    """Ask pycasbin's FastEnforcer, which finds the lines of a collection and field by a dictionary."""
    model = FastModel([1, 2])
    model.load_model_from_text(CASBIN_MODEL)
    return _casbin(casbin.FastEnforcer(model, cache_key_order=[1, 2]), policy, asked)


def cedar_text(policy: Policy) -> str:
    """Return the rules as Cedar policies, and one that forbids what no purpose, operator or tier admits."""
    limits = "principal.purposes.contains(action) && resource.lowest <= principal.ceiling"
    return "\n".join([*map(_cedar_rule, policy.rules), f"forbid (principal, action, resource) unless {{ {limits} }};"])


def cedar_entities(policy: Policy) -> str:
    """Return workers, fields and what they belong to as Cedar's JSON."""
    workers = (
        {
            "uid": _uid("Worker", worker.id),
            "attrs": {
                "ceiling": int(worker.ceiling),
                "purposes": [{"__entity": _uid("Action", purpose)} for purpose in sorted(worker.purposes)],
            },
            "parents": [
                _uid("Place", worker.place.value),
                _uid("Kind", worker.kind),
                _uid("Operator", worker.operator),
            ],
        }
        for worker in policy.workers.values()
    )
    fields = (
        {
            "uid": _uid("Field", f"{collection}.{field}"),
            "attrs": {"lowest": lowest},
            "parents": [_uid("Collection", collection)],
        }
        for (collection, field), lowest in _lowest(policy).items()
    )
    return json.dumps([*workers, *fields])


def _cedar(
    policy: Policy, asked: Sequence[Question]
) -> tuple[cedarpy.PolicySet, cedarpy.Entities, list[dict[str, object]]]:
    requests: list[dict[str, object]] = [
        {
            "principal": _uid("Worker", each.worker.id),
            "action": _uid("Action", each.purpose),
            "resource": _uid("Field", f"{each.collection}.{each.field}"),
        }
        for each in asked
    ]
    entities = cedarpy.Entities.from_json_str(cedar_entities(policy))
    return cedarpy.PolicySet.from_str(cedar_text(policy)), entities, requests


def _cedar_rule(rule: Rule) -> str:
    chosen = rule.selector
    principal = f'principal == Worker::"{chosen.worker}"' if chosen.worker else "principal"
    tests = [f'principal in {kind}::"{name}"' for kind, name in _groups(chosen)]
    if principal == "principal":
        principal, *tests = tests
    if rule.fields is not None:
        named = ", ".join(f'Field::"{rule.collection}.{field}"' for field in sorted(rule.fields))
        tests.append(f"resource in [{named}]")
    effect = "permit" if rule.allows else "forbid"
    when = f" when {{ {' && '.join(tests)} }}" if tests else ""
    return f'@id("{rule.id}") {effect} ({principal}, action, resource in Collection::"{rule.collection}"){when};'


def _groups(selector: Selector) -> list[tuple[str, str]]:
    named = (("Place", selector.place), ("Kind", selector.kind), ("Operator", selector.operator))
    return [(kind, name) for kind, name in named if name is not None]


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _casbin(enforcer: casbin.Enforcer, policy: Policy, asked: Sequence[Question]) -> Answers:
    logging.getLogger("casbin").setLevel(logging.ERROR)  # it would write a line for each denial
    enforcer.add_function("reads", _reads(policy))
    enforcer.add_policies(list(_casbin_lines(policy)))
    enforcer.add_grouping_policies(list(_casbin_roles(policy.rules, policy.workers.values())))
    requests = [(each.worker.id, each.collection, each.field, each.purpose) for each in asked]
    return lambda: [enforcer.enforce(*request) for request in requests]


def _casbin_lines(policy: Policy) -> Iterator[list[str]]:
    for rule in policy.rules:
        for field in policy.collections[rule.collection].fields:
            if rule.covers(field):
                yield [f"role of {rule.id}", rule.collection, field, "allow" if rule.allows else "deny"]


def _casbin_roles(rules: Iterable[Rule], workers: Iterable[Worker]) -> Iterator[list[str]]:
    for rule in rules:
        for worker in workers:
            if rule.selects(worker):
                yield [worker.id, f"role of {rule.id}"]


def _reads(policy: Policy) -> Callable[[str, str, str, str], bool]:
    """Return whether tier and purpose admit a question, by dictionaries made beforehand."""
    lowest = _lowest(policy)
    ceilings = {worker.id: int(worker.ceiling) for worker in policy.workers.values()}
    purposes = {worker.id: worker.purposes for worker in policy.workers.values()}

    def reads(worker: str, collection: str, field: str, purpose: str) -> bool:
        return purpose in purposes[worker] and lowest[collection, field] <= ceilings[worker]

    return reads


def _lowest(policy: Policy) -> dict[tuple[str, str], int]:
    return {
        (collection.name, field): int(min(forms))
        for collection in policy.collections.values()
        for field, forms in collection.forms.items()
    }
