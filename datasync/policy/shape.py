"""From a tree to a document: whether keys, types and words are those of the format.

What pydantic finds is told in the format's own words, at the line and column where it stands.
"""

from typing import Any

from pydantic import ValidationError

from datasync.policy import problems as codes
from datasync.policy.document import Document
from datasync.policy.problems import nearest
from datasync.policy.tree import Path, Report

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "tuple_type": "a list",
}
_KEY = "[key]"


def check(report: Report) -> Document:
    """Return the document in the report's tree. Raises PolicyInvalid with every problem of shape."""
    _refuse_nothing(report, (), report.tree.data)
    try:
        document = Document.model_validate(report.tree.data)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            _add(report, each)
    report.check()
    return document


def _refuse_nothing(report: Report, path: Path, value: Any) -> None:
    """Refuse a key without a value. Only a test's row may say null: there it is a value that a field can have."""
    if value is None:
        if not (len(path) == 5 and path[0] == "tests" and path[2] == "rows"):
            report.add(codes.VALUE_INVALID, path, f"{_label(path)} has no value", "write one or remove the key")
    elif isinstance(value, dict):
        for key, each in value.items():
            _refuse_nothing(report, (*path, key), each)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _refuse_nothing(report, (*path, index), each)


def _add(report: Report, error: Any) -> None:
    kind, path, value = error["type"], _path(error["loc"], report.tree.data), error["input"]
    context = error.get("ctx", {})
    if (value is None and kind != "missing") or (kind == "too_short" and len(value) >= context["min_length"]):
        return  # told already: as no value, or by the item that is wrong
    last = error["loc"][-1] if error["loc"] else "the policy"
    match kind:
        case "missing" if isinstance(last, int):
            message = f"{_label(path)} is too short"
            report.add(codes.VALUE_INVALID, path, message, "a condition is [column, op, value]")
        case "missing":
            report.add(codes.KEY_MISSING, path, f"{_label(path)} has no {last}", f"add {last}:")
        case "extra_forbidden":
            fix = nearest(last, context.get("known", ()))
            report.add(codes.KEY_UNKNOWN, path, f"{_label(path[:-1])} has no key {last}", fix, key=True)
        case _:
            message, fix = _explain(kind, _label(path), value, context, error["msg"])
            report.add(codes.VALUE_INVALID, path, message, fix, key=_KEY in error["loc"])


def _explain(kind: str, label: str, value: object, context: dict[str, Any], text: str) -> tuple[str, str]:
    shown = _shown(value)
    match kind:
        case "literal_error" | "union_tag_invalid":
            expected = context.get("expected") or context.get("expected_tags", "")
            return f"{label} is {shown}", nearest(
                value if kind == "literal_error" else context["tag"], _words(expected)
            )
        case "union_tag_not_found":
            key = context["discriminator"].strip("'")
            return f"{label} has no {key}", f"add {key}:"
        case "string_pattern_mismatch":
            return f"{shown} is no name", f"names match {context['pattern'].strip('^$')}"
        case "value_error":
            message, _, fix = text.removeprefix("Value error, ").partition(": ")
            return f"{label}: {message}", fix
        case "greater_than_equal" | "less_than_equal":
            bound = context.get("ge", context.get("le"))
            return f"{label} is {shown}", f"write at {'least' if 'ge' in context else 'most'} {bound}"
        case "too_short" | "too_long" | "string_too_short" | "string_too_long":
            least, most = context.get("min_length"), context.get("max_length")
            if least is not None:
                return f"{label} is too short", f"write at least {least}"
            return f"{label} is too long", f"write at most {most}"
        case _ if kind in _WANTED:
            return f"{label} is {shown}", f"write {_WANTED[kind]}"
        case _:
            return f"{label} is {shown}", text.lower()


def _path(location: tuple[str | int, ...], data: Any) -> Path:
    """Return pydantic's location as a path in the tree, without the tags of unions."""
    path: Path = ()
    for part in location:
        indexed = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if indexed or (isinstance(data, dict) and part in data):
            data, path = data[part], (*path, part)
    return path


def _label(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).strip(".") or "the policy"


def _words(expected: str) -> list[str]:
    return [word for word in expected.replace(" or ", ", ").replace("'", "").split(", ") if word]


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
