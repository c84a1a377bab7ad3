"""``datasync audit verify|show|heads``: the logs of what was read here and of what was administered.

They are read from the node's own database. ``verify`` finds any edit or deletion: by the chain of hashes and, given the
node's configuration, by the countersignature that the cloud sent back. Who has the whole machine can take that away as
well, but not what the cloud was told: ``heads`` at the cloud prints it, and ``verify --heads`` compares.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection

from datasync.cli.output import add_json, print_json, print_table, readable
from datasync.domain.errors import ConfigError
from datasync.nodes.auditing import Findings, Witnesses, find
from datasync.nodes.config import EdgeConfig
from datasync.nodes.config_file import load_any
from datasync.security.files import read_file
from datasync.security.identity import Identity
from datasync.security.trust import Trust
from datasync.store import audit, decisions, heads
from datasync.store.audit import Event
from datasync.store.database import Database
from datasync.store.heads import Said

VIEW_COLUMNS = ("number", "at", "event", "worker", "collection", "purpose", "revision", "code", "rules", "rows")
COLUMNS = ("number", "at", "event", "actor", "subject", "detail")
HEAD_COLUMNS = ("node", "log", "number", "hash", "said", "contradicted")
KINDS = ("views", "administration", *map(str, Event))


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="find any edit or deletion in the logs; exit code 1 when there is one")
    verify.add_argument(
        "--heads", type=Path, metavar="FILE", help="what `datasync audit heads --json` said at the cloud"
    )
    verify.set_defaults(run=_verify)
    show = actions.add_parser("show", help="print a log; with --json, a line for each entry")
    show.add_argument("--kind", choices=KINDS, default="views", metavar="KIND", help=f"{', '.join(KINDS)}")
    show.add_argument("--after", type=int, default=0, metavar="NUMBER", help="from the entry after this one on")
    show.set_defaults(run=_show)
    said = actions.add_parser("heads", help="at a cloud: where edges said that their logs end")
    said.set_defaults(run=_heads)
    for action in (verify, show, said):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("--config", type=Path, metavar="FILE", help="the node's configuration")
        which.add_argument("--url", help="its database: sqlite:///file.db or postgresql+psycopg://user@host/database")
        add_json(action)


def _verify(arguments: argparse.Namespace) -> int:
    witnesses = None if arguments.config is None else _witnesses(arguments)
    if witnesses is None and arguments.heads is not None:
        raise ConfigError("whose heads are to be compared?", fix="give --config, which says which node this is")
    with _reading(arguments) as tx:
        findings = find(tx, witnesses)
    if arguments.json:
        print_json(asdict(findings))
    else:
        _print(findings, witnesses)
    return 1 if findings.wrong else 0


def _print(findings: Findings, witnesses: Witnesses | None) -> None:
    for wrong in findings.wrong:
        print(wrong)
    if not findings.wrong:
        counted = " and ".join(f"{number} entries in the log {name}" for name, number in findings.entries.items())
        print(f"{counted}, none changed or missing")
    at = readable({"at_ms": findings.countersigned_ms})["at"]
    for name, number in findings.countersigned.items():
        print(f"the cloud countersigned the log {name} up to entry {number} at {at}")
    if witnesses is not None and witnesses.cloud is not None and not findings.countersigned:
        print("the cloud has countersigned nothing here")


def _witnesses(arguments: argparse.Namespace) -> Witnesses:
    config = load_any(arguments.config, os.environ)
    node = Identity.load(config.identity).name
    told = () if arguments.heads is None else _told(arguments.heads)
    cloud = config.cloud if isinstance(config, EdgeConfig) else None
    return Witnesses(node, Trust.load(config.trust), cloud, tuple(each for each in told if each.node == node))


def _told(path: Path) -> list[Said]:
    """Return what a cloud was told, from the JSON that it printed. Raises ConfigError."""
    try:
        return TypeAdapter(list[Said]).validate_python(json.loads(read_file(path))["heads"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        fix = "write it at the cloud with: datasync audit heads --json"
        raise ConfigError("the file does not say where logs end", where=str(path), fix=fix) from error


def _show(arguments: argparse.Namespace) -> int:
    columns = VIEW_COLUMNS if arguments.kind == "views" else COLUMNS
    after = arguments.after
    with _reading(arguments) as tx:
        while entries := _page(tx, arguments.kind, after):
            after = entries[-1].number
            if arguments.json:
                for entry in entries:
                    print(entry.to_json())
            else:
                print_table(columns, [_row(entry) for entry in entries])
    return 0


def _heads(arguments: argparse.Namespace) -> int:
    with _reading(arguments) as tx:
        rows = [asdict(each) for each in heads.all(tx)]
    if arguments.json:
        print_json({"heads": rows})
    else:
        print_table(HEAD_COLUMNS, [readable(row) for row in rows])
    return 1 if any(row["contradicted_ms"] is not None for row in rows) else 0


@contextmanager
def _reading(arguments: argparse.Namespace) -> Iterator[Connection]:
    url = arguments.url or load_any(arguments.config, os.environ).database
    database = Database.open(url, create=False)
    try:
        with database.read() as tx:
            yield tx
    finally:
        database.close()


def _page(tx: Connection, kind: str, after: int) -> list[audit.Entry] | list[decisions.Entry]:
    if kind == "views":
        return decisions.page(tx, after=after)
    return audit.page(tx, after=after, event=None if kind == "administration" else kind)


def _row(entry: audit.Entry | decisions.Entry) -> dict[str, Any]:
    if isinstance(entry, audit.Entry):
        return readable(asdict(entry) | {"detail": json.dumps(entry.detail)})
    decision = asdict(entry.decision) | {"rules": list(entry.decision.rules)}
    return readable({"number": entry.number} | decision)
