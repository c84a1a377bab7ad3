"""Models and erasures, from the view to the receipt: what was trained on a subject goes, is marked, or is reported."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from datasync.domain.errors import BodyDamaged, KeyUnavailable
from datasync.domain.ids import StreamId
from datasync.nodes import erasing_models
from datasync.nodes.node import Activate, ConsentInput, Erase
from datasync.policy.fates import Fate
from datasync.policy.loading import load
from datasync.store import audit, erasures, models, streams
from datasync.store.keys import SqlKeyShelf
from datasync.store.models import ModelId
from tests.unit.api.serving import Api
from tests.unit.nodes.served import served
from tests.unit.nodes.test_erasing import erase, receipts
from tests.unit.nodes.wire import CBD, CLOUD, POLICY, WATCH, Wire

CANARY = b"weights that learned what ann did"
WORKERS = b"""
  learner: {place: edge, operator: acme, kind: train, clearance: edge-private, purposes: [test.run]}
  scholar: {place: edge, operator: acme, kind: train, clearance: public, purposes: [test.run]}
rules:
  - {id: R2, effect: allow, to: {worker: learner}, data: steps, fields: [number, label]}
  - {id: R3, effect: allow, to: {worker: scholar}, data: steps, fields: [label]}"""


def policy(revision: int, **fates: str) -> bytes:
    source = POLICY.replace(b"revision: 1\n", b"revision: %d\n" % revision).replace(b"\nrules:", WORKERS, 1)
    said = ", ".join(f"{name.replace('_', '-')}: {fate}" for name, fate in fates.items())
    return source + f"erasure: {{shred: immediately, compact: 24h, models: {{{said}}}}}\n".encode()


def follow(net: Wire, revision: int, **fates: str) -> None:
    net.give(CLOUD, Activate(2, policy(revision, **fates)))
    net.wait(500)


@pytest.fixture
def edge(net: Wire) -> Iterator[Api]:
    """The API of the edge that holds three rows of the device; two workers train there."""
    follow(net, 2, edge_private="delete", public="report")
    net.record(1, 2, 3)
    with asyncio.Runner() as runner:
        api = served(net, CBD, runner)
        for worker in ("learner", "scholar"):
            api.node.enrol(worker)
        yield api
        api.close()


def cursor(edge: Api, worker: str) -> int:
    answer = edge.get("/v1/views/steps?purpose=test.run&format=jsonl", token=f"token-of-{worker}")
    assert answer.body.count(b"\n") == 3
    return int(answer.headers["X-Datasync-Cursor"])


def trained(edge: Api, worker: str, parent: str | None = None) -> ModelId:
    """Let a worker read what there is, and register a model."""
    asked = {"name": "stride", "views": f"steps:test.run:0:{cursor(edge, worker)}"} | (
        {"parent": parent} if parent else {}
    )
    return _registered(edge, worker, asked)


def descended(edge: Api, worker: str, parent: str) -> ModelId:
    """Let a worker register what it made of another model alone."""
    return _registered(edge, worker, {"name": "pruned", "parent": parent})


def _registered(edge: Api, worker: str, asked: dict[str, str]) -> ModelId:
    headers = {"Content-Type": "application/octet-stream"}
    answer = edge.post("/v1/models", token=f"token-of-{worker}", params=asked, data=CANARY, headers=headers)
    assert answer.status == 201, answer.body
    return ModelId(answer.json["model"])


def states(edge: Api) -> dict[str, str]:
    return {each["model"]: each["state"] for each in edge.get("/v1/admin/models").json["models"]}


def told(net: Wire) -> dict[str, tuple[int, int, int]]:
    """Return what the edge's receipts say at the device of models deleted, to be retrained and reported, by stream."""
    return {
        stream: (each.models_deleted, each.models_retrain, each.models_reported)
        for (stream, place), each in receipts(net).items()
        if place == CBD
    }


def test_a_model_is_deleted_or_reported_by_its_label_and_the_receipts_say_so(net: Wire, edge: Api) -> None:
    private, public = trained(edge, "learner"), trained(edge, "scholar")
    by_tier = {each.tier.label: each.stream for each in _streams(net)}
    erase(net)
    assert states(edge) == {private: "deleted", public: "current"}
    assert told(net) == {by_tier["public"]: (1, 0, 1), by_tier["edge-private"]: (1, 0, 0)}
    listed = {each["model"]: each for each in edge.get("/v1/admin/models").json["models"]}
    assert listed[private]["key_destroyed"]
    assert (listed[public]["streams_erased"], listed[public]["erased_ms"] is not None) == (1, True)
    assert edge.get(f"/v1/models/{private}/artefact", token="token-of-learner").problem() == (410, "MODEL_GONE")
    assert edge.get(f"/v1/models/{public}/artefact", token="token-of-scholar").body == CANARY


def _streams(net: Wire) -> list[streams.Stream]:
    with net.nodes[WATCH].database.read() as tx:
        return streams.of_device(tx, WATCH)


def test_a_model_to_be_retrained_is_marked_and_still_served(net: Wire, edge: Api) -> None:
    model = trained(edge, "learner")
    follow(net, 3, edge_private="retrain")
    erase(net)
    assert states(edge) == {model: "retrain"}
    answer = edge.get(f"/v1/models/{model}/artefact", token="token-of-learner")
    assert (answer.body, answer.headers["X-Datasync-Model-State"]) == (CANARY, "retrain")
    assert set(told(net).values()) == {(0, 1, 0)}


