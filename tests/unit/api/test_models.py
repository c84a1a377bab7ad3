"""The registry of models over HTTP: what a model is trained on the node knows itself, and where it goes the policy."""

import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, select

from datasync.domain import limits
from datasync.domain.clock import HybridTime
from datasync.domain.ids import StreamId
from datasync.protocol import envelope
from datasync.protocol.parts import ModelLineage, decode_part
from datasync.store import audit, erasures, models, segments, streams, tables, terms
from datasync.store.erasures import Erased, Erasure
from datasync.store.models import ModelId
from datasync.store.terms import Terms
from tests.unit.api.serving import POLICY, Answer, Api

LEARNER, SCHOLAR, TRAINER = "learner", "scholar", "trainee"
PRIVATE, PUBLIC = b"what was learned from speeds", b"what was learned from modes"
ARTEFACT = "application/octet-stream"

WORKERS = """
  learner:  {place: edge, operator: acme, kind: train, clearance: edge-private, purposes: [improve.train]}
  scholar:  {place: edge, operator: acme, kind: train, clearance: public, purposes: [improve.train]}
  trainee:  {place: edge, operator: acme, kind: infer, clearance: edge-private, purposes: [improve.train]}
"""
RULES = """
  - {id: R4, effect: allow, to: {worker: learner}, data: trips, fields: [speed, mode]}
  - {id: R5, effect: allow, to: {worker: scholar}, data: trips, fields: [mode]}
  - {id: R6, effect: allow, to: {worker: trainee}, data: trips, fields: [speed]}
"""
ERASURE = "erasure: {shred: immediately, compact: 24h, models: {edge-private: %s, public: %s}}\n"


def policy(revision: int, *, private: str = "retrain", public: str = "report") -> bytes:
    source = POLICY.replace("revision: 3", f"revision: {revision}")
    source = source.replace("\nrules:", f"{WORKERS}rules:").replace("\nconsent:", f"{RULES}consent:")
    return (source + ERASURE % (private, public)).encode()


@pytest.fixture
def school(api: Api) -> Api:
    """An edge with two workers who train, and trips of two devices."""
    api.run(api.node.activate_policy(policy(4)))
    for worker in (LEARNER, SCHOLAR, TRAINER, "router"):
        api.node.enrol(worker)
    for device in ("watch-1", "watch-2"):
        api.node.capture(device, [{"user_id": device, "speed": 1.5, "mode": "tram"}])
    return api


def token(worker: str) -> str:
    return f"token-of-{worker}"


def read(api: Api, worker: str, after: int = 0) -> int:
    """Let a worker read all that is new; return the cursor."""
    answer = api.get(f"/v1/views/trips?purpose=improve.train&after={after}&format=jsonl", token=token(worker))
    assert answer.status == 200
    return int(answer.headers["X-Datasync-Cursor"])


def register(api: Api, worker: str, body: Any, views: str = "", **query: Any) -> Answer:
    asked = {"name": "speeds", "views": views} | query
    headers = {"Content-Type": ARTEFACT}
    return api.post("/v1/models", token=token(worker), params=asked, data=body, headers=headers)


def trained(api: Api, worker: str, body: Any, **query: Any) -> dict[str, Any]:
    """Let a worker read everything and register what it made of it."""
    answer = register(api, worker, body, f"trips:improve.train:0:{read(api, worker)}", **query)
    assert answer.status == 201, answer.body
    told: dict[str, Any] = answer.json
    return told


def streams_at(api: Api, device: str) -> set[StreamId]:
    with api.node.database.read() as tx:
        return {each.stream for each in streams.of_device(tx, device)}


def entomb(api: Api, *gone: StreamId) -> None:
    with api.node.database.write() as tx:
        for stream in gone:
            erasures.add(tx, Erasure(stream, HybridTime(7, 1), b"said", Erased(), None, shredded=True))


# --- what it was trained on


def test_a_model_has_the_label_and_the_streams_of_what_its_worker_was_shown(school: Api) -> None:
    private, public = trained(school, LEARNER, PRIVATE), trained(school, SCHOLAR, PUBLIC)
    assert (private["label"], public["label"]) == ("edge-private", "public")
    assert private["digest"] == hashlib.sha256(PRIVATE).hexdigest()
    assert private["purposes"] == ["improve.train"]
    assert private["views"][0]["policies"] == [private["policy_digest"]] == [school.node.policy().digest]
    with school.node.database.read() as tx:
        shown = {tier for device in ("watch-1", "watch-2") for tier in _by_tier(tx, device, (0, 1))}
        assert set(models.streams_of(tx, private["model"])) == shown
        assert set(models.streams_of(tx, public["model"])) == {
            stream for device in ("watch-1", "watch-2") for stream in _by_tier(tx, device, (0,))
        }


