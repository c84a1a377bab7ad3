"""Views of documents: changes of many batches and revisions merged, filtered, resumed, and held back."""

import pytest

from datasync.domain.clock import Instant
from datasync.domain.tiers import Place, Tier
from datasync.store import tables
from tests.unit.views.conftest import POLICY

SETTINGS = """
  settings:
    kind: document
    subject: user_id
    key: name
    meta: {region: public}
    fields:
      user_id: {type: string, tier: user-private, up: {edge: [pid], cloud: [pid, anon]}}
      name:    {type: string, tier: edge-private}
      theme:   {type: string, tier: public, merge: lww}
      seen:    {type: int64, tier: edge-private, merge: counter}
      best:    {type: float64, tier: edge-private, merge: max}
      tags:    {type: [string], tier: edge-private, merge: union}
      note:    {type: string}
    raise:
      - {to: user-private, where: [[theme, eq, hidden], [theme, exists, true]]}
workers:
"""
RULES = """
rules:
  - {id: S1, effect: allow, to: {worker: router}, data: settings, fields: [name, theme, seen, best, tags]}
  - {id: S2, effect: allow, to: {worker: counter}, data: settings, fields: [theme], where: [[seen, ge, 3]]}
  - {id: S3, effect: allow, to: {worker: coach}, data: settings, fields: '*'}
  - {id: S4, effect: allow, to: {worker: trainer}, data: settings, fields: [theme], where: [[region, eq, cbd]]}
"""
TRANSFORMS = """
transforms:
  pid:  {op: hmac, key: subject, rotate: 1d, from: user-private, to: edge-private}
  anon: {op: constant, value: somebody, from: edge-private, to: public}
"""
WITH_SETTINGS = (
    POLICY.replace("revision: 1", "revision: 10")
    .replace("\nworkers:\n", SETTINGS)
    .replace("\nrules:\n", RULES)
    .replace("\ntransforms:\n", TRANSFORMS)
)
DAY_MS = 86_400_000


@pytest.fixture
def settings(site_at):
    """An edge whose policy has documents."""
    return site_at(Place.EDGE)


@pytest.fixture
def site_at(make_site):
    def make(place):
        site = make_site(place)
        site.activate(WITH_SETTINGS)
        return site

    return make


def put(site, device="watch-1", user="ann", **change):
    return site.capture(device, [{"user_id": user, "name": "ui", **change}], collection="settings")


def documents(site, worker="router", **options):
    return site.rows(worker, collection="settings", **options)


def test_changes_of_many_batches_are_one_document(settings):
    put(settings, theme="dark", seen=1, best=1.5, tags=["a"])
    put(settings, seen=2, tags=["b", "a"])
    put(settings, theme="light", best=0.5)

    assert documents(settings) == [{"name": "ui", "theme": "light", "seen": 3, "best": 1.5, "tags": ["a", "b"]}]


def test_changes_of_one_batch_count_in_the_order_of_their_rows(settings):
    rows = [{"user_id": "ann", "name": "ui", "theme": theme, "seen": 1} for theme in ("a", "b", "c")]
    settings.capture("watch-1", rows, collection="settings")

    assert [(each["theme"], each["seen"]) for each in documents(settings)] == [("c", 3)]


def test_documents_are_told_apart_by_subject_and_key_and_device(settings):
    put(settings, theme="a")
    put(settings, theme="b", name="map")
    put(settings, theme="c", user="bob")
    put(settings, theme="d", device="watch-2")

    assert sorted(each["theme"] for each in documents(settings)) == ["a", "b", "c", "d"]


def test_a_document_outlives_the_rotation_of_its_subjects_pseudonym(settings):
    put(settings, seen=1)
    settings.now = Instant(settings.now.wall_ms + DAY_MS, 0)
    put(settings, seen=1)

    assert [each["seen"] for each in documents(settings)] == [2]


def test_conditions_see_the_merged_document_and_not_its_changes(settings):
    put(settings, theme="a", seen=2)
    assert documents(settings, "counter") == []
    put(settings, seen=1)
    assert documents(settings, "counter") == [{"theme": "a"}]


def test_a_raised_change_is_not_part_of_the_document_below_its_tier(settings):
    put(settings, theme="dark", seen=1)
    put(settings, theme="hidden", seen=5)

    assert [(each["theme"], each["seen"]) for each in documents(settings)] == [("dark", 1)]


def test_a_change_that_leaves_open_whether_it_is_raised_counts_as_raised(settings):
    unsure = WITH_SETTINGS.replace(", [theme, exists, true]", "").replace("revision: 10", "revision: 11")
    settings.activate(unsure)
    put(settings, theme="dark", seen=1)
    put(settings, seen=5)

    assert [each["seen"] for each in documents(settings)] == [1]


def test_a_cursor_gives_whole_the_documents_that_changed_since(settings):
    put(settings, theme="a", seen=1)
    put(settings, theme="b", name="map")
    cursor = settings.chunks("router", collection="settings")[-1].cursor
    assert documents(settings, after=cursor) == []
    put(settings, seen=1)

    assert [(each["name"], each["theme"], each["seen"]) for each in documents(settings, after=cursor)] == [
        ("ui", "a", 2)
    ]


