"""``datasync handover start|list|show``: moving devices between edges, through a node's admin API."""

import argparse
from collections.abc import Iterator
from typing import Any

from datasync.cli.api_client import ApiClient, add_api
from datasync.cli.output import add_json, print_fields, print_json, print_table, readable
from datasync.domain.errors import NotFound

PAGE = 1_000
SHOWN = 20
COLUMNS = ("handover", "device", "role", "peer", "phase", "epoch", "planned", "started", "active", "finished", "rows")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    start = actions.add_parser("start", help="ask the edge that serves a device to move it to another edge")
    start.add_argument("device")
    start.add_argument("target", help="the edge to move to, for example acme/docks")
    start.set_defaults(run=_start)
    listing = actions.add_parser("list", help="list handovers, the newest first")
    listing.add_argument("--device", help="only this device's")
    listing.add_argument("--phase", help="only those in this phase")
    listing.add_argument("--limit", type=int, default=SHOWN, help="how many at most (default: %(default)s)")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="show one handover in full")
    show.add_argument("handover", help="its id, or the beginning of it")
    show.set_defaults(run=_show)
    for action in (start, listing, show):
        add_api(action)
        add_json(action)


def _start(arguments: argparse.Namespace) -> int:
    request = {"device": arguments.device, "target": arguments.target}
    started = ApiClient.of(arguments).post("v1", "admin", "handovers", document=request)
    if arguments.json:
        print_json(started)
    else:
        print(
            f"{started['device']} is asked to move to {started['target']}; `datasync handover list` shows how far it is"
        )
    return 0


def _list(arguments: argparse.Namespace) -> int:
    page = ApiClient.of(arguments).get(
        "v1", "admin", "handovers", device=arguments.device, phase=arguments.phase, limit=arguments.limit
    )
    if arguments.json:
        print_json(page["handovers"])
    elif page["handovers"]:
        print_table(COLUMNS, [readable(row) for row in page["handovers"]])
    else:
        print("no handovers")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    handovers = _every(ApiClient.of(arguments))
    found = next((row for row in handovers if row["handover"].startswith(arguments.handover)), None)
    if found is None:
        raise NotFound(f"the node knows no handover {arguments.handover}")
    if arguments.json:
        print_json(found)
    else:
        print_fields(readable(found))
    return 0


def _every(client: ApiClient) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        page = client.get("v1", "admin", "handovers", limit=PAGE, after=after)
        yield from page["handovers"]
        after = page["next"]
        if after is None:
            return
