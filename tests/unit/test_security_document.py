"""docs/SECURITY.md names tests that show what it claims: they are there, with those names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:tests/[\w/.]*|test_\w+\.py)(?:::\w+)?)`")


def named() -> list[str]:
    return sorted(set(NAMED.findall((ROOT / "docs" / "SECURITY.md").read_text())))


def functions(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    tree = ast.parse(path.read_text())
    return {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")}


def test_the_document_names_its_tests() -> None:
    assert len(named()) > 30


@pytest.mark.parametrize("name", named())
def test_a_test_that_the_document_names_is_there(name: str) -> None:
    place, _, function = name.partition("::")
    assert place.startswith("tests/"), "a bare name may be that of several files"
    path = ROOT / place
    files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
    assert files
    assert all(functions(each) for each in files), "a file without tests shows nothing"
    if function:
        assert function in functions(path)
