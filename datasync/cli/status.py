"""``datasync status``: one node at a glance, from its admin API."""

import argparse
from typing import Any

from datasync.cli.api_client import ApiClient, add_api
from datasync.cli.output import add_json, print_fields, print_json, print_table, readable

SHOWN = 20

LISTS = {
    "devices": ("device", "state", "edge", "incarnation", "epoch", "mode", "policy_revision", "since", "waiting_rows"),
    "edges": ("name", "devices", "load", "policy_revision", "seen"),
    "workers": ("worker", "in_policy", "purposes", "created", "expires"),
    "handovers": ("device", "role", "peer", "phase", "epoch", "planned", "started", "finished", "rows"),
}
"""Which lists are shown, and their columns for people; ``--json`` has all that the node says."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_api(parser)
    add_json(parser)
    parser.add_argument("--limit", type=int, default=SHOWN, help="how much of each list (default: %(default)s)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    client = ApiClient.of(arguments)
    node = client.get("v1", "admin", "node")
    stored = client.get("v1", "admin", "stored")["stored"]
    pages = {name: client.get("v1", "admin", name, limit=arguments.limit) for name in LISTS}
    if arguments.json:
        print_json({"node": node, "stored": stored, **{name: page[name] for name, page in pages.items()}})
        return 0
    print_fields(readable(node))
    _print_list("stored", ("collection", "tier", "segments", "rows", "bytes"), stored)
    for name, columns in LISTS.items():
        _print_list(name, columns, [readable(row) for row in pages[name][name]], more=pages[name]["next"] is not None)
    return 0


def _print_list(name: str, columns: tuple[str, ...], rows: list[dict[str, Any]], *, more: bool = False) -> None:
    print(f"\n{name}{'' if rows else ': none'}")
    if rows:
        print_table(columns, rows)
    if more:
        print("… and more: use --limit")
