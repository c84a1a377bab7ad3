"""Consent: what a subject did not allow is in no view, and a withdrawal holds from the next chunk on."""

import pytest

from datasync.domain.errors import NotFound
from datasync.domain.tiers import Tier
from datasync.views import consent
from datasync.views.read import read

OPT_IN, OPT_OUT, CONTRACT = "improve.train", "research.stats", "service.routing"
EDGE, PUBLIC = Tier.EDGE_PRIVATE, Tier.PUBLIC

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite", "postgres"])


@pytest.fixture
def speeds(edge, trip):
    """Two devices with a row each; what a purpose shows of them at the edge."""
    edge.capture("watch-1", [trip(speed=1.0)])
    edge.capture("watch-2", [trip(speed=2.0)])
    return lambda purpose: [row["speed"] for row in edge.rows("router", purpose)]


def test_a_contract_needs_no_consent_and_knows_no_withdrawal(edge, speeds):
    edge.consent("watch-1", EDGE, CONTRACT, given=False, at=1)
    assert speeds(CONTRACT) == [1.0, 2.0]


def test_opt_in_shows_only_the_devices_that_said_yes(edge, speeds):
    assert speeds(OPT_IN) == []
    edge.consent("watch-2", EDGE, OPT_IN, given=True, at=1)
    assert speeds(OPT_IN) == [2.0]


def test_the_consent_of_one_stream_of_a_device_counts_for_the_layers_joined_with_it(edge, speeds):
    edge.consent("watch-1", PUBLIC, OPT_IN, given=True, at=1)
    assert speeds(OPT_IN) == [1.0]


def test_the_latest_statement_of_any_of_a_devices_streams_counts(edge, speeds):
    edge.consent("watch-1", PUBLIC, OPT_IN, given=True, at=5)
    edge.consent("watch-1", EDGE, OPT_IN, given=False, at=6)
    assert speeds(OPT_IN) == []
    edge.consent("watch-1", PUBLIC, OPT_IN, given=True, at=7)
    assert speeds(OPT_IN) == [1.0]


def test_of_two_statements_of_one_moment_the_withdrawal_counts(edge, speeds):
    edge.consent("watch-1", PUBLIC, OPT_IN, given=True, at=5)
    edge.consent("watch-1", EDGE, OPT_IN, given=False, at=5)
    assert speeds(OPT_IN) == []


def test_consent_to_one_purpose_is_none_to_another(edge, speeds):
    edge.consent("watch-1", EDGE, OPT_OUT, given=True, at=1)
    assert speeds(OPT_IN) == []


def test_opt_out_in_the_cloud_shows_what_was_not_withdrawn(edge, cloud, trip):
    for device, speed in (("watch-1", 5.0), ("watch-2", 20.0)):
        edge.capture(device, [trip(speed=speed)])
    edge.forward_public(cloud)

    def bands():
        return [row["speed"] for row in cloud.rows("trainer", OPT_OUT)]

    first = edge.stream("watch-1", PUBLIC)
    assert bands() == ["0-10", "10-30"]
    cloud.consent_of(first, OPT_OUT, given=False, at=1)
    assert bands() == ["10-30"]
    cloud.consent_of(first, OPT_OUT, given=True, at=2)
    assert bands() == ["0-10", "10-30"]


def test_in_the_cloud_a_stream_speaks_for_itself_alone(edge, cloud, trip):
    for device, speed in (("watch-1", 5.0), ("watch-2", 20.0)):
        edge.capture(device, [trip(speed=speed)])
    edge.forward_public(cloud)
    cloud.consent_of(edge.stream("watch-2", PUBLIC), OPT_IN, given=True, at=1)
    assert [row["speed"] for row in cloud.rows("trainer", OPT_IN)] == ["10-30"]


def test_the_cursor_moves_past_what_was_not_consented_to(edge, speeds):
    edge.consent("watch-1", EDGE, OPT_IN, given=True, at=1)
    last = edge.chunks("router", OPT_IN)[-1].cursor
    assert last == edge.stored(EDGE)[-1].position
    edge.consent("watch-2", EDGE, OPT_IN, given=True, at=1)
    assert edge.chunks("router", OPT_IN, after=last) == []


def test_a_withdrawal_holds_from_the_next_chunk_on(edge, trip):
    for number in range(4):
        edge.capture("watch-1", [trip(speed=float(number))])
    edge.consent("watch-1", EDGE, OPT_IN, given=True, at=1)
    plan = edge.plan("router", OPT_IN)

    def next_chunk(after):
        with edge.database.read() as tx:
            return next(read(tx, edge.vault, plan, edge.now, after=after, chunk_rows=2))

    first = next_chunk(0)
    assert first.batch.column("speed").to_pylist() == [0.0, 1.0]
    edge.consent("watch-1", EDGE, OPT_IN, given=False, at=2)
    assert next_chunk(first.cursor).batch.num_rows == 0


SAID = [
    [],
    [(EDGE, True, 5)],
    [(PUBLIC, False, 5)],
    [(EDGE, True, 5), (PUBLIC, False, 6)],
    [(EDGE, False, 5), (PUBLIC, True, 6)],
    [(EDGE, False, 5), (PUBLIC, True, 5)],
]


@pytest.mark.parametrize("said", SAID)
def test_what_is_told_of_a_stream_is_what_a_view_does_and_names_the_statement_that_decides(edge, trip, said):
    edge.capture("watch-1", [trip(speed=1.0)])
    for tier, given, at in said:
        edge.consent("watch-1", tier, OPT_IN, given=given, at=at)
    with edge.database.read() as tx:
        stream = consent.stream_of(tx, "watch-1", "trips")
        told = {basis: consent.allowed(tx, basis, OPT_IN, stream) for basis in ("contract", "opt_in", "opt_out")}
        deciding = consent.deciding(tx, OPT_IN, stream)
    assert told["contract"]
    assert told["opt_in"] == bool(edge.rows("router", OPT_IN)) == (deciding is not None and deciding.given)
    assert told["opt_out"] == (deciding is None or deciding.given)
    if said:
        assert deciding.stream == edge.stream("watch-1", max(said, key=lambda each: (each[2], not each[1]))[0])


def test_a_subject_is_named_by_a_device_or_by_a_stream_that_is_here(edge, trip):
    edge.capture("watch-1", [trip()])
    stream = edge.stream("watch-1", PUBLIC)
    with edge.database.read() as tx:
        assert consent.stream_of(tx, stream, "trips") == stream
        for subject, collection in (("watch-2", "trips"), ("watch-1", "other"), (stream, "other")):
            with pytest.raises(NotFound):
                consent.stream_of(tx, subject, collection)
