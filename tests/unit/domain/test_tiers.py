"""Tiers compare by how private they are, and a place holds no more than its own."""

import pytest

from datasync.domain.tiers import Place, Tier


def test_tiers_are_ordered_from_public_to_private() -> None:
    assert Tier.PUBLIC < Tier.EDGE_PRIVATE < Tier.USER_PRIVATE
    assert list(Tier) == sorted(Tier)


def test_labels_are_those_of_the_policy_format_and_parse_back() -> None:
    assert [tier.label for tier in Tier] == ["public", "edge-private", "user-private"]
    assert [Tier.parse(tier.label) for tier in Tier] == list(Tier)


@pytest.mark.parametrize("label", ["", "Public", "edge_private", "PUBLIC", "private", "0"])
def test_any_other_label_is_refused_and_told_what_is_right(label: str) -> None:
    with pytest.raises(ValueError, match="public, edge-private, user-private"):
        Tier.parse(label)


def test_a_place_holds_its_own_tier_and_those_below() -> None:
    assert {place: place.highest_tier for place in Place} == {
        Place.DEVICE: Tier.USER_PRIVATE,
        Place.EDGE: Tier.EDGE_PRIVATE,
        Place.CLOUD: Tier.PUBLIC,
    }
