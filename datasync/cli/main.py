"""The entry point: finds the command's module, runs it, and turns every error into one line and an exit code."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

from datasync.domain.errors import DatasyncError

DONE, FAILED = 0, 1

COMMANDS = {
    "demo": ("datasync.cli.demo", "run the worked example on real data: devices that roam, edges, a cloud"),
    "device": ("datasync.cli.nodes", "run a device agent"),
    "edge": ("datasync.cli.nodes", "run an edge"),
    "cloud": ("datasync.cli.nodes", "run a cloud"),
    "policy": ("datasync.cli.policy", "check, test and explain a policy file"),
    "enroll": ("datasync.cli.enroll", "make authorities, nodes' identities, and workers' and administrators' tokens"),
    "broker": ("datasync.cli.broker", "make the configuration of an edge's or a cloud's Mosquitto"),
    "view": ("datasync.cli.view", "read what a worker may see of a collection"),
    "consent": ("datasync.cli.consent", "list what subjects allow; at a device, give and withdraw consent"),
    "subject": ("datasync.cli.subject", "a subject's rights: where its data is, a copy of it, and that it be erased"),
    "status": ("datasync.cli.status", "show a node: policy, devices, edges, handovers"),
    "why": ("datasync.cli.why", "say why a worker sees a stored segment or row, or does not"),
    "model": ("datasync.cli.model", "register, list and show models, and verify where one comes from"),
    "handover": ("datasync.cli.handover", "start, list and show handovers"),
    "audit": ("datasync.cli.audit", "show the logs of what was read and administered, and find any change in them"),
    "keys": ("datasync.cli.keys", "make, list and rotate the key that a node's data keys are wrapped under"),
    "db": ("datasync.cli.db", "bring a database's schema up, or compare it with this version's"),
}
"""The module and the summary of each command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser(words).parse_args(words)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        code = run(parsed)
        sys.stdout.flush()
    except DatasyncError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has had enough; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    return code


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands, in which only the one that is called has its arguments."""
    parser = argparse.ArgumentParser(
        prog="datasync",
        description="Keeps each datum in the right place by its privacy tier, shows every AI worker exactly what the "
        "policy allows, and moves a user's state to the next edge when the device roams.",
        epilog="Exit codes: 0 done, 1 the answer is no or something failed, 2 wrong usage.",
    )
    parser.add_argument("--version", action="version", version=f"datasync {metadata.version('datasync')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = next((word for word in words if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == called:
            importlib.import_module(module).configure(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
