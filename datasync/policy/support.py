"""What a policy declares and nodes of this version do not yet do: said aloud, so that nobody relies on it."""

from collections.abc import Iterator

from datasync.policy import problems as codes
from datasync.policy.document import Document
from datasync.policy.problems import Problem
from datasync.policy.tree import Path, Tree


def notes(document: Document, tree: Tree) -> list[Problem]:
    """Return a note for every construct that is checked and carried, but not enforced."""
    found = []
    for path, what in _unenforced(document):
        at = tree.position(path, key=True)
        found.append(Problem(codes.UNENFORCED, at.line, at.column, f"{what} is declared; nodes do not do it yet"))
    return found


def _unenforced(document: Document) -> Iterator[tuple[Path, str]]:
    for name, collection in document.collections.items():
        if collection.mobility.escrow:
            yield ("collections", name, "mobility", "escrow"), "escrow in the cloud"
    for index, rule in enumerate(document.handover):
        if rule.action == "copy":
            yield ("handover", index, "action"), "a source's keeping its own copy (it erases it, as with move)"
    if document.models is not None:
        yield ("models", "lower_by"), "lowering a model's label"