def _by_tier(tx: Any, device: str, tiers: tuple[int, ...]) -> set[StreamId]:
    return {each.stream for each in streams.of_device(tx, device) if each.tier in tiers}


def test_only_what_was_read_in_the_positions_that_it_names_counts(school: Api) -> None:
    first = read(school, LEARNER)
    school.node.capture("watch-3", [{"user_id": "late", "speed": 2.0, "mode": "bus"}])
    second = read(school, LEARNER, first)
    late = register(school, LEARNER, PRIVATE, f"trips:improve.train:{first}:{second}").json
    with school.node.database.read() as tx:
        assert set(models.streams_of(tx, late["model"])) == _by_tier(tx, "watch-3", (0, 1))


def test_rows_that_were_deleted_since_they_were_shown_are_in_the_lineage_all_the_same(school: Api) -> None:
    cursor, gone = read(school, LEARNER), streams_at(school, "watch-1")
    with school.node.database.write() as tx:
        segments.delete(tx, gone)
        streams.delete(tx, gone)
    told = register(school, LEARNER, PRIVATE, f"trips:improve.train:0:{cursor}").json
    with school.node.database.read() as tx:
        assert gone & set(models.streams_of(tx, told["model"]))


def test_what_another_operator_gave_counts_as_the_original_too_also_when_its_terms_are_forgotten(school: Api) -> None:
    with school.node.database.read() as tx:
        (derived,) = _by_tier(tx, "watch-1", (1,))
    original = StreamId("f" * 32)
    given = Terms(
        stream=derived,
        stands_for=original,
        purposes=None,
        retain_ms=None,
        onward=False,
        operator="borealis",
        rule="H1",
        revision=1,
    )
    with school.node.database.write() as tx:
        terms.add(tx, given)
    told = trained(school, LEARNER, PRIVATE)
    with school.node.database.write() as tx:
        terms.delete(tx, [derived])
        assert {original, derived} <= set(models.streams_of(tx, told["model"]))


def test_what_was_not_read_cannot_be_named(school: Api) -> None:
    cursor = read(school, LEARNER)
    assert register(school, SCHOLAR, PUBLIC, f"trips:improve.train:0:{cursor}").problem() == (409, "VIEW_UNREAD")
    beyond = f"trips:improve.train:0:{cursor},trips:improve.train:{cursor}:{cursor + 9}"
    assert register(school, LEARNER, PRIVATE, beyond).problem() == (409, "VIEW_UNREAD")


@pytest.mark.parametrize(
    "views", ["trips", "trips:improve.train:5:5", "trips:improve.train:-1:5", "trips:improve.train:0:1" + "0" * 20, ""]
)
def test_what_names_no_reading_is_refused(school: Api, views: str) -> None:
    assert register(school, LEARNER, PRIVATE, views).problem() == (400, "REQUEST_INVALID")


def test_too_many_readings_are_refused(school: Api) -> None:
    views = ",".join(["trips:improve.train:0:1"] * (limits.MODEL_VIEWS_MAX + 1))
    assert register(school, LEARNER, PRIVATE, views).problem() == (400, "REQUEST_INVALID")


def test_who_does_not_train_registers_nothing_and_is_not_watched(school: Api) -> None:
    cursor = read(school, TRAINER)
    assert register(school, TRAINER, PRIVATE, f"trips:improve.train:0:{cursor}").problem() == (403, "FORBIDDEN")
    school.run(
        school.node.activate_policy(
            policy(5).replace(
                b"kind: infer, clearance: edge-private, purposes: [imp",
                b"kind: train, clearance: edge-private, purposes: [imp",
            )
        )
    )
    assert register(school, TRAINER, PRIVATE, f"trips:improve.train:0:{cursor}").problem() == (409, "VIEW_UNREAD")


def test_a_token_for_another_purpose_registers_nothing_of_this_one(school: Api) -> None:
    cursor = read(school, LEARNER)
    school.node.enrol(LEARNER, purposes=("service.routing",))
    refused = register(school, LEARNER, PRIVATE, f"trips:improve.train:0:{cursor}")
    assert refused.problem() == (403, "PURPOSE_FORBIDDEN")


