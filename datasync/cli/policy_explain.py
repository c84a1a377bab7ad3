"""``datasync policy explain``: what a worker may read and why, of a file, of a subject's consents and of one row.

All of it is what the decisions and the rules themselves say, by the code that enforces them.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasync.cli.output import add_json, print_json
from datasync.cli.policy_file import load_file
from datasync.domain.clock import Instant
from datasync.domain.errors import ConfigError
from datasync.policy.compiled import Policy, Worker
from datasync.policy.decide import Judgement, worker
from datasync.policy.explain import Explanation, explain, explained, judge_row, row_lines
from datasync.policy.problems import nearest

Consent = Mapping[str, bool]


def configure(actions: Any) -> None:
    """Declare the action among those of ``datasync policy``."""
    question = actions.add_parser("explain", help="say what a worker may read of a collection, and why")
    question.add_argument("file", type=Path, metavar="FILE")
    question.add_argument("--worker", required=True)
    question.add_argument("--data", required=True, metavar="COLLECTION")
    question.add_argument("--field", help="only this field (default: each, and which rows)")
    question.add_argument("--purpose", help="why it is read (default: the worker's, if it has one only)")
    question.add_argument("--subject", help="ask for this subject, who said only what --consent says")
    question.add_argument(
        "--consent",
        action="append",
        default=[],
        metavar="PURPOSE=yes|no",
        help="what the subject said; may be repeated (default: consent is given, unless --subject is named)",
    )
    question.add_argument("--without-consent", action="store_true", help="as if the subject refused consent for it")
    question.add_argument(
        "--row", metavar="JSON", help="say what becomes of this row, given as the worker would see it"
    )
    add_json(question)
    question.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    policy = load_file(arguments.file)
    reader = worker(policy, arguments.worker)
    purpose = _known(policy, arguments.purpose or _only_purpose(reader))
    said = _said(policy, arguments, purpose)
    found = explained(policy, reader, arguments.data, arguments.field, purpose, consent=said)
    judged = None
    if arguments.row is not None and found.decision.allowed:
        judged = judge_row(policy, reader, arguments.data, purpose, _row(arguments.row), _now())
    if arguments.json:
        print_json(_document(policy, reader, arguments, purpose, said, found, judged))
    else:
        _print(policy, reader, arguments, purpose, said, found, judged)
    return 0 if found.decision.allowed and (judged is None or judged.rows) else 1


def _document(
    policy: Policy,
    reader: Worker,
    arguments: argparse.Namespace,
    purpose: str,
    said: Consent | None,
    found: Explanation,
    judged: Judgement | None,
) -> Mapping[str, object]:
    fields = [arguments.field] if arguments.field else list(policy.collections[arguments.data].fields)
    each = {field: explained(policy, reader, arguments.data, field, purpose, consent=said) for field in fields}
    return {
        "worker": reader.id,
        "collection": arguments.data,
        "field": arguments.field,
        "purpose": purpose,
        "subject": arguments.subject,
        "consent": said,
        **_explanation(found),
        "fields": {field: _explanation(one) for field, one in each.items()},
        "row": None if judged is None else asdict(judged),
        "policy_revision": policy.revision,
        "policy_digest": policy.digest,
    }


def _print(
    policy: Policy,
    reader: Worker,
    arguments: argparse.Namespace,
    purpose: str,
    said: Consent | None,
    found: Explanation,
    judged: Judgement | None,
) -> None:
    if arguments.field:
        print(f"{found.decision.code}. {found.text}")
    else:
        print(explain(policy, reader, arguments.data, purpose, consent=said))
    if said is not None:
        words = ", ".join(f"{'yes' if given else 'no'} to {name}" for name, given in said.items())
        print(f"\n{arguments.subject or 'the subject'} said {words or 'nothing'}")
    if judged is not None:
        print("\n" + "\n".join(row_lines(judged)))


def _explanation(found: Explanation) -> Mapping[str, object]:
    decision = found.decision
    tier = None if decision.tier is None else decision.tier.label
    return {**asdict(decision), "tier": tier, "nearest": None if found.nearest is None else asdict(found.nearest)}


def _said(policy: Policy, arguments: argparse.Namespace, purpose: str) -> Consent | None:
    """Return the subject's word by purpose; None when nothing is asked about it, so that it counts as given."""
    said = dict(_statement(policy, text) for text in arguments.consent)
    if arguments.without_consent:
        said[purpose] = False
    return said if said or arguments.subject is not None else None


def _statement(policy: Policy, text: str) -> tuple[str, bool]:
    purpose, _, word = text.partition("=")
    if word not in ("yes", "no"):
        raise ConfigError(f"--consent {text} says neither yes nor no", fix="write PURPOSE=yes or PURPOSE=no")
    return _known(policy, purpose), word == "yes"


def _known(policy: Policy, purpose: str) -> str:
    if purpose not in policy.purposes:
        raise ConfigError(f"the policy has no purpose {purpose}", fix=nearest(purpose, policy.purposes))
    return purpose


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--row is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise ConfigError("--row is no JSON object", fix='write {"column": value, ...}')
    return row


def _only_purpose(reader: Worker) -> str:
    if len(reader.purposes) != 1:
        raise ConfigError(
            f"{reader.id} has the purposes {', '.join(sorted(reader.purposes))}", fix="choose one with --purpose"
        )
    return next(iter(reader.purposes))


def _now() -> Instant:
    return Instant(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)
