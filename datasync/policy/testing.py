"""The tests that a policy carries: run at every load, by the path that enforces.

A test asks about a field or a collection and expects a chain of transforms or a denial; or it gives rows as the worker
would see them (of documents, their merged values) and expects which are visible; or it says what a place must never
hold; or it names two operators and expects which fields move between their edges. Consent that a test does not mention
counts as given. In tests it is 2000-01-01T00:00:00Z, so that ``now-7d`` means the same in every run.
"""

from collections.abc import Callable
from typing import Any

from datasync.domain.clock import Instant
from datasync.domain.errors import AccessDenied, RecordError
from datasync.domain.tiers import Place, Tier
from datasync.policy import problems as codes
from datasync.policy.compiled import Collection, Policy, Worker
from datasync.policy.decide import ViewRules, decide, view_rules
from datasync.policy.document import Ask, Document, Expect, HandoverAsk, Never, PolicyTest
from datasync.policy.seen_rows import seen_row
from datasync.policy.tree import Path, Report
from datasync.policy.verdicts import moved, verdict

NOW = Instant(wall_ms=946_684_800_000, steady_ms=0)
"""What time it is in tests."""

_SHAPES = (
    "write ask and expect (allow or deny), or ask, rows and expect (visible), or never, or handover and expect (fields)"
)

Fail = Callable[[str, str], None]


def check_names(document: Document, report: Report) -> None:
    """Add a problem for each test that is of no known shape or names what is not there."""
    for index, test in enumerate(document.tests):
        path: Path = ("tests", index)
        if _shape(test) is None:
            report.add(codes.VALUE_INVALID, path, f"the test {test.name} asks nothing that can be answered", _SHAPES)
        if test.ask is not None:
            _check_ask((*path, "ask"), test.ask, document, report)
        if test.handover is not None:
            _check_handover((*path, "handover"), test.handover, document, report)
        for number, rule in enumerate((test.expect and test.expect.by) or ()):
            known = [each.id for each in (document.handover if test.handover else document.rules)]
            report.expect_known((*path, "expect", "by", number), "rule", rule, known)
        for number, name in enumerate((test.expect and test.expect.allow) or ()):
            report.expect_known((*path, "expect", "allow", number), "transform", name, document.transforms)


def run(policy: Policy, report: Report) -> None:
    """Run the tests of a compiled policy; each that fails is a problem that says what was expected and what came."""
    for index, test in enumerate(policy.document.tests):

        def fail(expected: str, got: str, path: Path = ("tests", index), name: str = test.name) -> None:
            message = f"the test {name!r} fails: expected {expected}, got {got}"
            report.add(codes.TEST_FAILED, path, message, "mend the policy or the test")

        match _shape(test), test:
            case "never", PolicyTest(never=Never() as never):
                _run_never(policy, never, fail)
            case "rows", PolicyTest(ask=Ask() as ask, rows=tuple(rows), expect=Expect() as expect):
                _run_rows(policy, ask, rows, expect, fail)
            case "handover", PolicyTest(handover=HandoverAsk() as asked, expect=Expect() as expect):
                _run_handover(policy, asked, expect, fail)
            case "ask", PolicyTest(ask=Ask() as ask, expect=Expect() as expect):
                _run_ask(policy, ask, expect, fail)
            case _:
                raise AssertionError(f"the test {test.name} passed the check of shapes")


def _shape(test: PolicyTest) -> str | None:
    """Return which kind of test this is: never, rows, ask or handover; None for none."""
    parts = test.model_fields_set - {"name"}
    answers = (test.expect.model_fields_set if test.expect else set()) - {"by"}
    if parts == {"never"}:
        return "never"
    if parts == {"handover", "expect"} and answers == {"fields"}:
        return "handover"
    if parts == {"ask", "rows", "expect"} and answers == {"visible"} and test.ask and test.ask.field is None:
        return "rows"
    if parts == {"ask", "expect"} and answers in ({"allow"}, {"deny"}):
        return "ask"
    return None