def test_the_lineage_is_signed_by_the_node_and_names_the_artefact_the_parent_and_the_streams(school: Api) -> None:
    parent = trained(school, SCHOLAR, PUBLIC)
    child = trained(school, LEARNER, PRIVATE, parent=parent["model"])
    answer = school.get(f"/v1/models/{child['model']}/lineage", token=token(LEARNER))
    node = school.node
    bytes_max = limits.LINEAGE_BYTES_MAX
    signed = envelope.verify(answer.body, ModelLineage.CONTEXT, node.trust, node.at, bytes_max=bytes_max)
    said = decode_part(ModelLineage, signed.body)
    assert (signed.peer.name, said.node, said.worker, said.model) == (node.name, node.name, LEARNER, child["model"])
    assert (said.parent, said.parent_digest) == (parent["model"], hashlib.sha256(PUBLIC).hexdigest())
    assert (said.digest, said.size_bytes, said.label) == (hashlib.sha256(PRIVATE).hexdigest(), len(PRIVATE), 1)
    with node.database.read() as tx:
        known = models.streams_of(tx, child["model"])
    assert (said.streams, said.streams_digest) == (4, hashlib.sha256("".join(sorted(known)).encode()).hexdigest())


def test_a_child_has_the_label_of_its_parent_at_least(school: Api) -> None:
    parent = trained(school, LEARNER, PRIVATE)
    answer = register(school, LEARNER, b"pruned", parent=parent["model"])
    assert (answer.status, answer.json["label"], answer.json["views"]) == (201, "edge-private", [])


# --- where it goes


