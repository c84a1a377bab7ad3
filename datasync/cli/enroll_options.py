"""What the kinds of ``datasync enroll`` have in common: an authority's folder, for how long, and what is written."""

import argparse
import os
from pathlib import Path
from typing import Any

from datasync.cli.output import print_fields, print_json
from datasync.domain.errors import ConfigError

DAYS_MAX = 3650


def add_authority(parser: argparse.ArgumentParser, *, required: bool = True, use: str = "") -> None:
    """Declare ``--authority``; ``use`` says what it is for where it is not ``required``."""
    made = "made by `datasync enroll ca`"
    parser.add_argument(
        "--authority", type=Path, required=required, metavar="FOLDER", help=f"{use}; {made}" if use else made
    )


def add_days(parser: argparse.ArgumentParser, default: int, what: str = "the certificate") -> None:
    """Declare ``--days``."""
    parser.add_argument("--days", type=_days, default=default, help=f"how long {what} is valid (default: %(default)s)")


def print_result(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print what was made, as JSON where that is asked for."""
    if arguments.json:
        print_json(result)
    else:
        print_fields(result)


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all, in place of the one that may be there, whose owner it stays.

    It is private unless ``mode`` says otherwise. Where root enrols, brokers run as somebody else, and go on reading it.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0 and path.exists():
                os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}", where=str(path)) from error


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= DAYS_MAX:
        raise argparse.ArgumentTypeError(f"{days} is not in 1..{DAYS_MAX}")
    return days
