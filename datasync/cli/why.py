"""``datasync why``: why a worker sees a segment or a row that a node stores, or does not, step by step.

The node takes the steps of a view for it and tells no value; the exit code is 0 when the worker sees it.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from datasync.cli.api_client import ApiClient, add_api
from datasync.cli.output import add_json, print_json, print_rows, print_table
from datasync.domain.errors import ConfigError
from datasync.domain.ids import is_hex_id


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("asked", metavar="SEGMENT|STREAM:SEQ", help="a segment's id, or a row's stream and number")
    add_api(parser)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--purpose", required=True, help="why it is read; the policy lists the purposes")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    asked = _asked(arguments.asked)
    client = ApiClient.of(arguments)
    answer = client.get("v1", "admin", "why", worker=arguments.worker, purpose=arguments.purpose, **asked)
    if arguments.json:
        print_json(answer)
    else:
        _print(answer)
    return 0 if answer["sees"] else 1


def _asked(text: str) -> Mapping[str, str | int]:
    """Return the parameters that name what is asked about. Raises ConfigError."""
    stream, colon, number = text.rpartition(":")
    if not number.isdecimal() or (colon and not is_hex_id(stream)):
        raise ConfigError(f"{text!r} is neither a segment nor a row", fix="write a number, or STREAM:NUMBER")
    return {"stream": stream, "seq": int(number)} if colon else {"segment": int(number)}


def _print(answer: Mapping[str, Any]) -> None:
    sees = "sees" if answer["sees"] else "does not see"
    segment = "" if answer["segment"] is None else f", segment {answer['segment']}"
    print(f"{answer['worker']} {sees} it for {answer['purpose']}: {answer['code']}")
    print(f"{answer['collection']}{segment}, by policy revision {answer['policy_revision']}\n")
    print_rows([(step["name"], step["code"] or "passed", step["detail"]) for step in answer["steps"]])
    if answer["rules"]:
        print()
        print_table(("rule", "effect", "rows", "fails"), [_rule(each) for each in answer["rules"]])
    if answer["columns"]:
        print(f"\nshown: {', '.join(answer['columns'])}")


def _rule(outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    effect = "allow" if outcome["allows"] else "deny"
    return {"rule": outcome["rule"], "effect": effect, "rows": outcome["rows"], "fails": outcome["failed"]}