def _check_ask(path: Path, ask: Ask, document: Document, report: Report) -> None:
    report.expect_known((*path, "worker"), "worker", ask.worker, document.workers)
    report.expect_known((*path, "purpose"), "purpose", ask.purpose, document.purposes)
    for purpose in ask.consent:
        report.expect_known((*path, "consent", purpose), "purpose", purpose, document.purposes, key=True)
    if report.expect_known((*path, "data"), "collection", ask.data, document.collections) and ask.field is not None:
        report.expect_known((*path, "field"), "field", ask.field, document.collections[ask.data].fields)


def _check_handover(path: Path, ask: HandoverAsk, document: Document, report: Report) -> None:
    report.expect_known((*path, "from"), "operator", ask.source, document.operators)
    report.expect_known((*path, "to"), "operator", ask.to, document.operators)
    report.expect_known((*path, "data"), "collection", ask.data, document.collections)


def _run_handover(policy: Policy, ask: HandoverAsk, expect: Expect, fail: Fail) -> None:
    found = verdict(policy, ask.source, ask.to, ask.data)
    got, wanted = moved(found, policy.collections[ask.data]), sorted(expect.fields or ())
    if got != wanted:
        fail(f"fields {wanted}", f"fields {got} ({found.action}, by {found.rule or 'no rule'})")
    elif expect.by is not None and {found.rule} != set(expect.by):
        fail(f"by {sorted(expect.by)}", f"by {found.rule or 'no rule'}")


def _run_ask(policy: Policy, ask: Ask, expect: Expect, fail: Fail) -> None:
    decision = decide(
        policy, policy.workers[ask.worker], ask.data, ask.field, ask.purpose, consent=_consent(policy, ask)
    )
    got = f"allow {list(decision.chain)}" if decision.allowed else f"deny {decision.code}"
    wanted = f"allow {list(expect.allow)}" if expect.allow is not None else f"deny {expect.deny}"
    if got != wanted:
        fail(wanted, f"{got} ({decision.detail})")
    elif expect.by is not None and set(decision.rules) != set(expect.by):
        fail(f"by {sorted(expect.by)}", f"by {sorted(decision.rules)} ({decision.detail})")


def _run_never(policy: Policy, never: Never, fail: Fail) -> None:
    place = Place(never.place)
    tiers = {Tier.parse(label) for label in never.tier}
    for collection in policy.collections.values():
        for tier in collection.tiers():
            for form in collection.forms_at(tier) if tier in tiers and tier <= place.highest_tier else ():
                fail(f"no {tier.label} data at the {place}", f"{collection.name}.{form.field}")


def _run_rows(policy: Policy, ask: Ask, rows: tuple[dict[str, Any], ...], expect: Expect, fail: Fail) -> None:
    worker = policy.workers[ask.worker]
    wanted = f"visible {list(expect.visible or ())}"
    decision = decide(policy, worker, ask.data, None, ask.purpose, consent=_consent(policy, ask))
    if not decision.allowed:
        return fail(wanted, f"deny {decision.code} ({decision.detail})")
    try:
        view = view_rules(policy, worker, ask.data, ask.purpose)
        visible, used = _try_rows(policy.collections[ask.data], worker, view, rows)
    except (AccessDenied, RecordError) as error:
        return fail(wanted, error.detail)
    if visible != sorted(expect.visible or ()):
        fail(wanted, f"visible {visible}")
    elif expect.by is not None and used != set(expect.by):
        fail(f"by {sorted(expect.by)}", f"by {sorted(used)}")
    return None


def _try_rows(
    collection: Collection, worker: Worker, view: ViewRules, rows: tuple[dict[str, Any], ...]
) -> tuple[list[int], set[str]]:
    """Return which rows are visible, and the rules that matched any of them."""
    visible, used = [], set()
    for index, row in enumerate(rows):
        try:
            batch, meta = seen_row(collection, worker, row, NOW)
        except RecordError as error:
            raise RecordError(f"row {index}: {error.detail}", fix=error.fix) from None
        used |= set(view.matching(batch, meta, NOW))
        if view.mask(batch, meta, NOW)[0].as_py():
            visible.append(index)
    return visible, used


def _consent(policy: Policy, ask: Ask) -> dict[str, bool]:
    return {purpose: ask.consent.get(purpose, True) for purpose in policy.purposes}
