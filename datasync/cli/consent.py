"""``datasync consent list|give|withdraw``: what subjects allow; a device's administrator says it for the device's."""

import argparse
import json
from typing import Any

from datasync.cli.api_client import ApiClient, add_api, pieces
from datasync.cli.output import add_json, print_fields, print_json, print_table, readable

SHOWN = 100
SAID = ("purpose", "basis", "given", "stamp")
HELD = ("device", "stream", "collection", "tier", "purpose", "given", "stamp")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what a node holds, of all subjects or of one")
    which = listing.add_mutually_exclusive_group()
    which.add_argument("--device", help="only what this device's streams say")
    which.add_argument("--stream", help="only what this stream says")
    listing.add_argument("--after", help="the `next` of another page")
    listing.add_argument("--limit", type=int, default=SHOWN, help="how many at most (default: %(default)s)")
    listing.set_defaults(run=_list)
    give = actions.add_parser("give", help="allow a purpose from now on, at the subject's device")
    withdraw = actions.add_parser("withdraw", help="no longer allow a purpose, at the subject's device")
    for action, given in ((give, True), (withdraw, False)):
        action.add_argument("purpose", help="a purpose of the policy, or roaming")
        action.set_defaults(run=_say, given=given)
    for action in (listing, give, withdraw):
        add_api(action)
        add_json(action)


def _list(arguments: argparse.Namespace) -> int:
    page = ApiClient.of(arguments).get(
        "v1", "admin", "consents",
        device=arguments.device, stream=arguments.stream, after=arguments.after, limit=arguments.limit,
    )  # fmt: skip
    if arguments.json:
        print_json(page)
        return 0
    if page["said"]:
        print_table(SAID, _rows(page["said"]))
        print()
    if page["consents"]:
        print_table(HELD, _rows(page["consents"]))
    else:
        print("no stream has a consent here")
    if page["next"] is not None:
        print(f"… and more: use --after {page['next']}")
    return 0


def _say(arguments: argparse.Namespace) -> int:
    body = json.dumps({"given": arguments.given}).encode()
    path = ("v1", "admin", "consents", arguments.purpose)
    with ApiClient.of(arguments).request("PUT", path, {}, body) as response:
        said = json.loads(b"".join(pieces(response)))
    if arguments.json:
        print_json(said)
    else:
        print_fields(readable(said))
    return 0


def _rows(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [readable(row) for row in listed]
