"""A node's metrics: what its effects counted, and what its shell sees of transactions and links.

Labels are bounded: kinds and codes are the program's own, collections the policy's, links those of the configuration.
"""

from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from datasync.nodes.node import Effects
from datasync.policy.compiled import Policy
from datasync.transport.link import Link


class Metrics:
    """The metrics of one shell. For the event loop's thread; ``turn_seconds`` for any."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up: set[str] = set()
        self._events = Counter("datasync_events", "What the node counted", ["kind", "what"], registry=registry)
        self._refused = Counter("datasync_policy_refused", "Policies refused, by code", ["code"], registry=registry)
        self._revision = Gauge(
            "datasync_policy_revision", "Revision of the policy in force, 0 without one", registry=registry
        )
        self._links = Gauge("datasync_link_up", "Whether a link is connected", ["link"], registry=registry)
        self.sent = Counter("datasync_packets", "Packets given to links", ["outcome"], registry=registry)
        self.failures = Counter("datasync_failures", "Transactions in which the node failed", registry=registry)
        self.turn_seconds = Histogram("datasync_turn_seconds", "Time of one transaction", registry=registry)
        self._troubles = _LinkTroubles()
        registry.register(self._troubles)

    def add(self, effects: Effects) -> None:
        """Add what the node counted in one transaction."""
        for (kind, what), number in effects.counts.items():
            self._events.labels(kind, what).inc(number)
        for code, number in effects.policies_refused.items():
            self._refused.labels(code).inc(number)

    def follow(self, policy: Policy | None) -> None:
        """Note which policy is in force."""
        self._revision.set(0 if policy is None else policy.revision)

    def link(self, name: str, up: bool) -> None:
        """Note that a link came up or went down."""
        (self.up.add if up else self.up.discard)(name)
        self._links.labels(name).set(up)

    def watch(self, name: str, link: Link) -> None:
        """Show a link's troubles from now on."""
        self._troubles.open[name] = link

    def forget(self, name: str, link: Link) -> None:
        """Keep what a link that is closed has counted."""
        self._troubles.open.pop(name, None)
        self._troubles.past.update({(name, code): number for code, number in link.counts.items()})


class _LinkTroubles(Collector):
    """What links met, by code: packets that were too large, connections that failed. Links count; here it is shown."""

    def __init__(self) -> None:
        self.open: dict[str, Link] = {}
        self.past: Tally[tuple[str, str]] = Tally()

    def collect(self) -> Iterator[CounterMetricFamily]:
        totals = self.past.copy()
        for name, link in self.open.items():
            totals.update({(name, code): number for code, number in link.counts.items()})
        family = CounterMetricFamily("datasync_link_troubles", "Troubles of links, by code", labels=["link", "code"])
        for labels, number in sorted(totals.items()):
            family.add_metric(labels, number)
        yield family