def test_a_model_comes_back_byte_for_byte_whatever_its_size(school: Api) -> None:
    body = bytes(range(256)) * (limits.MODEL_PART_BYTES * 2 // 256) + b"tail"
    told = trained(school, LEARNER, io.BytesIO(body))
    answer = school.get(f"/v1/models/{told['model']}/artefact", token=token(LEARNER))
    assert (answer.status, answer.body, told["bytes"]) == (200, body, len(body))
    assert answer.headers["X-Datasync-Model-State"] == "current"
    assert answer.headers["Repr-Digest"].startswith("sha-256=:")


def test_a_model_goes_only_where_its_label_and_its_purposes_may(school: Api) -> None:
    private, public = trained(school, LEARNER, PRIVATE), trained(school, SCHOLAR, PUBLIC)
    for part in ("", "/artefact", "/lineage"):
        assert school.get(f"/v1/models/{private['model']}{part}", token=token(LEARNER)).status == 200
        assert school.get(f"/v1/models/{public['model']}{part}", token=token(LEARNER)).status == 200
        above = school.get(f"/v1/models/{private['model']}{part}", token=token(SCHOLAR))
        assert (above.problem(), above.json["reason"]) == ((403, "ACCESS_DENIED"), "NO_READ_UP")
        other = school.get(f"/v1/models/{public['model']}{part}", token=token("router"))
        assert (other.problem(), other.json["reason"]) == ((403, "ACCESS_DENIED"), "NO_PURPOSE")
    refused = register(school, SCHOLAR, PUBLIC, parent=private["model"])
    assert refused.problem() == (403, "ACCESS_DENIED"), "who may not have it cannot go on from it"
    assert school.get(f"/v1/models/{private['model']}").status == 200
    assert school.get(f"/v1/models/{private['model']}/artefact").problem() == (403, "FORBIDDEN")
    assert school.get(f"/v1/models/{'0' * 32}").problem() == (404, "NOT_FOUND")


def test_administrators_see_them_all_page_by_page_by_state_label_and_worker(school: Api) -> None:
    made = [trained(school, LEARNER, b"one"), trained(school, SCHOLAR, b"two"), trained(school, LEARNER, b"three")]
    seen, after = [], ""
    while True:
        page = school.get(f"/v1/admin/models?limit=2{after}").json
        seen += [each["model"] for each in page["models"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert sorted(seen) == sorted(each["model"] for each in made)
    assert len(school.get("/v1/admin/models?label=edge-private").json["models"]) == 2
    assert len(school.get("/v1/admin/models?worker=scholar").json["models"]) == 1
    assert school.get("/v1/admin/models?state=retrain").json == {"models": [], "next": None}
    assert school.get("/v1/admin/models?after=nothing").problem() == (400, "REQUEST_INVALID")


def test_registering_reading_and_deleting_are_in_the_log(school: Api) -> None:
    told = trained(school, LEARNER, PRIVATE)
    school.get(f"/v1/models/{told['model']}/artefact", token=token(LEARNER))
    school.ask("DELETE", f"/v1/models/{told['model']}")
    with school.node.database.read() as tx:
        logged = [(each.event, each.actor) for each in audit.page(tx) if each.subject == told["model"]]
    assert logged == [("model-registered", LEARNER), ("model-read", LEARNER), ("model-deleted", "administrator")]


# --- what goes wrong


def test_what_is_deleted_is_gone_with_its_key_and_its_row_says_so(school: Api) -> None:
    told = trained(school, LEARNER, PRIVATE)
    path = f"/v1/models/{told['model']}"
    assert school.ask("DELETE", path, token=token(SCHOLAR)).problem() == (403, "FORBIDDEN")
    deleted = school.ask("DELETE", path, token=token(LEARNER))
    assert (deleted.status, deleted.json["state"], deleted.json["key_destroyed"]) == (200, "deleted", True)
    assert keys(school) == keys_of_rows(school)
    assert school.get(f"{path}/artefact", token=token(LEARNER)).problem() == (410, "MODEL_GONE")
    assert register(school, LEARNER, PRIVATE, parent=told["model"]).problem() == (410, "MODEL_GONE")


def keys(api: Api) -> int:
    with api.node.keys.read() as tx:
        return int(tx.scalar(select(func.count()).select_from(tables.data_keys)) or 0)


def test_of_a_model_that_is_refused_no_key_and_no_part_is_left(school: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    cursor, before = read(school, LEARNER), keys(school)
    assert register(school, LEARNER, b"", f"trips:improve.train:0:{cursor}").problem() == (400, "REQUEST_INVALID")
    assert register(school, LEARNER, PRIVATE, parent="0" * 32).problem() == (404, "NOT_FOUND")
    monkeypatch.setattr("datasync.api.registry.MODELS_PER_WORKER_MAX", 1)
    trained(school, LEARNER, PRIVATE)
    many = register(school, LEARNER, PRIVATE, f"trips:improve.train:0:{cursor}")
    assert (many.problem(), keys(school)) == ((409, "MODELS_TOO_MANY"), before + 1)
    with school.node.database.read() as tx:
        assert len(models.page(tx, limit=9)) == 1


def test_a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not(school: Api) -> None:
    views = f"trips:improve.train:0:{read(school, LEARNER)}"
    too_much = limits.MODEL_BYTES_MAX + 1

    async def pieces():
        for _ in range(too_much // (1 << 20) + 1):
            yield bytes(1 << 20)

    assert register(school, LEARNER, pieces(), views).problem() == (413, "BODY_TOO_LARGE")
    assert keys(school) == keys_of_rows(school)


def keys_of_rows(api: Api) -> int:
    with api.node.database.read() as tx:
        return len({each.key_id for each in segments.page(tx, after_id=0, limit=1_000)})


def test_a_model_is_judged_by_the_policy_that_is_in_force_when_it_has_arrived(school: Api) -> None:
    cursor = read(school, LEARNER)
    entomb(school, *streams_at(school, "watch-1"))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"
        await school.node.activate_policy(policy(5, private="delete"))
        yield b"more"

    refused = register(school, LEARNER, pieces(), f"trips:improve.train:0:{cursor}")
    assert refused.problem() == (409, "MODEL_ERASED")


# --- what is erased before a model comes


@pytest.mark.parametrize(
    ("private", "status", "state"), [("delete", 409, None), ("retrain", 201, "retrain"), ("report", 201, "current")]
)
def test_a_model_that_comes_after_the_erasure_is_treated_as_the_policy_says(
    school: Api, private: str, status: int, state: str | None
) -> None:
    school.run(school.node.activate_policy(policy(5, private=private)))
    cursor = read(school, LEARNER)
    entomb(school, *streams_at(school, "watch-1"))
    answer = register(school, LEARNER, PRIVATE, f"trips:improve.train:0:{cursor}")
    assert answer.status == status
    if state is None:
        assert (answer.problem(), keys(school)) == ((409, "MODEL_ERASED"), keys_of_rows(school))
        return
    told = answer.json
    assert (told["state"], told["streams_erased"]) == (state, 2)
    assert told["erased_ms"] == school.node.at.wall_ms


def test_the_child_of_a_model_to_be_retrained_is_to_be_retrained_though_its_own_label_is_milder(school: Api) -> None:
    parent = trained(school, SCHOLAR, PUBLIC)
    with school.node.database.write() as tx:
        models.mark(tx, [ModelId(parent["model"])], models.State.RETRAIN, 5)
    assert register(school, SCHOLAR, PUBLIC, parent=parent["model"]).json["state"] == "retrain"


def test_a_subject_is_told_which_models_have_learned_from_its_streams_themselves_or_by_a_parent(school: Api) -> None:
    parent = trained(school, LEARNER, PRIVATE)
    child = register(school, LEARNER, b"pruned", parent=parent["model"]).json
    told = school.get("/v1/subjects/watch-1/where").json["models"]
    assert {each["model"] for each in told} == {parent["model"], child["model"]}
    school.node.capture("watch-9", [{"user_id": "new", "speed": 2.0, "mode": "bus"}])
    assert school.get("/v1/subjects/watch-9/where").json["models"] == []
    with school.node.database.write() as tx:
        (shown,) = _by_tier(tx, "watch-1", (1,))
        streams.delete(tx, [shown])
    entomb(school, shown)
    told = school.get(f"/v1/subjects/{shown}/where").json["models"]
    assert {each["model"] for each in told} == {parent["model"], child["model"]}, "also when it is erased"
