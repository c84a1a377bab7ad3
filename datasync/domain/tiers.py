"""Privacy tiers and the places that may hold them.

Tiers form a lattice, low to high: ``public < edge-private < user-private``. A place may hold data up to
its own tier, so what a place may see is always a comparison and never a list of cases.
"""

import enum
from typing import Self


class Tier(enum.IntEnum):
    """How private a datum is; comparable, higher is more private."""

    PUBLIC = 0
    EDGE_PRIVATE = 1
    USER_PRIVATE = 2

    @property
    def label(self) -> str:
        """The tier's name as policies and messages spell it, for example ``edge-private``."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def parse(cls, label: str) -> Self:
        """Return the tier with this label. Raises ValueError for any other text."""
        for tier in cls:
            if tier.label == label:
                return tier
        raise ValueError(f"unknown tier {label!r}: write one of {', '.join(tier.label for tier in cls)}")


class Place(enum.StrEnum):
    """Where a node runs and where its workers read."""

    DEVICE = "device"
    EDGE = "edge"
    CLOUD = "cloud"

    @property
    def highest_tier(self) -> Tier:
        """The most private tier that this place may ever hold."""
        match self:
            case Place.DEVICE:
                return Tier.USER_PRIVATE
            case Place.EDGE:
                return Tier.EDGE_PRIVATE
            case Place.CLOUD:
                return Tier.PUBLIC
