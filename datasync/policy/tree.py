"""YAML as a tree of plain values with positions, read more strictly than YAML asks.

A policy must mean the same to every reader. So scalars follow the YAML 1.2 core schema, and what YAML 1.1 and 1.2
read differently (``no``, ``on``, ``010``, ``1_000``, ``12:30``) is a problem until it is quoted; duplicate keys,
anchors, aliases, tags, merge keys, directives and second documents are problems too. The events of PyYAML's parser
are read one by one, so that depth is bounded before anything recurses.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from datasync.domain.limits import POLICY_BYTES_MAX, POLICY_DEPTH_MAX, POLICY_PROBLEMS_MAX, POLICY_VALUES_MAX
from datasync.policy import problems as codes
from datasync.policy.problems import NAME_UNKNOWN, PolicyInvalid, Position, Problem, nearest

Path = tuple[str | int, ...]

_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_AMBIGUOUS = re.compile(
    r"(?i:yes|no|on|off)"  # truth values in YAML 1.1, text in 1.2
    r"|[-+]?0[0-9_]+|[-+]?0[xob][0-9a-fA-F_]+"  # octal, hexadecimal, binary: different rules
    r"|[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?"  # 1_000
    r"|[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"  # 12:30 is 750 in YAML 1.1
    r"|<<|="
)


@dataclass(frozen=True, slots=True)
class Tree:
    """Plain values (dict, list, str, int, float, bool, None), and where each value and each key stands."""

    name: str
    data: Any
    values: dict[Path, Position]
    keys: dict[Path, Position]

    def position(self, path: Path, *, key: bool = False) -> Position:
        """Return where the value at ``path`` (or its key) stands; the nearest one above it when it is absent."""
        while path:
            found = self.keys.get(path) if key else None
            if found or (found := self.values.get(path)):
                return found
            path = path[:-1]
        return self.values[()]


@dataclass(slots=True)
class Report:
    """The problems of one load, collected."""

    tree: Tree
    problems: list[Problem] = field(default_factory=list)

    def add(self, code: str, path: Path, message: str, fix: str = "", *, key: bool = False) -> None:
        """Add a problem that stands at ``path``; at its key when ``key`` is set."""
        at = self.tree.position(path, key=key)
        self.problems.append(Problem(code, at.line, at.column, message, fix))

    def expect_known(self, path: Path, what: str, name: str, known: Iterable[str], *, key: bool = False) -> bool:
        """Return whether ``name`` is one of the known; add a problem when it is not."""
        if name in (names := tuple(known)):
            return True
        self.add(NAME_UNKNOWN, path, f"there is no {what} {name}", nearest(name, names), key=key)
        return False

    def check(self) -> None:
        """Raise PolicyInvalid when there are problems."""
        if self.problems:
            raise PolicyInvalid(self.tree.name, self.problems[:POLICY_PROBLEMS_MAX])


def read(source: bytes, name: str) -> Tree:
    """Return the tree of one YAML document. Raises PolicyInvalid with every problem found."""
    reader = _Reader(name)
    tree = Tree(name, reader.document(reader.text(source)), reader.values, reader.keys)
    if reader.problems:
        raise PolicyInvalid(name, reader.problems)
    return tree


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[Problem] = []
        self.values: dict[Path, Position] = {}
        self.keys: dict[Path, Position] = {}

    def text(self, source: bytes) -> str:
        if len(source) > POLICY_BYTES_MAX:
            message = f"the policy has {len(source)} bytes"
            self.stop(codes.TOO_LARGE, Position(1, 1), message, f"write at most {POLICY_BYTES_MAX}")
        try:
            text = source.decode("utf-8")
        except UnicodeDecodeError as error:
            line = source.count(b"\n", 0, error.start) + 1
            column = error.start - source.rfind(b"\n", 0, error.start)
            self.stop(codes.SYNTAX, Position(line, column), "this is not UTF-8", "save the file as UTF-8")
        for number, line_text in enumerate(text.splitlines(), 1):
            indent = line_text[: len(line_text) - len(line_text.lstrip())]
            if "\t" in indent and line_text.strip():
                at = Position(number, indent.index("\t") + 1)
                self.add(codes.SYNTAX, at, "a tab in the indentation", "indent with spaces")
        if self.problems:
            raise PolicyInvalid(self.name, self.problems)
        return text

    def document(self, text: str) -> Any:
        try:
            events = yaml.parse(text, Loader=yaml.SafeLoader)
            next(events)
            start = next(events)
            if not isinstance(start, yaml.DocumentStartEvent):
                self.stop(codes.SYNTAX, Position(1, 1), "the policy is empty", "begin with schema: datasync.policy/v1")
            if getattr(start, "version", None) or getattr(start, "tags", None):
                self.forbid(start, "a % directive", "remove it")
            data = self.node(next(events), events, ())
            next(events)
            if not isinstance(after := next(events), yaml.StreamEndEvent):
                self.forbid(after, "a second document", "keep one policy in a file")
        except yaml.MarkedYAMLError as error:
            self.fail(error)
        except yaml.reader.ReaderError as error:
            line, column = text.count("\n", 0, error.position) + 1, error.position - text.rfind("\n", 0, error.position)
            self.stop(codes.SYNTAX, Position(line, column), "a character that YAML does not allow", "remove it")
        return data

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Any:
        at = self.values[path] = _position(event)
        if len(path) > POLICY_DEPTH_MAX:
            self.stop(codes.SYNTAX, at, f"over {POLICY_DEPTH_MAX} levels deep", "the format needs fewer")
        if len(self.values) > POLICY_VALUES_MAX:
            self.stop(codes.TOO_LARGE, at, f"over {POLICY_VALUES_MAX} values", "write fewer")
        if isinstance(event, yaml.AliasEvent):
            self.forbid(event, f"the alias *{event.anchor}", "write the value out")
            return ""
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            raise AssertionError(f"{event} begins no node")
        if event.anchor is not None:
            self.forbid(event, f"the anchor &{event.anchor}", "remove it; values are written out where they are used")
        if event.tag is not None:
            self.forbid(event, f"the tag {event.tag}", "remove it; the format says what type each value has")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        return self.mapping(events, path) if isinstance(event, yaml.MappingStartEvent) else self.sequence(events, path)

    def mapping(self, events: Iterator[yaml.Event], path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            at = _position(event)
            key = self.node(event, events, (*path, "?"))
            if not isinstance(key, str):
                self.add(codes.VALUE_INVALID, at, f"the key {key!r} is not text", "quote it")
                key = repr(key)
            if key in data:
                first = self.keys[(*path, key)]
                message = f"the key {key} is already in line {first.line}"
                self.add(codes.KEY_DUPLICATE, at, message, "keep one of them")
            self.keys[(*path, key)] = at
            data[key] = self.node(next(events), events, (*path, key))
        self.values.pop((*path, "?"), None)
        return data

    def sequence(self, events: Iterator[yaml.Event], path: Path) -> list[Any]:
        data: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            data.append(self.node(event, events, (*path, len(data))))
        return data

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        text: str = event.value
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            self.add(codes.SYNTAX, _position(event), "half of a surrogate pair is no character", "write the character")
        if event.style:
            return text
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        if _AMBIGUOUS.fullmatch(text):
            message = f"{text} without quotes means different things to YAML 1.1 and 1.2"
            self.add(
                codes.AMBIGUOUS, _position(event), message, f"write '{text}' for the text, or true, false, a number"
            )
        elif _INTEGER.fullmatch(text):
            return self.number(event, _integer(text))
        elif _FLOAT.fullmatch(text):
            return self.number(event, float(text))
        elif _NOT_FINITE.fullmatch(text):
            return self.number(event, math.inf)
        return text

    def number(self, event: yaml.ScalarEvent, number: float) -> float:
        if math.isinf(number):
            self.add(
                codes.VALUE_INVALID, _position(event), f"{event.value} is no finite number of 64 bits", "write one"
            )
            return 0
        return number

    def fail(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        message = " ".join(part for part in (error.context, error.problem) if part)
        self.stop(codes.SYNTAX, at, message or "this is not YAML", _syntax_fix(message))

    def forbid(self, event: yaml.Event, what: str, fix: str) -> None:
        self.add(codes.YAML_FORBIDDEN, _position(event), f"{what} is not allowed in a policy", fix)

    def add(self, code: str, at: Position, message: str, fix: str) -> None:
        """Add a problem. What follows the last that is told is not read any more."""
        self.problems.append(Problem(code, at.line, at.column, message, fix))
        if len(self.problems) == POLICY_PROBLEMS_MAX:
            raise PolicyInvalid(self.name, self.problems)

    def stop(self, code: str, at: Position, message: str, fix: str) -> None:
        self.add(code, at, message, fix)
        raise PolicyInvalid(self.name, self.problems)


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    return Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)


def _integer(text: str) -> float:
    """Return a whole number of 64 bits; infinity for one that needs more."""
    number = int(text) if len(text) <= len(str(-(1 << 63))) else math.inf
    return number if -(1 << 63) <= number < 1 << 63 else math.inf


def _syntax_fix(message: str) -> str:
    if "'\\t'" in message:
        return "use spaces instead of tabs"
    if "cannot start any token" in message:
        return "quote the text"
    if "mapping values are not allowed" in message:
        return "indent like the keys above, or quote text that contains ': '"
    return "mend the YAML here"
