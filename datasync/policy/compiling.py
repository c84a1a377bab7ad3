"""From a document to a policy: every name looked up, every chain fitted, every condition tried on every reader.

What is wrong goes to a report; a policy comes out only when there is nothing in it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from datasync.domain.tiers import Place, Tier
from datasync.policy import problems as codes
from datasync.policy import testing, void
from datasync.policy.compiled import Collection, Policy, Rule, Worker, reader_scope
from datasync.policy.document import ALL, Basis, Document, ModelTransform, RuleSpec, WorkerSpec
from datasync.policy.predicate import BindError, Clause, bind
from datasync.policy.schema import check_transforms, compile_collection
from datasync.policy.tree import Path, Report
from datasync.policy.verdicts import ROAMING, compile_verdicts


def compile_policy(document: Document, source: bytes, report: Report) -> Policy:
    """Return the compiled policy. Raises PolicyInvalid with every problem, that of a failing test included."""
    _check_declarations(document, report)
    check_transforms(document.transforms, report)
    collections = {
        name: compile_collection(name, spec, document.transforms, report) for name, spec in document.collections.items()
    }
    workers = {name: _worker(name, spec, document, report) for name, spec in document.workers.items()}
    rules = tuple(_rule(("rules", index), spec, document, report) for index, spec in enumerate(document.rules))
    verdicts = compile_verdicts(document, collections, report)
    testing.check_names(document, report)
    report.check()
    for index, rule in enumerate(rules):
        _check_where(("rules", index, "where"), rule, collections[rule.collection], workers.values(), report)
    report.check()
    policy = Policy(
        document=document,
        source=source,
        digest=digest(report.tree.data),
        revision=document.revision,
        operators=frozenset(document.operators),
        purposes=frozenset(document.purposes),
        collections=collections,
        workers=workers,
        rules=rules,
        basis=_basis(document),
        verdicts=verdicts,
    )
    void.check(policy, report)
    testing.run(policy, report)
    report.check()
    return policy


def digest(data: Any) -> str:
    """Return SHA-256 in hex over the document as JSON with sorted keys and no spaces: comments do not count."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _check_declarations(document: Document, report: Report) -> None:
    _check_unique(("operators",), document.operators, report)
    _check_unique(("purposes",), document.purposes, report)
    _check_unique(("rules",), [rule.id for rule in document.rules], report, key="id")
    _check_unique(("handover",), [rule.id for rule in document.handover], report, key="id")
    for place, label in (document.places or {}).items():
        if label != Place(place).highest_tier.label:
            message = f"the {place} holds at most {Place(place).highest_tier.label} in this version, not {label}"
            report.add(codes.UNSUPPORTED, ("places", place), message, f"write {Place(place).highest_tier.label}")
    for purpose in document.consent.basis:
        report.expect_known(("consent", "basis", purpose), "purpose", purpose, document.purposes, key=True)
    for index, purpose in enumerate(document.purposes):
        if purpose == ROAMING:
            message = f"{ROAMING} is the word for crossing to another operator"
            report.add(codes.VALUE_INVALID, ("purposes", index), message, "give the purpose another name")
    for index, name in enumerate(document.models.lower_by if document.models else ()):
        path = ("models", "lower_by", index)
        known = report.expect_known(path, "transform", name, document.transforms)
        if known and not isinstance(document.transforms[name], ModelTransform):
            report.add(codes.VALUE_INVALID, path, f"{name} lowers rows, not models", "name one with scope: model")


def _basis(document: Document) -> dict[str, Basis]:
    listed = document.consent.basis
    basis: dict[str, Basis] = {purpose: listed.get(purpose, "opt_in") for purpose in document.purposes}
    return basis | {ROAMING: document.consent.roaming or "opt_in"}


def _check_unique(path: Path, names: Iterable[str], report: Report, key: str | None = None) -> None:
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        if seen[name] == 2:
            at = (*path, index, key) if key else (*path, index)
            report.add(codes.NAME_DUPLICATE, at, f"{name} is there twice", "names are unique")


def _worker(name: str, spec: WorkerSpec, document: Document, report: Report) -> Worker:
    path = ("workers", name)
    for index, purpose in enumerate(spec.purposes):
        report.expect_known((*path, "purposes", index), "purpose", purpose, document.purposes)
    _check_unique((*path, "purposes"), spec.purposes, report)
    if spec.operator is not None:
        report.expect_known((*path, "operator"), "operator", spec.operator, document.operators)
    elif spec.place != "device":
        report.add(codes.KEY_MISSING, path, f"{name} has no operator", f"add operator: {document.operators[0]}")
    attributes = spec.model_extra or {}
    for key, value in attributes.items():
        if key == "id" or not isinstance(value, str | int | float | bool):
            fix = (
                f"$worker.{key} is the worker's name" if key == "id" else "attributes are text, numbers, true or false"
            )
            report.add(codes.VALUE_INVALID, (*path, key), f"{key} is no attribute", fix)
    return Worker(
        id=name,
        place=Place(spec.place),
        operator=spec.operator or "",
        kind=spec.kind,
        clearance=Tier.parse(spec.clearance),
        purposes=frozenset(spec.purposes),
        attributes=attributes,
    )


def _rule(path: Path, spec: RuleSpec, document: Document, report: Report) -> Rule:
    if not spec.to.model_fields_set:
        report.add(
            codes.VALUE_INVALID, (*path, "to"), "the rule selects nobody", "name a worker, place, kind or operator"
        )
    if spec.to.worker is not None:
        report.expect_known((*path, "to", "worker"), "worker", spec.to.worker, document.workers)
    if spec.to.operator is not None:
        report.expect_known((*path, "to", "operator"), "operator", spec.to.operator, document.operators)
    if report.expect_known((*path, "data"), "collection", spec.data, document.collections):
        fields = document.collections[spec.data].fields
        for index, name in enumerate(spec.fields or ()):
            report.expect_known((*path, "fields", index), "field", name, (ALL, *fields))
        _check_unique((*path, "fields"), spec.fields or (), report)
    if spec.effect == "allow" and spec.fields is None:
        report.add(codes.KEY_MISSING, path, f"the allow {spec.id} has no fields", "add fields: a list of names, or '*'")
    return Rule(
        id=spec.id,
        allows=spec.effect == "allow",
        selector=spec.to,
        collection=spec.data,
        fields=None if spec.fields in (None, (ALL,)) else frozenset(spec.fields or ()),
        where=spec.where,
    )


def _check_where(path: Path, rule: Rule, collection: Collection, workers: Iterable[Worker], report: Report) -> None:
    """Try every condition on every worker that the rule is for: what one of them cannot decide is a problem."""
    readers = [worker for worker in workers if rule.selects(worker)]
    for index, clause in enumerate(rule.where):
        name = clause[0]
        if report.expect_known((*path, index, 0), "column", name, (*collection.fields, *collection.meta)):
            _check_clause((*path, index), clause, collection, readers, report)


def _check_clause(path: Path, clause: Clause, collection: Collection, readers: list[Worker], report: Report) -> None:
    for worker in readers:
        scope = reader_scope(collection, worker)
        if clause[0] not in (*scope.columns, *scope.meta):
            message = f"{worker.id} cannot see {clause[0]}, so the condition cannot be decided for it"
            fix = "add a chain to its place, or select other workers"
            report.add(codes.WHERE_INVALID, (*path, 0), message, fix)
            return
        try:
            bind(clause, scope)
        except BindError as error:
            report.add(codes.WHERE_INVALID, (*path, error.part), f"for {worker.id}, {error.message}", error.fix)
            return
