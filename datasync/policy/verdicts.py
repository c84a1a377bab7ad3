"""Verdicts: what of a collection an edge gives to the next edge when a device moves between them.

Between edges of one operator everything moves, between edges of two operators nothing does, unless a rule says
otherwise. Each pair of operators and collection has at most one rule, so the order of rules never matters.
"""

from collections.abc import Iterator, Mapping

from datasync.domain.tiers import Place, Tier
from datasync.policy import problems as codes
from datasync.policy.compiled import Collection, Policy, Verdict
from datasync.policy.document import ALL, Document, HandoverRule
from datasync.policy.tree import Path, Report

ROAMING = "roaming"
"""The word that consents and ``requires`` use for crossing to another operator; no purpose may have it as its name."""

_HIGHEST = Place.EDGE.highest_tier
_TERMS = ("max_tier", "fields", "purposes", "requires", "retain", "onward")


def compile_verdicts(
    document: Document, collections: Mapping[str, Collection], report: Report
) -> Mapping[tuple[str, str, str], Verdict]:
    """Return the verdicts that rules give, by (from, to, collection); what is wrong goes to the report."""
    verdicts: dict[tuple[str, str, str], Verdict] = {}
    for index, rule in enumerate(document.handover):
        path: Path = ("handover", index)
        _check(path, rule, document, collections, report)
        for name in collections if rule.data == ALL else [rule.data]:
            pair = (rule.source, rule.to, name)
            if pair in verdicts:
                message = f"{verdicts[pair].rule} already says what becomes of {name} from {rule.source} to {rule.to}"
                report.add(codes.NAME_DUPLICATE, path, message, "keep one rule for each pair and collection")
            verdicts[pair] = _verdict(rule)
    return verdicts


def verdict(policy: Policy, source: str, to: str, collection: str) -> Verdict:
    """Return what becomes of a collection between edges of these operators."""
    listed = policy.verdicts.get((source, to, collection))
    return listed or (WITHIN if source == to else BETWEEN)


def moved(found: Verdict, collection: Collection) -> list[str]:
    """Return the fields of which some form moves, sorted."""
    if found.action == "drop":
        return []
    names = collection.fields if found.fields is None else found.fields
    return sorted(name for name in names if collection.seen(name, found.max_tier) is not None)


def _verdict(rule: HandoverRule) -> Verdict:
    between = rule.source != rule.to
    return Verdict(
        rule=rule.id,
        action=rule.action,
        max_tier=_HIGHEST if rule.max_tier is None else Tier.parse(rule.max_tier),
        fields=None if rule.fields in (None, (ALL,)) else frozenset(rule.fields or ()),
        purposes=None if rule.purposes is None else frozenset(rule.purposes),
        requires=frozenset(rule.requires or ()),
        retain_ms=rule.retain,
        onward=(not between) if rule.onward is None else rule.onward,
    )


def _check(
    path: Path, rule: HandoverRule, document: Document, collections: Mapping[str, Collection], report: Report
) -> None:
    report.expect_known((*path, "from"), "operator", rule.source, document.operators)
    report.expect_known((*path, "to"), "operator", rule.to, document.operators)
    report.expect_known((*path, "data"), "collection", rule.data, (ALL, *document.collections))
    for index, purpose in enumerate(rule.purposes or ()):
        report.expect_known((*path, "purposes", index), "purpose", purpose, document.purposes)
    for index, word in enumerate(rule.requires or ()):
        report.expect_known((*path, "requires", index), "consent", word, (ROAMING, *document.purposes))
    if rule.max_tier is not None and Tier.parse(rule.max_tier) > _HIGHEST:
        message = f"edges hold at most {_HIGHEST.label}, so nothing {rule.max_tier} can move between them"
        report.add(codes.VALUE_INVALID, (*path, "max_tier"), message, f"write {_HIGHEST.label} or public")
    if rule.action == "drop":
        for term in _terms(rule):
            report.add(codes.VALUE_INVALID, (*path, term), f"nothing moves, so {term} says nothing", "remove it")
    elif rule.data in collections:
        _check_fields((*path, "fields"), rule, collections[rule.data], report)
    elif rule.fields not in (None, (ALL,)):
        message = "collections have different fields"
        report.add(codes.VALUE_INVALID, (*path, "fields"), message, "write a rule for each collection")


def _terms(rule: HandoverRule) -> Iterator[str]:
    return (term for term in _TERMS if getattr(rule, term) is not None)


def _check_fields(path: Path, rule: HandoverRule, collection: Collection, report: Report) -> None:
    highest = _HIGHEST if rule.max_tier is None else min(_HIGHEST, Tier.parse(rule.max_tier))
    for index, name in enumerate(rule.fields or ()):
        known = report.expect_known((*path, index), "field", name, (ALL, *collection.fields))
        if known and name != ALL and collection.seen(name, highest) is None:
            message = f"{name} has no form that is {highest.label} or lower, so it cannot move"
            report.add(codes.VALUE_INVALID, (*path, index), message, "remove it, or give the field a chain")


WITHIN = Verdict(None, "move", _HIGHEST, None, None, frozenset(), None, True)
BETWEEN = Verdict(None, "drop", _HIGHEST, None, None, frozenset(), None, False)
"""What holds for edges of one operator, and of two, where no rule says otherwise."""
