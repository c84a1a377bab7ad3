"""What is checked of the model: bounded worlds in which the invariants hold, and mutants of the protocol.

A mutant takes away one of the protocol's precautions, by a switch in ``handover.pml``, which breaks an invariant. That
it is caught shows that the invariant says something, and that the precaution is needed.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Case:
    """A model of some size: settings of ``handover.pml``, and a mutant's switch. ``bits``: search with bitstate."""

    name: str
    edges: int = 3
    tokens: int = 3
    rows: int = 1
    public: int = 0
    preparations: int = 1
    losses: int = 0
    mutant: str | None = None
    bits: int | None = None
    memory_mb: int = 4_000
    seconds: int = 600

    @property
    def switches(self) -> list[str]:
        """What the preprocessor is told."""
        sizes = {
            "EDGES": self.edges,
            "TOKENS": self.tokens,
            "ROWS": self.rows,
            "PUBLIC": self.public,
            "PREPARATIONS": self.preparations,
            "LOSSES": self.losses,
        }
        return [f"-D{name}={size}" for name, size in sizes.items()] + ([f"-D{self.mutant}"] if self.mutant else [])


@dataclass(frozen=True, slots=True)
class Mutant:
    """A protocol without one of its precautions, and the invariant that this breaks."""

    what: str
    breaks: str
    case: Case = field(default_factory=lambda: Case("mutant"))


QUICK = [
    Case("three edges, three attaches, a private row", preparations=0),
    Case("two edges, three attaches, a public row", edges=2, public=1, preparations=0),
    Case("three edges, two attaches, a private row, a preparation", tokens=2),
    Case("two edges, two attaches, a public row, a preparation, a lost disk", edges=2, tokens=2, public=1, losses=1),
]

FULL = [
    Case("two edges, three attaches, a private row, a preparation", edges=2),
    Case("two edges, three attaches, a private and a public row", edges=2, rows=2, public=2, preparations=0),
    Case("two edges, three attaches, a public row, a preparation", edges=2, public=1),
    Case(
        "two edges, three attaches, a public row, a preparation, a lost disk",
        edges=2,
        public=1,
        losses=1,
        bits=33,
        seconds=300,
    ),
    Case(
        "three edges, three attaches, a private and a public row, two preparations",
        rows=2,
        public=2,
        preparations=2,
        bits=33,
        seconds=300,
    ),
    Case("three edges, four attaches, a private row", tokens=4, preparations=0, bits=33, seconds=300),
]

MUTANTS = {
    "sign-first": Mutant(
        "the device signs before its epoch is durable", "I2", Case("", preparations=0, mutant="MUTANT_SIGN_FIRST")
    ),
    "no-edge-id": Mutant(
        "an attach names no edge", "I2", Case("", edges=2, preparations=0, mutant="MUTANT_NO_EDGE_ID")
    ),
    "no-nonce": Mutant(
        "an attach answers no nonce", "I1", Case("", edges=2, tokens=2, losses=1, mutant="MUTANT_NO_NONCE")
    ),
    "any-epoch": Mutant(
        "an edge without history takes any epoch",
        "I1",
        Case("", edges=2, tokens=2, losses=1, mutant="MUTANT_ANY_EPOCH"),
    ),
    "thaw": Mutant("a source resumes by a timer", "I1", Case("", edges=2, preparations=0, mutant="MUTANT_THAW")),
    "free-at-durable": Mutant(
        "the device frees a public row when its edge has it, not when the cloud has",
        "I3",
        Case("", edges=2, tokens=2, public=1, preparations=0, mutant="MUTANT_FREE_AT_DURABLE"),
    ),
    "ack-first": Mutant(
        "an edge acknowledges before its commit",
        "I3",
        Case("", edges=2, tokens=2, preparations=0, mutant="MUTANT_ACK_FIRST"),
    ),
    "readable-ahead": Mutant(
        "what is sent ahead of the device can be read",
        "I4",
        Case("", edges=2, tokens=2, mutant="MUTANT_READABLE_AHEAD"),
    ),
    "keep-keys": Mutant(
        "an edge keeps the keys of what it erased",
        "I5",
        Case("", edges=2, preparations=0, mutant="MUTANT_KEEP_KEYS"),
    ),
    "forget-sources": Mutant(
        "an edge that is attached to again waits no longer for an older source",
        "I3",
        Case("", edges=2, tokens=4, preparations=0, mutant="MUTANT_FORGET_SOURCES"),
    ),
    "forget-keys": Mutant(
        "the device forgets the key under which an edge that it did not reach again still seals",
        "I2",
        Case("", edges=2, tokens=4, preparations=0, mutant="MUTANT_FORGET_KEYS"),
    ),
}
