"""What is captured under generated policies and read back, compared with the naive evaluator.

400 policies, in half of which every allow asks for times; under each, two devices with constants and words of consent
of their own capture up to three batches, and four workers read them for two purposes. So this compares all of a view:
segments ruled out by their times, by the constants and the consent of their device, layers joined, and what Arrow then
leaves. Nothing is committed.
"""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from datasync.domain.clock import HybridTime, Instant
from datasync.domain.errors import AccessDenied
from datasync.domain.ids import NodeName
from datasync.domain.tiers import Place
from datasync.policy.projection import to_batch
from datasync.security.vault import Vault
from datasync.store import consents, streams
from datasync.store.consents import Consent
from datasync.store.database import Database
from datasync.store.keys import SqlKeyShelf
from datasync.store.segments import State
from datasync.sync.capture import Captor
from datasync.views.plan import plan
from datasync.views.read import read
from tests.unit.policy import oracle
from tests.unit.policy.compared import cells_of, same_cells, subject_key, thorough
from tests.unit.policy.generated import METAS, NOW_MS, WORKERS, as_given, compiled, documents, rows_of, timed_documents

NOW = Instant(NOW_MS, 0)
DEVICES = ("watch-1", "watch-2")
SAID = st.dictionaries(st.sampled_from(["p", "q"]), st.booleans())


class Node:
    """A device's databases and vault; what is done in :meth:`trial` leaves nothing behind."""

    def __init__(self, folder):
        self.database = Database.open(f"sqlite:///{folder / 'node.db'}")
        self.keys = Database.open(f"sqlite:///{folder / 'keys.db'}")
        self.vault = Vault(b"k" * 32, SqlKeyShelf(self.keys), lambda count: bytes(count))

    def captor(self, device, meta):
        return Captor(NodeName(device), Place.DEVICE, self.vault, stream_key(device), subject_key, meta)

    def close(self):
        self.database.close()
        self.keys.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    made = Node(tmp_path_factory.mktemp("node"))
    yield made
    made.close()


def stream_key(device):
    def key(collection, tier, generation):
        seed = hashlib.sha256(f"{device}/{collection}/{tier}/{generation}".encode()).digest()
        return Ed25519PrivateKey.from_private_bytes(seed)

    return key


@st.composite
def captured(draw):
    """A policy, batches of rows by device, and each device's constants and words of consent."""
    document = draw(st.one_of(documents(), timed_documents()))
    batches = [(draw(st.sampled_from(DEVICES)), draw(rows_of(document, most=2))) for _ in range(3)]
    metas = {device: draw(st.sampled_from(METAS)) for device in DEVICES}
    return document, [each for each in batches if each[1]], metas, {device: draw(SAID) for device in DEVICES}


@thorough(400)
@given(captured())
def test_what_is_read_is_what_the_naive_evaluator_sees_of_what_was_captured(node, capture):
    document, batches, metas, said = capture
    policy = compiled(document)
    with node.database.write() as tx:
        trial = tx.begin_nested()
        for number, (device, rows) in enumerate(batches):
            batch = to_batch(policy.collections["c"], as_given(document, rows))
            node.captor(device, metas[device]).capture(tx, policy, "c", batch, HybridTime(NOW_MS + number, 0), NOW)
        for device, words in said.items():
            state(tx, device, words)
        for worker in WORKERS:
            for purpose in ("p", "q"):
                found = shown(tx, node, policy, worker, purpose)
                expected = visible(document, batches, metas, said, worker, purpose)
                same_cells(dict(enumerate(found)), dict(enumerate(expected)))
        trial.rollback()


def state(tx, device, words):
    held = streams.of_device(tx, device)
    for purpose, given_ in words.items() if held else ():
        consents.put(tx, Consent(held[0].stream, purpose, given_, HybridTime(NOW_MS, 0), b"", State.LOCAL))


def shown(tx, node, policy, worker, purpose):
    try:
        view = plan(policy, policy.workers[worker], "c", purpose)
    except AccessDenied:
        return []
    return [cells for chunk in read(tx, node.vault, view, NOW) for cells in cells_of(chunk.batch)]


def visible(document, batches, metas, said, worker, purpose):
    """Return the cells of every row that the worker sees, in the order in which they were captured."""
    found = []
    for device, rows in batches:
        answer = oracle.decide(document, worker, "c", None, purpose, said[device], None)
        if answer[0] == "ALLOW":
            found += oracle.view(document, worker, "c", rows, metas[device], subject_key, NOW_MS)[1].values()
    return found
