"""What a simulated world is made of: processes, how unreliable they are, and what devices' programs and subjects do."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from datasync.domain.ids import NodeName
from datasync.nodes.node import Input, Node
from datasync.security.vault import Vault
from datasync.store.database import Database


class Crash(Exception):
    """The simulated process died before its commit."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How unreliable the world is; probabilities for each message or each turn of a node."""

    loss: float
    duplication: float
    delay_ms_max: int
    crash: float

    @classmethod
    def drawn(cls, chance: random.Random) -> "Faults":
        """Return faults of a strength that is itself drawn."""
        loss, duplication = chance.choice([0, 0.05, 0.3]), chance.choice([0, 0.1, 0.5])
        return cls(loss, duplication, chance.choice([5, 50, 400]), chance.choice([0, 0.01, 0.04]))


NO_FAULTS = Faults(0, 0, 5, 0)


@dataclass(slots=True)
class Process:
    """One node's process: its databases outlive it."""

    name: NodeName
    build: Callable[[], Node]
    database: Database
    keys: Database
    vault: Vault
    skew_ms: int
    fixed_links: tuple[str, ...]
    node: Node | None = None
    inbox: list[Input] = field(default_factory=list)
    links: set[str] = field(default_factory=set)
    turn_at_ms: int | None = None
    life: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """A subject's wish that what is recorded until then be erased; ``everything``: what is private to the user, too."""

    rows: int
    everything: bool
    all_collections: bool


@dataclass(slots=True)
class Walk:
    """What one device's program does: record its rows in order, and move about; ``wishes`` are those that are durable.

    Rows before ``first_row`` are erased, those that are private to the user before ``first_private``.
    """

    process: Process
    rows: int
    next_row: int = 0
    wishes: list[Wish] = field(default_factory=list)

    @property
    def first_row(self) -> int:
        """The first row that is to be found at edges and, its public layer, in the cloud."""
        return max((each.rows for each in self.wishes), default=0)

    @property
    def first_private(self) -> int:
        """The first row that is to be found on the device."""
        return max((each.rows for each in self.wishes if each.everything), default=0)

    @property
    def generations(self) -> list[range]:
        """The rows of each generation of the device's streams: each erasure ends one."""
        bounds = [0, *(each.rows for each in self.wishes), self.rows]
        return [range(first, end) for first, end in itertools.pairwise(bounds)]
