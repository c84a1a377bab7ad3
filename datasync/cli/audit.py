"""``datasync audit verify|show``: the log of what was read here, from the node's own database."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasync.cli.output import add_json, print_json, print_table, readable
from datasync.nodes.config_file import load_any
from datasync.store import decisions
from datasync.store.database import Database
from datasync.store.decisions import Entry

COLUMNS = ("number", "at", "event", "worker", "collection", "purpose", "revision", "code", "rules", "rows")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="find any edit or deletion in the log; exit code 1 when there is one")
    verify.set_defaults(run=_verify)
    show = actions.add_parser("show", help="print the log; with --json, a line for each entry")
    show.add_argument("--after", type=int, default=0, metavar="NUMBER", help="from the entry after this one on")
    show.set_defaults(run=_show)
    for action in (verify, show):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("--config", type=Path, metavar="FILE", help="the node's configuration")
        which.add_argument("--url", help="its database: sqlite:///file.db or postgresql+psycopg://user@host/database")
        add_json(action)


def _verify(arguments: argparse.Namespace) -> int:
    database = _open(arguments)
    try:
        with database.read() as tx:
            wrong, entries = decisions.verify(tx), decisions.CHAIN.head(tx).number
    finally:
        database.close()
    if arguments.json:
        print_json({"entries": entries, "wrong": wrong})
    else:
        print(f"{wrong}" if wrong else f"{entries} entries, none changed or missing")
    return 1 if wrong else 0


def _show(arguments: argparse.Namespace) -> int:
    database = _open(arguments)
    after = arguments.after
    try:
        while entries := _page(database, after):
            after = entries[-1].number
            if arguments.json:
                for entry in entries:
                    print(entry.to_json())
            else:
                print_table(COLUMNS, [_row(entry) for entry in entries])
    finally:
        database.close()
    return 0


def _open(arguments: argparse.Namespace) -> Database:
    url = arguments.url or load_any(arguments.config, os.environ).database
    return Database.open(url, create=False)


def _page(database: Database, after: int) -> list[Entry]:
    with database.read() as tx:
        return decisions.page(tx, after=after)


def _row(entry: Entry) -> dict[str, Any]:
    decision = asdict(entry.decision) | {"rules": list(entry.decision.rules)}
    return readable({"number": entry.number} | decision)