def test_an_end_gives_documents_as_of_then(settings):
    put(settings, seen=1)
    until = settings.chunks("router", collection="settings")[-1].cursor
    put(settings, seen=1)

    assert [each["seen"] for each in documents(settings, until=until)] == [1]


def test_every_chunk_says_which_streams_its_documents_are_merged_from(settings):
    for number in range(3):
        put(settings, device=f"watch-{number}", seen=number)
    chunks = settings.chunks("router", collection="settings", chunk_rows=2)
    devices = [("watch-0", "watch-1"), ("watch-2",)]
    tiers = (Tier.EDGE_PRIVATE, Tier.PUBLIC)
    expected = [{settings.stream(name, tier): tier for name in names for tier in tiers} for names in devices]
    assert [dict(chunk.streams) for chunk in chunks] == expected


def test_every_chunk_is_a_place_to_resume_from(settings):
    for number in range(7):
        put(settings, device=f"watch-{number % 3}", name=f"n{number}", seen=1)
    chunks = settings.chunks("router", collection="settings", chunk_rows=2)
    assert [chunk.batch.num_rows for chunk in chunks] == [2, 2, 3]
    whole = [row["name"] for chunk in chunks for row in chunk.batch.to_pylist()]
    assert sorted(whole) == [f"n{number}" for number in range(7)]
    for index, chunk in enumerate(chunks):
        rest = documents(settings, resume=chunk.cursor)
        assert [row["name"] for row in rest] == [r["name"] for c in chunks[index + 1 :] for r in c.batch.to_pylist()]


@pytest.mark.parametrize("merge_rows", [1, 2, 100_000])
def test_how_many_changes_are_merged_at_one_time_does_not_show(settings, monkeypatch, merge_rows):
    monkeypatch.setattr("datasync.views.documents.MERGE_ROWS", merge_rows)
    monkeypatch.setattr("datasync.views.documents.PAGE_SEGMENTS", 3)
    for number in range(10):
        put(settings, name=f"n{number % 2}", seen=number, tags=[f"t{number % 4}"], theme=f"v{number}")

    assert documents(settings) == [
        {"name": "n0", "theme": "v8", "seen": 20, "best": None, "tags": ["t0", "t2"]},
        {"name": "n1", "theme": "v9", "seen": 25, "best": None, "tags": ["t1", "t3"]},
    ]


def test_the_cloud_sees_public_fields_of_those_who_agreed_by_the_constants_of_their_latest_change(site_at):
    cloud = site_at(Place.CLOUD)
    for device, region in (("watch-1", "cbd"), ("watch-2", "docks"), ("watch-3", "cbd")):
        cloud.capture(device, [{"user_id": "u", "name": "ui", "theme": device}], collection="settings", region=region)
        if device != "watch-3":
            cloud.consent(device, Tier.PUBLIC, "improve.train", given=True, at=1)
    assert cloud.rows("trainer", "improve.train", collection="settings") == [{"theme": "watch-1"}]
    cloud.capture("watch-1", [{"user_id": "u", "name": "ui", "theme": "x"}], collection="settings", region="docks")
    assert cloud.rows("trainer", "improve.train", collection="settings") == []


def test_a_field_that_merges_in_another_way_now_starts_anew(settings):
    put(settings, seen=7, theme="a")
    settings.activate(WITH_SETTINGS.replace("merge: counter", "merge: max").replace("revision: 10", "revision: 11"))
    assert [(each["seen"], each["theme"]) for each in documents(settings)] == [(None, "a")]
    put(settings, seen=2)
    assert [(each["seen"], each["theme"]) for each in documents(settings)] == [(2, "a")]


def test_rows_of_a_stream_are_no_documents_when_the_collection_becomes_one(settings):
    stream = WITH_SETTINGS.replace("kind: document", "kind: stream").replace("    key: name\n", "")
    for merge in ("lww", "counter", "max", "union"):
        stream = stream.replace(f", merge: {merge}", "")
    settings.activate(stream.replace("revision: 10", "revision: 11"))
    put(settings, theme="a")
    settings.activate(WITH_SETTINGS.replace("revision: 10", "revision: 12"))

    assert documents(settings) == []
    assert [chunk.withheld for chunk in settings.chunks("router", collection="settings")] == [{"POLICY_FOREIGN": 1}]


def test_a_change_whose_partner_layer_is_gone_is_withheld_and_the_others_count(settings):
    put(settings, seen=1, theme="a")
    put(settings, seen=2, theme="b")
    with settings.database.write() as tx:
        last = tables.segments.c.seq_first == 1
        tx.execute(tables.segments.delete().where(last, tables.segments.c.tier == int(Tier.PUBLIC)))

    assert [(each["seen"], each["theme"]) for each in documents(settings)] == [(1, "a")]


def test_a_user_sees_every_field_on_the_device(site_at):
    device = site_at(Place.DEVICE)
    put(device, note="mine", seen=1)
    put(device, theme="hidden", seen=1)

    (found,) = documents(device, "coach")
    assert (found["user_id"], found["note"], found["theme"], found["seen"]) == ("ann", "mine", "hidden", 2)
