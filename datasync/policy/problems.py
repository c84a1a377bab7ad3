"""What is wrong with a policy, and where.

Loading collects as many problems as it can before it gives up, so that an author mends a file in one round.
Each problem has a stable code, a line and a column (both from 1), what is wrong and what would be right.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from datasync.domain.errors import PolicyError

TOO_LARGE = "POLICY_TOO_LARGE"
SYNTAX = "POLICY_SYNTAX"
YAML_FORBIDDEN = "POLICY_YAML_FORBIDDEN"
AMBIGUOUS = "POLICY_AMBIGUOUS"
KEY_DUPLICATE = "POLICY_KEY_DUPLICATE"
KEY_UNKNOWN = "POLICY_KEY_UNKNOWN"
KEY_MISSING = "POLICY_KEY_MISSING"
VALUE_INVALID = "POLICY_VALUE_INVALID"
NAME_UNKNOWN = "POLICY_NAME_UNKNOWN"
NAME_DUPLICATE = "POLICY_NAME_DUPLICATE"
CHAIN_INVALID = "POLICY_CHAIN_INVALID"
WHERE_INVALID = "POLICY_WHERE_INVALID"
RULE_VOID = "POLICY_RULE_VOID"
TEST_FAILED = "POLICY_TEST_FAILED"
UNSUPPORTED = "POLICY_UNSUPPORTED"
UNENFORCED = "POLICY_UNENFORCED"
"""Not a problem but a note: what is right, and not yet done by nodes."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file: line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: a stable code, where, what, and what would be right."""

    code: str
    line: int
    column: int
    message: str
    fix: str = ""

    def __str__(self) -> str:
        fix = f" ({self.fix})" if self.fix else ""
        return f"{self.line}:{self.column}: {self.message}{fix} [{self.code}]"


class PolicyInvalid(PolicyError):
    """The policy cannot be used."""

    code: ClassVar[str] = "POLICY_INVALID"

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))
        first = self.problems[0]
        more = f", and {len(self.problems) - 1} more" if len(self.problems) > 1 else ""
        super().__init__(f"{first.message}{more}", where=f"{name}:{first.line}:{first.column}", fix=first.fix)

    def __str__(self) -> str:
        return "\n".join(f"{self.name}:{problem}" for problem in self.problems)


def nearest(word: object, known: Iterable[str]) -> str:
    """Return what to write instead of an unknown word: the closest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.7)
    if close:
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(names)}" if names else "none is declared"
