"""Reading views: decrypted, joined by layers, with the rules' conditions and the subjects' consent, into Arrow.

The rows are those that the device has just sent, 1000 to a segment; who measures has read the view once before, so that
plans are made. A rate counts the rows that the worker gets.
"""

from collections.abc import Callable, Iterator

from datasync.demo.recordings import COLLECTION
from datasync.demo.run import policy_source
from datasync.demo.town import Node
from datasync.nodes.shell import system_clock
from datasync.policy import decide
from datasync.policy.loading import load
from datasync.views.plan import plan
from datasync.views.read import read
from tests.benchmarks.figures import seconds_each
from tests.benchmarks.site import Site

READS = 3
PURPOSE, COACHING = "improve.train", "service.coaching"


def rates(site: Site) -> Iterator[tuple[str, list[float]]]:
    """Read each view, and give its key with its rates in rows/s."""
    edge, cloud = site.edge, site.cloud
    yield "view.http", _rates(lambda: _over_http(edge, "edge-trainer", PURPOSE))
    yield "view.in_process", _in_process(edge, "edge-trainer", PURPOSE)
    yield "view.http.all", _rates(lambda: _over_http(edge, "edge-coach", COACHING))
    yield "view.http.cloud", _rates(lambda: _over_http(cloud, "cloud-trainer", PURPOSE))


def _over_http(node: Node, worker: str, purpose: str) -> int:
    return int(node.view(worker, COLLECTION, purpose).num_rows)


def _in_process(node: Node, worker: str, purpose: str) -> list[float]:
    policy = load(policy_source())
    compiled = plan(policy, decide.worker(policy, worker), COLLECTION, purpose)
    with node.store() as (database, vault):

        def rows() -> int:
            with database.read() as tx:
                return sum(chunk.batch.num_rows for chunk in read(tx, vault, compiled, system_clock()))

        return _rates(rows)


def _rates(rows: Callable[[], int]) -> list[float]:
    count = rows()
    return [count / seconds for seconds in seconds_each(rows, 1, READS)]
