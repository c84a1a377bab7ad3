"""``datasync policy check|test|explain``: a policy file, by the very code that nodes load and enforce it with."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from datasync.cli import policy_changes, policy_sign
from datasync.cli.output import add_json, print_json
from datasync.domain.errors import ConfigError
from datasync.domain.limits import POLICY_BYTES_MAX
from datasync.policy import problems, support, tree
from datasync.policy.compiled import Policy, Worker
from datasync.policy.decide import Decision, decide, worker
from datasync.policy.explain import explain
from datasync.policy.loading import load
from datasync.policy.problems import PolicyInvalid, Problem, nearest


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    policy_sign.configure(actions)
    policy_changes.add_actions(actions)
    check = actions.add_parser("check", help="say everything that is wrong with a policy, its own tests included")
    check.set_defaults(run=_check)
    test = actions.add_parser("test", help="run the tests that a policy carries, and name them")
    test.set_defaults(run=_test)
    question = actions.add_parser("explain", help="say what a worker may read of a collection, and why")
    question.add_argument("--worker", required=True)
    question.add_argument("--data", required=True, metavar="COLLECTION")
    question.add_argument("--field", help="only this field (default: each, and which rows)")
    question.add_argument("--purpose", help="why it is read (default: the worker's, if it has one only)")
    question.add_argument("--without-consent", action="store_true", help="as if the subject refused consent for it")
    question.set_defaults(run=_explain)
    for action in (check, test, question):
        action.add_argument("file", type=Path, metavar="FILE")
        add_json(action)


def _check(arguments: argparse.Namespace) -> int:
    try:
        policy = _load(arguments.file)
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
        policy = _load(arguments.file)
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


def _explain(arguments: argparse.Namespace) -> int:
    policy = _load(arguments.file)
    reader = worker(policy, arguments.worker)
    purpose = arguments.purpose or _only_purpose(reader)
    if purpose not in policy.purposes:
        raise ConfigError(f"the policy has no purpose {purpose}", fix=nearest(purpose, policy.purposes))
    consent = {purpose: False} if arguments.without_consent else None

    def ask(field: str | None) -> Decision:
        return decide(policy, reader, arguments.data, field, purpose, consent=consent)

    decision = ask(arguments.field)
    if arguments.json:
        fields = [arguments.field] if arguments.field else list(policy.collections[arguments.data].fields)
        print_json({
            "worker": reader.id, "collection": arguments.data, "field": arguments.field, "purpose": purpose,
            **_decision(decision), "fields": {field: _decision(ask(field)) for field in fields},
            "policy_revision": policy.revision, "policy_digest": policy.digest,
        })  # fmt: skip
    elif arguments.field:
        print(f"{decision.code}. {decision.detail}")
    else:
        print(explain(policy, reader, arguments.data, purpose, consent=consent))
    return 0 if decision.allowed else 1


def _load(path: Path) -> Policy:
    try:
        with path.open("rb") as file:
            source = file.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    return load(source, name=str(path))


def _only_purpose(reader: Worker) -> str:
    if len(reader.purposes) != 1:
        raise ConfigError(
            f"{reader.id} has the purposes {', '.join(sorted(reader.purposes))}", fix="choose one with --purpose"
        )
    return next(iter(reader.purposes))


def _print_problems(arguments: argparse.Namespace, found: tuple[Problem, ...]) -> int:
    if arguments.json:
        print_json({"ok": False, "problems": [asdict(problem) for problem in found]})
    else:
        print("\n".join(f"{arguments.file}:{problem}" for problem in found))
    return 1


def _summary(policy: Policy) -> Mapping[str, object]:
    return {"id": policy.document.id, "revision": policy.revision, "digest": policy.digest}


def _decision(decision: Decision) -> Mapping[str, object]:
    tier = None if decision.tier is None else decision.tier.label
    return {**asdict(decision), "tier": tier}
