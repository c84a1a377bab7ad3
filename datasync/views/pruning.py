"""Segments that cannot have a visible row, told by their metadata, so that they are neither fetched nor decrypted.

A row is visible only where some allow matches. So a segment is passed over when every allow either fails on the
device's constants, or asks for times later than the segment's latest. Only what is certain counts: whatever is not
decided here is decided on the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlalchemy import ColumnElement, or_

from datasync.domain.clock import Instant
from datasync.domain.tiers import Tier
from datasync.policy.compiled import Policy, reader_scope
from datasync.policy.decide import ViewRules
from datasync.policy.predicate import ColumnTest, MetaTest, Predicate, bind_all
from datasync.policy.quantities import instant_us
from datasync.store import tables

SLACK_MS = 1_000
"""The times in metadata are rounded to milliseconds; this much is allowed for."""

_AT_LEAST = ("eq", "ge", "gt")


@dataclass(frozen=True, slots=True)
class Pruning:
    """What a view's allows, by their rules, ask of metadata.

    ``time`` is the column that segments give the bounds of, if it is seen.
    """

    digest: str
    allows: Mapping[str, Predicate]
    time: str | None

    def conditions(self, now: Instant) -> Sequence[ColumnElement[bool]]:
        """Return the SQL condition on the segments' times, if every allow asks for a time."""
        earliest = [_earliest_ms(allow, self.time, now) for allow in self.allows.values()]
        bounds = [bound for bound in earliest if bound is not None]
        if len(bounds) < len(earliest):
            return ()
        latest, split_by = tables.segments.c.time_max_ms, tables.segments.c.policy_digest
        return (or_(latest >= min(bounds) - SLACK_MS, latest.is_(None), split_by != self.digest),)

    def may_show(self, meta: Mapping[str, Any], now: Instant) -> bool:
        """Whether some allow can match rows of a device with these constants."""
        return None in self.failures(meta, now).values()

    def failures(self, meta: Mapping[str, Any], now: Instant) -> dict[str, int | None]:
        """Return for each rule that allows its first condition that no row of this device meets; None: it may match."""
        return {
            rule: next((index for index, test in enumerate(allow.tests) if not _may_hold(test, meta, now)), None)
            for rule, allow in self.allows.items()
        }


def pruning(policy: Policy, rules: ViewRules, base: Tier) -> Pruning:
    """Return what the view's allows ask of metadata.

    A segment's times are those of its own time column, so they say something of the rows only where the form that the
    worker sees is the base layer's own.
    """
    schema = policy.collections[rules.collection]
    scope = reader_scope(schema, rules.worker)
    allows = [rule for rule in policy.rules if rule.allows and rule.id in rules.rules]
    seen = schema.seen(schema.time, rules.worker.ceiling) if schema.time else None
    time = seen.field if seen is not None and seen.tier == base else None
    return Pruning(policy.digest, {rule.id: bind_all(rule.where, scope) for rule in allows}, time)


def _may_hold(test: object, meta: Mapping[str, Any], now: Instant) -> bool:
    return not isinstance(test, MetaTest) or test.holds(_NO_ROWS, meta, now, unknown=False)


def _earliest_ms(allow: Predicate, time: str | None, now: Instant) -> int | None:
    """Return the earliest time that an allow asks for; None when it asks for none."""
    tests = [test for test in allow.tests if isinstance(test, ColumnTest)]
    bounds = [_moment_ms(test.value, now) for test in tests if test.column == time and test.op in _AT_LEAST]
    return max(bounds, default=None)


def _moment_ms(value: Any, now: Instant) -> int:
    """Return a bound condition's moment: a distance from now in ms, or an Arrow timestamp in us."""
    return (instant_us(now) // 1_000 + value) if isinstance(value, int) else value.value // 1_000


_NO_ROWS = pa.record_batch({})
