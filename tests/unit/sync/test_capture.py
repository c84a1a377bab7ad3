"""Capture: rows become signed segments, and what a place may not hold is never in its store."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from sqlalchemy import Connection

from datasync.domain import limits
from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import RecordError
from datasync.domain.ids import node_name
from datasync.domain.tiers import Place, Tier
from datasync.policy.compiled import Policy
from datasync.policy.projection import to_batch
from datasync.protocol import segment
from datasync.protocol.segment import Segment
from datasync.security.identity import Identity
from datasync.security.vault import Vault
from datasync.store import segments
from datasync.store.segments import State, StoredSegment
from datasync.sync.capture import Captor, Meta, own_streams, recorded

WATCH = node_name("watch-1")
STAMP = HybridTime(1_800_000_000_000, 1)
AT = datetime(2026, 11, 24, 10, 17, 30, 123_456, UTC)


@pytest.fixture
def captor(vault: Vault, watch: Identity) -> Captor:
    meta: Meta = {"region": "melbourne", "model": "x1", "floor": 3}
    return Captor(WATCH, Place.DEVICE, vault, watch.stream_key, watch.pseudonym_key, meta)


@pytest.fixture
def gateway(vault: Vault, watch: Identity) -> Captor:
    return Captor(WATCH, Place.EDGE, vault, watch.stream_key, watch.pseudonym_key, {})


def rows(policy: Policy, *labels: str, collection: str = "steps") -> pa.RecordBatch:
    fields = policy.collection(collection).fields
    values = {"who": "ann", "at": AT, "number": 7, "secret": "canary"}
    said = [{name: label if name == "label" else values[name] for name in fields} for label in labels]
    return to_batch(policy.collection(collection), said)


def stored(tx: Connection, vault: Vault, tier: Tier, collection: str = "steps") -> list[tuple[StoredSegment, Segment]]:
    """Return the stored segments of one stream, and what its key signed."""
    stream = own_streams(tx, WATCH, collection)[tier]
    found = segments.of_stream(tx, stream.stream)
    bodies = segments.bodies(tx, [each.id for each in found])
    opened = [vault.decrypt(each.stream, each.key_id, each.seq_first, bodies[each.id]) for each in found]
    return list(zip(found, map(segment.parse, opened), strict=True))


def test_the_layers_of_a_batch_share_their_numbers_and_the_next_batch_goes_on(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    assert captor.capture(tx, policy, "steps", rows(policy, "a", "b", "c"), STAMP, now) == (0, 2)
    assert captor.capture(tx, policy, "steps", rows(policy, "d"), STAMP, now) == (3, 3)
    for tier in Tier:
        numbers = [(each.seq_first, each.seq_last, each.rows) for each, _ in stored(tx, vault, tier)]
        assert numbers == [(0, 2, 3), (3, 3, 1)]
    assert recorded(tx, WATCH, "steps") == 4
    assert recorded(tx, WATCH, "other") == 0


def test_collections_count_by_themselves(tx: Connection, captor: Captor, policy: Policy, now: Instant) -> None:
    captor.capture(tx, policy, "steps", rows(policy, "a", "b"), STAMP, now)
    assert captor.capture(tx, policy, "other", rows(policy, "x", collection="other"), STAMP, now) == (0, 0)


def test_each_layer_holds_its_own_tier_and_nothing_above(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    captor.capture(tx, policy, "steps", rows(policy, "a", "b"), STAMP, now)
    columns = {tier: segment.rows(stored(tx, vault, tier)[0][1])[0].schema.names for tier in Tier}
    assert columns == {
        Tier.PUBLIC: ["at", "label"],
        Tier.EDGE_PRIVATE: ["who", "at", "number"],
        Tier.USER_PRIVATE: ["who", "secret"],
    }
    private = segment.rows(stored(tx, vault, Tier.EDGE_PRIVATE)[0][1])[0].to_pylist()
    assert all(row["who"] != "ann" for row in private)


def test_a_batch_of_which_all_rows_are_lifted_still_has_its_lower_layer(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    captor.capture(tx, policy, "steps", rows(policy, "hush", "hush"), STAMP, now)
    ((public, made),) = stored(tx, vault, Tier.PUBLIC)
    assert (public.seq_first, public.seq_last, public.rows) == (0, 1, 0)
    assert segment.rows(made)[0].num_rows == 0
    captor.capture(tx, policy, "steps", rows(policy, "a", "hush", "b"), STAMP, now)
    assert list(segment.rows(stored(tx, vault, Tier.PUBLIC)[1][1])[1]) == [2, 4]


def test_only_what_may_leave_the_device_waits_to_be_sent(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    captor.capture(tx, policy, "steps", rows(policy, "a"), STAMP, now)
    states = {tier: [each.state for each, _ in stored(tx, vault, tier)] for tier in Tier}
    assert states == {
        Tier.PUBLIC: [State.WAITING],
        Tier.EDGE_PRIVATE: [State.WAITING],
        Tier.USER_PRIVATE: [State.LOCAL],
    }


def test_a_gateway_keeps_nothing_of_the_users_alone_and_owes_the_cloud_what_is_public(
    tx: Connection, gateway: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    assert gateway.capture(tx, policy, "steps", rows(policy, "a", "b"), STAMP, now) == (0, 1)
    assert set(own_streams(tx, WATCH, "steps")) == {Tier.PUBLIC, Tier.EDGE_PRIVATE}
    assert [each.state for each, _ in stored(tx, vault, Tier.PUBLIC)] == [State.WAITING]
    assert [each.state for each, _ in stored(tx, vault, Tier.EDGE_PRIVATE)] == [State.LOCAL]
    assert gateway.capture(tx, policy, "steps", rows(policy, "c"), STAMP, now) == (2, 2)


def test_every_segment_is_chained_to_the_one_before_in_its_stream(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    for label in ("a", "b", "c"):
        captor.capture(tx, policy, "steps", rows(policy, label), STAMP, now)
    for tier in Tier:
        made = stored(tx, vault, tier)
        hashes = [each.hash for each, _ in made]
        assert [signed.header.previous for _, signed in made] == ["", *hashes[:-1]]
        assert hashes == [signed.hash for _, signed in made]


def test_a_captor_that_is_made_anew_goes_on_with_numbers_and_chain(
    tx: Connection, captor: Captor, vault: Vault, watch: Identity, policy: Policy, now: Instant
) -> None:
    captor.capture(tx, policy, "steps", rows(policy, "a", "b"), STAMP, now)
    again = Captor(WATCH, Place.DEVICE, vault, watch.stream_key, watch.pseudonym_key, {})
    assert again.capture(tx, policy, "steps", rows(policy, "c"), STAMP, now) == (2, 2)
    first, second = stored(tx, vault, Tier.PUBLIC)
    assert second[1].header.previous == first[0].hash


def test_a_layer_tells_its_own_times_and_hides_what_it_hides(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    captor.capture(tx, policy, "steps", rows(policy, "a"), STAMP, now)
    exact_ms = int(AT.timestamp() * 1_000)
    times = {tier: (each.time_min_ms, each.time_max_ms) for tier in Tier for each, _ in stored(tx, vault, tier)}
    assert times[Tier.EDGE_PRIVATE] == (exact_ms, exact_ms)
    assert times[Tier.PUBLIC] == (exact_ms // 3_600_000 * 3_600_000,) * 2
    assert times[Tier.USER_PRIVATE] == (None, None)


def test_rows_without_a_time_have_no_bounds(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    captor.capture(tx, policy, "steps", to_batch(policy.collection("steps"), [{"label": "a"}]), STAMP, now)
    assert stored(tx, vault, Tier.EDGE_PRIVATE)[0][0].time_min_ms is None


def test_constants_go_with_the_layers_that_may_have_them(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    captor.capture(tx, policy, "steps", rows(policy, "a"), STAMP, now)
    meta = {tier: dict(stored(tx, vault, tier)[0][0].meta) for tier in Tier}
    everything = {"region": "melbourne", "model": "x1"}
    assert meta == {
        Tier.PUBLIC: {"region": "melbourne"},
        Tier.EDGE_PRIVATE: everything,
        Tier.USER_PRIVATE: everything,
    }


def test_nothing_is_in_the_store_in_the_clear(
    tx: Connection, captor: Captor, vault: Vault, policy: Policy, now: Instant
) -> None:
    captor.capture(tx, policy, "steps", rows(policy, "a"), STAMP, now)
    everything = [bytes(row[1]) for row in tx.exec_driver_sql("SELECT id, body FROM bodies")]
    assert len(everything) == 3
    assert all(b"canary" not in body and b"label" not in body for body in everything)
    signed = stored(tx, vault, Tier.USER_PRIVATE)[0][1].data
    assert b"secret" in signed


@pytest.mark.parametrize("count", [0, limits.SEGMENT_ROWS_MAX + 1])
def test_a_batch_without_rows_or_with_too_many_is_refused(
    tx: Connection, captor: Captor, policy: Policy, now: Instant, count: int
) -> None:
    schema = policy.collection("steps").input_schema
    batch = pa.RecordBatch.from_arrays([pa.nulls(count, field.type) for field in schema], schema=schema)
    with pytest.raises(RecordError, match=f"not {count}"):
        captor.capture(tx, policy, "steps", batch, STAMP, now)
    assert own_streams(tx, WATCH, "steps") == {}
