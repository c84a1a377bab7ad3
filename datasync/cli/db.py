"""``datasync db upgrade|check|compact``: the schema of a node's databases, or of one given by its URL; their files."""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path

from datasync.cli.output import add_json, print_json
from datasync.nodes.config_file import load_any
from datasync.nodes.shell import system_clock
from datasync.store import compaction, database, engines
from datasync.store.keys import SqlKeyShelf


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    upgrade = actions.add_parser("upgrade", help="bring the schema up to this version's")
    upgrade.set_defaults(run=_upgrade)
    check = actions.add_parser("check", help="compare the schema with this version's; exit code 1 when it differs")
    check.set_defaults(run=_check)
    compact = actions.add_parser("compact", help="rewrite a stopped node's files, so that none holds what was erased")
    compact.add_argument("--config", type=Path, required=True, metavar="FILE", help="the node's configuration")
    compact.set_defaults(run=_compact)
    for action in (upgrade, check):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("--config", type=Path, metavar="FILE", help="a node's configuration: both of its databases")
        which.add_argument("--url", help="sqlite:///file.db or postgresql+psycopg://user@host/database")
        add_json(action)


def _upgrade(arguments: argparse.Namespace) -> int:
    applied = {_shown(url): database.upgrade(url) for url in _urls(arguments)}
    if arguments.json:
        print_json({"applied": applied})
    else:
        for url, revisions in applied.items():
            print(f"{url}: {'applied ' + ', '.join(revisions) if revisions else 'already up to date'}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    differences = {_shown(url): database.check(url) for url in _urls(arguments)}
    if arguments.json:
        print_json({"differences": differences})
    else:
        for url, found in differences.items():
            print(f"{url}: {'differs' if found else 'is as this version needs it'}")
            for difference in found:
                print(f"  {difference}")
    return 1 if any(differences.values()) else 0


def _compact(arguments: argparse.Namespace) -> int:
    config = load_any(arguments.config, os.environ)
    with ExitStack() as stack:
        keys = database.Database.open(config.keys, create=False, exclusive=True)
        stack.callback(keys.close)
        rows = database.Database.open(config.database, create=False, exclusive=True)
        stack.callback(rows.close)
        SqlKeyShelf(keys).compact()
        rows.compact(compaction.ERASED)
        with rows.write() as tx:
            for what in (compaction.KEYS, compaction.ROWS):
                compaction.done(tx, what, system_clock().wall_ms)
    print("no file of this node's databases holds what was erased")
    return 0


def _urls(arguments: argparse.Namespace) -> list[str]:
    if arguments.url is not None:
        return [arguments.url]
    config = load_any(arguments.config, os.environ)
    return [config.database, config.keys]


def _shown(url: str) -> str:
    """Return the URL without its password."""
    return engines.parse_url(url).render_as_string(hide_password=True)
