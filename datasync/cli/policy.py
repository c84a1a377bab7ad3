"""``datasync policy check|test``, and the other actions on a policy file, by the code that nodes enforce it with."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from datasync.cli import policy_changes, policy_explain, policy_sign
from datasync.cli.output import add_json, print_json
from datasync.cli.policy_file import load_file
from datasync.policy import problems, support, tree
from datasync.policy.compiled import Policy
from datasync.policy.problems import PolicyInvalid, Problem


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser("check", help="say everything that is wrong with a policy, its own tests included")
    check.set_defaults(run=_check)
    test = actions.add_parser("test", help="run the tests that a policy carries, and name them")
    test.set_defaults(run=_test)
    policy_explain.configure(actions)
    policy_changes.add_actions(actions)
    policy_sign.configure(actions)
    for action in (check, test):
        action.add_argument("file", type=Path, metavar="FILE")
        add_json(action)


def _check(arguments: argparse.Namespace) -> int:
    try:
        policy = load_file(arguments.file)
    except PolicyInvalid as error:
        return _print_problems(arguments, error.problems)
    notes = support.notes(policy.document, tree.read(policy.source, str(arguments.file)))
    if arguments.json:
        print_json({"ok": True, **_summary(policy), "problems": [], "notes": [asdict(each) for each in notes]})
    else:
        document = policy.document
        print(f"{arguments.file}: {document.id}, revision {policy.revision}, digest {policy.digest}")
        print(
            f"in order: {len(document.collections)} collections, {len(document.workers)} workers, "
            f"{len(document.rules)} rules, {len(document.tests)} tests passed"
        )
        print("".join(f"note: {arguments.file}:{each}\n" for each in notes), end="")
    return 0


def _test(arguments: argparse.Namespace) -> int:
    try:
        policy = load_file(arguments.file)
    except PolicyInvalid as error:
        if any(problem.code != problems.TEST_FAILED for problem in error.problems):
            raise
        return _print_problems(arguments, error.problems)
    names = [test.name for test in policy.document.tests]
    if arguments.json:
        print_json({"ok": True, "passed": names, "problems": []})
    else:
        print("".join(f"passed  {name}\n" for name in names) + f"{len(names)} tests passed")
    return 0


def _print_problems(arguments: argparse.Namespace, found: tuple[Problem, ...]) -> int:
    if arguments.json:
        print_json({"ok": False, "problems": [asdict(problem) for problem in found]})
    else:
        print("\n".join(f"{arguments.file}:{problem}" for problem in found))
    return 1


def _summary(policy: Policy) -> Mapping[str, object]:
    return {"id": policy.document.id, "revision": policy.revision, "digest": policy.digest}