def test_no_readable_copy_of_a_deleted_model_is_left_in_any_file(net: Wire, edge: Api, folder: Path) -> None:
    model = trained(edge, "learner")
    before = _copies(net, model)
    backup = shutil.copytree(folder, folder / "backup", ignore=shutil.ignore_patterns("backup"))
    assert list(_opened(net, model, before)) == [CANARY], "a search that cannot find would prove nothing"
    assert any(before[0][:32] in path.read_bytes() for path in backup.rglob("*.db*"))
    shutil.rmtree(backup)
    erase(net)
    assert not list(_opened(net, model, before))
    for name in net.nodes:
        net.nodes[name].database.checkpoint()
        net.nodes[name].keys.checkpoint()
    for path in folder.rglob("*.db*"):
        content = path.read_bytes()
        assert CANARY not in content
        assert before[0][:32] not in content, path


def _copies(net: Wire, model: ModelId) -> list[bytes]:
    with net.nodes[CBD].database.read() as tx:
        return [part for number in range(9) if (part := models.part(tx, model, number)) is not None]


def _opened(net: Wire, model: ModelId, parts: list[bytes]) -> Iterator[bytes]:
    """Open copies of a model's parts, as a backup would have them, with every key that the edge has left."""
    vault, shelf = net.nodes[CBD].kit.vault, SqlKeyShelf(net.nodes[CBD].keys)
    for number, part in enumerate(parts):
        for key_id, _ in shelf.of_stream(models.key_owner(model)):
            with suppress(KeyUnavailable, BodyDamaged):
                yield vault.decrypt(models.key_owner(model), key_id, number, part)


def test_what_descends_from_a_deleted_model_is_deleted_though_it_read_nothing_itself(net: Wire, edge: Api) -> None:
    parent = trained(edge, "learner")
    child = descended(edge, "learner", parent)
    grandchild = descended(edge, "learner", child)
    erase(net)
    assert states(edge) == dict.fromkeys((parent, child, grandchild), "deleted")


def test_the_fate_of_a_descendant_is_never_milder_than_its_parents_and_its_own_may_be_stricter(
    net: Wire, edge: Api
) -> None:
    public = trained(edge, "scholar")
    private = trained(edge, "learner", parent=public)
    gone = [each.stream for each in _streams(net)]
    for fates, ends in {
        ("delete", "report"): (Fate.DELETE, Fate.DELETE),
        ("retrain", "report"): (Fate.RETRAIN, Fate.RETRAIN),
        ("report", "retrain"): (Fate.REPORT, Fate.RETRAIN),
    }.items():
        rules = load(policy(9, public=fates[0], edge_private=fates[1]))
        with net.nodes[CBD].database.read() as tx:
            found = {each.model.model: each.fate for each in erasing_models.concerned(tx, rules, gone)}
        assert found == {public: ends[0], private: ends[1]}


def test_of_another_subject_nothing_is_touched(net: Wire, edge: Api) -> None:
    model = trained(edge, "learner")
    with net.nodes[CBD].database.read() as tx:
        assert erasing_models.concerned(tx, None, [StreamId("9" * 32)]) == []
    assert states(edge) == {model: "current"}


def test_a_withdrawn_consent_touches_no_model(net: Wire, edge: Api) -> None:
    model = trained(edge, "learner")
    net.give(WATCH, ConsentInput(9, "test.research", False))
    net.wait(2_000)
    assert states(edge) == {model: "current"}


def test_an_erasure_that_is_told_again_changes_nothing_more(net: Wire, edge: Api) -> None:
    follow(net, 3, edge_private="retrain")
    model = trained(edge, "learner")
    erase(net)
    with net.nodes[CBD].database.read() as tx:
        before = models.get(tx, model)
    net.restart(CBD)
    net.give(WATCH, Erase(78, None, None, True))
    net.wait(3_000)
    with net.nodes[CBD].database.read() as tx:
        assert models.get(tx, model) == before


def test_a_node_that_crashed_before_it_destroyed_the_key_does_it_when_it_starts_and_confirms_only_then(
    net: Wire, edge: Api
) -> None:
    model = trained(edge, "learner")
    owner, shelf = models.key_owner(model), SqlKeyShelf(net.nodes[CBD].keys)
    net.give(WATCH, Erase(77, None, None, True))
    assert (states(edge), bool(shelf.of_stream(owner))) == ({model: "deleted"}, True)
    assert not _copies(net, model)
    assert not told(net)
    net.restart(CBD)
    net.wait(3_000)
    assert not shelf.of_stream(owner)
    assert {each[0] for each in told(net).values()} == {1}


def test_what_became_of_models_is_in_the_log_with_what_was_erased(net: Wire, edge: Api) -> None:
    private, public = trained(edge, "learner"), trained(edge, "scholar")
    erase(net)
    with net.nodes[CBD].database.read() as tx:
        erased = {each.stream for each in erasures.page(tx, after=None, limit=9)}
        logged = [each for each in audit.page(tx) if each.subject in (private, public) and each.actor == audit.ERASURE]
    assert {(each.event, each.subject) for each in logged} == {("model-deleted", private), ("model-touched", public)}
    assert {each.detail["erased"] for each in logged} <= erased
