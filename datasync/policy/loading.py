"""Loading a policy: from bytes to something that can be enforced, or to a list of everything that is wrong."""

from datasync.domain.errors import PolicyRevisionStale
from datasync.policy import shape
from datasync.policy.compiled import Policy
from datasync.policy.compiling import compile_policy
from datasync.policy.tree import Report, read


def load(source: bytes, *, name: str = "policy.yaml", after_revision: int | None = None) -> Policy:
    """Return the compiled policy in ``source``; its own tests have passed.

    ``name`` is what problems call the file. Raises PolicyInvalid with all problems, each with line and column;
    PolicyRevisionStale when the revision is not above ``after_revision``.
    """
    report = Report(read(source, name))
    document = shape.check(report)
    if after_revision is not None and document.revision <= after_revision:
        at = report.tree.position(("revision",))
        raise PolicyRevisionStale(
            f"revision {document.revision} is not above {after_revision}, the active one",
            where=f"{name}:{at.line}:{at.column}",
            fix=f"write revision: {after_revision + 1} or more",
        )
    return compile_policy(document, source, report)
