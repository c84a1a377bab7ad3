"""How results are printed: as JSON for programs, or as aligned columns for people."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def print_json(result: object) -> None:
    """Print a result as indented JSON."""
    print(json.dumps(result, indent=2, ensure_ascii=False))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print names and values below each other, the values aligned."""
    print_rows([(name, value) for name, value in fields.items()])


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the columns of the rows under a header."""
    lines = [tuple(row.get(column) for column in columns) for row in rows]
    print_rows([tuple(column.replace("_", " ") for column in columns), *lines])


def print_rows(rows: Sequence[Sequence[Any]]) -> None:
    """Print rows with aligned columns; None is a dash."""
    texts = [["-" if cell is None else _printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row for people: times as text without their unit, inner objects' fields beside the others."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{inner}": each for inner, each in readable(value).items()}
        elif name.endswith("_ms"):
            flat[name.removesuffix("_ms")] = _time(value)
        else:
            flat[name] = ", ".join(value) or "nothing" if isinstance(value, list) else value
    return flat


def _printable(text: str) -> str:
    """Return the text with control characters, which could drive a terminal, made visible."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _time(wall_ms: int | None) -> str | None:
    if wall_ms is None:
        return None
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
