"""What the format has and this version cannot yet do: each a problem that says so, and nothing ignored."""

from datasync.policy import problems as codes
from datasync.policy.document import (
    CollectionSpec,
    Document,
    DocumentSpec,
    HandoverRule,
    ModelTransform,
    OtherTransform,
)
from datasync.policy.tree import Path, Report

_HANDOVER_TERMS = ("max_tier", "fields", "purposes", "requires", "retain", "onward")


def check(document: Document, report: Report) -> None:
    """Add a problem for every construct that this version does not support."""
    for name, spec in document.transforms.items():
        if isinstance(spec, OtherTransform | ModelTransform):
            path = ("transforms", name, "op")
            _refuse(report, path, f"the operation {spec.op}", "use hmac, geohash, truncate, round or bucket")
    for name, collection in document.collections.items():
        _check_collection(("collections", name), collection, report)
    if document.consent.roaming is not None:
        _refuse(report, ("consent", "roaming"), "consent to roaming", "remove it; edges hand over within one operator")
    if document.consent.withdraw is not None:
        message = "purging after a withdrawal"
        _refuse(report, ("consent", "withdraw"), message, "remove it; a withdrawal takes effect on the next read")
    if document.erasure is not None:
        _refuse(report, ("erasure",), "erasure", "remove it")
    if document.models is not None:
        _refuse(report, ("models",), "labels of models", "remove it")
    for index, rule in enumerate(document.handover):
        _check_handover(("handover", index), rule, report)
    for index, test in enumerate(document.tests):
        if test.handover is not None:
            _refuse(report, ("tests", index, "handover"), "a handover test", "remove the test")


def _check_collection(path: Path, collection: CollectionSpec, report: Report) -> None:
    if isinstance(collection, DocumentSpec):
        _refuse(report, (*path, "kind"), "a collection of kind document", "use kind: stream")
    if collection.mobility.escrow:
        _refuse(report, (*path, "mobility", "escrow"), "escrow in the cloud", "write escrow: false")
    if collection.retain is not None:
        _refuse(report, (*path, "retain"), "deleting by age", "remove retain; rows are kept")
    for name, field in collection.fields.items():
        if field.merge is not None:
            _refuse(report, (*path, "fields", name, "merge"), "merging", "remove it; rows of a stream do not merge")


def _check_handover(path: Path, rule: HandoverRule, report: Report) -> None:
    if rule.source != rule.to:
        _refuse(report, path, "a handover between operators", "keep to rules from an operator to itself")
    if rule.action != "move":
        _refuse(report, (*path, "action"), f"the action {rule.action}", "write move")
    for term in _HANDOVER_TERMS:
        if getattr(rule, term) is not None:
            _refuse(report, (*path, term), f"{term} of a handover", "remove it")


def _refuse(report: Report, path: Path, what: str, fix: str) -> None:
    report.add(codes.UNSUPPORTED, path, f"this version does not support {what}", fix, key=True)
