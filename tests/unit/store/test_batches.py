"""Batches: layers of one capture stay together, within the limits of a message."""

from datasync.domain import limits
from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.domain.tiers import Tier
from datasync.store.batches import BATCH_SENT_BYTES_MAX, MESSAGE_FILL_BYTES, batches, pack
from datasync.store.segments import State, StoredSegment


def layer(
    identifier: int,
    tier: Tier = Tier.PUBLIC,
    captured: int = 1,
    seq_first: int = 0,
    collection: str = "steps",
    size_bytes: int = 10,
) -> StoredSegment:
    return StoredSegment(
        id=identifier,
        position=None,
        stream=StreamId(f"{tier:032x}"),
        collection=collection,
        tier=tier,
        seq_first=seq_first,
        seq_last=seq_first,
        rows=1,
        bytes=size_bytes,
        captured=HybridTime(captured, 0),
        time_min_ms=None,
        time_max_ms=None,
        policy_digest="d" * 64,
        meta={},
        hash="e" * 64,
        key_id="k" * 32,
        state=State.WAITING,
        checkpoint=1,
    )


def ids(groups: list[list[StoredSegment]]) -> list[list[int]]:
    return [[each.id for each in group] for group in groups]


def grouped(*ordered: StoredSegment) -> list[list[int]]:
    return ids(list(batches(ordered)))


def test_the_layers_of_one_capture_are_a_batch() -> None:
    assert grouped(layer(1), layer(2, Tier.EDGE_PRIVATE), layer(3, Tier.USER_PRIVATE)) == [[1, 2, 3]]


def test_another_time_number_or_collection_is_another_batch() -> None:
    higher = Tier.EDGE_PRIVATE
    assert grouped(layer(1), layer(2, higher, captured=2)) == [[1], [2]]
    assert grouped(layer(1), layer(2, higher, seq_first=1)) == [[1], [2]]
    assert grouped(layer(1), layer(2, higher, collection="other")) == [[1], [2]]
    assert grouped() == []


def test_a_batch_has_one_layer_of_a_tier() -> None:
    assert grouped(layer(1), layer(2), layer(3, Tier.EDGE_PRIVATE), layer(4)) == [[1], [2, 3], [4]]


def test_a_batch_that_fits_no_message_is_taken_apart() -> None:
    half = BATCH_SENT_BYTES_MAX // 2
    assert grouped(layer(1, size_bytes=half), layer(2, Tier.EDGE_PRIVATE, size_bytes=half)) == [[1, 2]]
    assert grouped(layer(1, size_bytes=half), layer(2, Tier.EDGE_PRIVATE, size_bytes=half + 1)) == [[1], [2]]


def test_messages_are_filled_with_whole_batches() -> None:
    third = MESSAGE_FILL_BYTES // 3
    whole = [[layer(number, size_bytes=third // 2), layer(number + 100, size_bytes=third // 2)] for number in range(4)]
    assert ids(pack(whole)) == [[0, 100, 1, 101, 2, 102], [3, 103]]


def test_a_batch_that_overfills_a_message_goes_alone() -> None:
    small, large = [layer(1)], [layer(2, size_bytes=2 * MESSAGE_FILL_BYTES)]
    assert ids(pack([small, large, small])) == [[1], [2], [1]]


def test_a_message_has_a_limited_number_of_segments() -> None:
    pairs = [[layer(number), layer(number, Tier.EDGE_PRIVATE)] for number in range(limits.SEGMENTS_PER_MESSAGE_MAX)]
    assert [len(message) for message in pack(pairs)] == [limits.SEGMENTS_PER_MESSAGE_MAX] * 2


def test_nothing_makes_no_message() -> None:
    assert pack([]) == []
