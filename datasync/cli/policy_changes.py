"""``datasync policy diff|replay|schema``: what a change of a policy does before it is merged, and the file's format."""

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from datasync.cli.output import add_json, print_json, print_rows
from datasync.cli.policy_file import load_file
from datasync.domain.errors import ConfigError
from datasync.domain.limits import LOG_LINE_BYTES_MAX
from datasync.policy import json_schema
from datasync.policy.comparing.changes import Change
from datasync.policy.comparing.diff import diff, may_widen
from datasync.policy.comparing.effects import Effect
from datasync.policy.compiled import Policy
from datasync.policy.replay import Difference, read_lines, replay


def add_actions(actions: Any) -> None:
    """Declare the actions among those of ``datasync policy``."""
    compare = actions.add_parser("diff", help="say what a new policy widens and narrows; exit code 1 when it widens")
    compare.add_argument("old", type=Path, metavar="OLD")
    compare.add_argument("new", type=Path, metavar="NEW")
    compare.add_argument("--allow-widening", action="store_true", help="exit code 0 all the same: it was signed off")
    compare.set_defaults(run=_diff)
    again = actions.add_parser("replay", help="say which recorded decisions a policy would take differently")
    again.add_argument("log", type=Path, metavar="LOG", help="what `datasync audit show --json` printed; - for stdin")
    again.add_argument("--policy", type=Path, required=True, metavar="FILE")
    again.set_defaults(run=_replay)
    schema = actions.add_parser("schema", help="print the JSON Schema of policy files, for editors")
    schema.set_defaults(run=_schema)
    for action in (compare, again):
        add_json(action)


def _diff(arguments: argparse.Namespace) -> int:
    old, new = load_file(arguments.old), load_file(arguments.new)
    changes = diff(old, new)
    widens = may_widen(changes)
    counts = Counter(change.effect for change in changes)
    if arguments.json:
        print_json({
            "old": _summary(old), "new": _summary(new), "widens": widens,
            "counts": {effect.value: counts[effect] for effect in Effect if effect is not Effect.NOTHING},
            "changes": [change.to_data() for change in changes],
        })  # fmt: skip
    else:
        print_rows([(line,) for line in _lines(old, new, changes)])
    return 1 if widens and not arguments.allow_widening else 0


def _lines(old: Policy, new: Policy, changes: Iterable[Change]) -> Iterator[str]:
    """Yield the changes for people: under whom or what they concern, alike ones in one line."""
    yield f"{new.document.id}: revision {old.revision} to {new.revision}"
    counts: Counter[Effect] = Counter()
    for about, group in itertools.groupby(changes, key=lambda change: (change.scope, change.name, change.collection)):
        yield from ("", " ".join(part for part in about if part))
        alike: dict[tuple[Effect, tuple[str, ...]], list[Change]] = {}
        for change in group:
            counts[change.effect] += 1
            alike.setdefault((change.effect, change.reasons), []).append(change)
        for (effect, reasons), same in alike.items():
            yield f"  {effect.value:<7}  {_concerned(same)}{reasons[0]}"
            yield from (f"           and {reason}" for reason in reasons[1:])
    yield from ("", _verdict(counts))


def _concerned(changes: list[Change]) -> str:
    fields = dict.fromkeys(change.field for change in changes if change.field)
    purposes = dict.fromkeys(change.purpose for change in changes if change.purpose)
    parts = [", ".join(fields), f"for {', '.join(purposes)}" if purposes else ""]
    text = " ".join(part for part in parts if part)
    return f"{text}: " if text else ""


def _verdict(counts: Counter[Effect]) -> str:
    if not counts:
        return "nothing widens, nothing narrows"
    told = [f"{counts[effect]} {effect.value[:-1]}" for effect in (Effect.WIDENS, Effect.CHANGES, Effect.NARROWS)]
    unclear = "; what just changes counts as widening, for nobody proved otherwise" if counts[Effect.CHANGES] else ""
    return f"{', '.join(told)}{unclear}"


def _replay(arguments: argparse.Namespace) -> int:
    policy = load_file(arguments.policy)
    try:
        with sys.stdin.buffer if str(arguments.log) == "-" else arguments.log.open("rb") as file:
            differences = replay(policy, read_lines(_bounded(file)))
            return _print_as_data(differences) if arguments.json else _print_lines(differences)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(arguments.log)) from error


def _bounded(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines, none longer than is enough to see that it is too long."""
    while line := file.readline(LOG_LINE_BYTES_MAX + 1):
        yield line


def _print_lines(differences: Iterable[Difference]) -> int:
    entries = differing = 0
    for each in differences:
        entries += 1
        if each.differs:
            differing += 1
            was = each.recorded
            detail = f" ({each.answer.detail})" if each.answer.detail else ""
            about = f"{was.number}  {was.event} {was.worker} {was.collection} {was.purpose}"
            print_rows([(f"{about}: {'; '.join(each.differs)}{detail}",)])
    print(f"{entries} decisions, {differing} would differ")
    return 1 if differing else 0


def _print_as_data(differences: Iterable[Difference]) -> int:
    """Print one JSON object piece by piece: however long the log is, one difference is in memory."""
    entries = differing = 0
    print('{"differing": [', end="")
    for each in differences:
        entries += 1
        if each.differs:
            print(",\n" if differing else "\n", end="")
            print(json.dumps(each.to_data(), ensure_ascii=False), end="")
            differing += 1
    print(f'\n], "decisions": {entries}, "would_differ": {differing}}}')
    return 1 if differing else 0


def _schema(_: argparse.Namespace) -> int:
    print(json_schema.text(), end="")
    return 0


def _summary(policy: Policy) -> dict[str, Any]:
    return {"id": policy.document.id, "revision": policy.revision, "digest": policy.digest}
