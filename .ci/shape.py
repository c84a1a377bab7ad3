"""Check the shape of the code: no function over 60 lines, no file over 450.

Usage: shape.py FOLDER...     Exit code 1, and a line for each excess, when something is too long.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 450


def excesses(path: Path) -> Iterator[str]:
    """Yield a line for the file, and for each of its functions, that is too long."""
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > FILE_LINES_MAX:
        yield f"{path}: {lines} lines, over {FILE_LINES_MAX}"
    for node in ast.walk(ast.parse(text, filename=str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines, over {FUNCTION_LINES_MAX}"


def main(folders: list[str]) -> int:
    """Print every excess in the folders' Python files; return the exit code."""
    files = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
    found = [line for path in files for line in excesses(path)]
    limits = f"no function over {FUNCTION_LINES_MAX} lines, no file over {FILE_LINES_MAX}"
    sys.stdout.write("\n".join(found or [f"{len(files)} files: {limits}"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
