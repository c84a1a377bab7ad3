"""``datasync view``: what a worker may read of a collection, from a node's API to a file or to standard output.

The node writes the format; the bytes pass through as they come. What breaks off leaves no file that looks whole.
"""

import argparse
import http.client
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from datasync.cli.api_client import ApiClient, add_api, pieces
from datasync.domain.errors import ConfigError

FORMATS = ("jsonl", "csv", "arrow")
CURSOR_HEADER = "X-Datasync-Cursor"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("collection")
    add_api(parser)
    parser.add_argument("--purpose", required=True, help="why it is read; the policy lists the purposes")
    parser.add_argument("--after", type=int, default=0, metavar="CURSOR", help="only what came after this cursor")
    parser.add_argument("--limit", type=int, metavar="ROWS", help="read segments of about so many rows")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="JSON lines, CSV or an Arrow IPC stream (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: standard output)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.format == "arrow" and arguments.output is None and sys.stdout.isatty():
        raise ConfigError("an Arrow stream is nothing for a terminal", fix="use --output, or --format csv")
    query = {
        "purpose": arguments.purpose,
        "after": arguments.after,
        "limit": arguments.limit,
        "format": arguments.format,
    }
    with (
        ApiClient.of(arguments).request("GET", ("v1", "views", arguments.collection), query) as response,
        _output(arguments.output) as output,
    ):
        _copy(response, output)
        cursor = response.headers[CURSOR_HEADER]
    print(f"read to cursor {cursor}; what comes later: --after {cursor}", file=sys.stderr)
    return 0


def _copy(response: http.client.HTTPResponse, output: BinaryIO) -> None:
    for piece in pieces(response):
        output.write(piece)


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Give where to write; a file gets its name only once it is whole. Raises ConfigError."""
    if path is None:
        yield sys.stdout.buffer
        return
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}", where=str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
