"""Views of documents against a naive merge: any changes, in any batches, read from any cursor in any chunks."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from datasync.domain.tiers import Place
from tests.unit.views.conftest import Site
from tests.unit.views.test_documents import WITH_SETTINGS

DEVICES, NAMES = ("watch-1", "watch-2"), ("a", "b", "c")
FIELDS = {
    "theme": st.sampled_from(["dark", "light", "hidden"]),
    "seen": st.integers(-3, 3),
    "best": st.floats(-9, 9),
    "tags": st.lists(st.sampled_from(["x", "y", "z"]), max_size=3),
}
CHANGE = st.fixed_dictionaries({"name": st.sampled_from(NAMES)}, optional=FIELDS)
BATCH = st.tuples(st.sampled_from(DEVICES), st.lists(CHANGE, min_size=1, max_size=3))

Row = dict[str, Any]
Batch = tuple[str, list[Row]]


def merged(batches: Sequence[Batch]) -> dict[tuple[str, str], Row]:
    """The documents, one value at a time; a change whose theme is hidden is the user's alone."""
    found: dict[tuple[str, str], Row] = {}
    for device, changes in batches:
        for change in changes:
            if change.get("theme") == "hidden":
                continue
            empty = {"name": change["name"], "theme": None, "seen": None, "best": None, "tags": None}
            document = found.setdefault((device, change["name"]), empty)
            document["theme"] = change.get("theme", document["theme"])
            if "seen" in change:
                document["seen"] = (document["seen"] or 0) + change["seen"]
            if "best" in change:
                document["best"] = max([change["best"], *([] if document["best"] is None else [document["best"]])])
            if "tags" in change:
                document["tags"] = list(dict.fromkeys([*(document["tags"] or []), *change["tags"]]))
    return found


def changed(batches: Sequence[Batch]) -> set[tuple[str, str]]:
    return {(device, each["name"]) for device, changes in batches for each in changes if each.get("theme") != "hidden"}


@contextmanager
def edge() -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), Place.EDGE, f"sqlite:///{folder}/node.db")
        try:
            site.activate(WITH_SETTINGS)
            yield site
        finally:
            site.close()


def ordered(rows: Sequence[Row]) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in rows)


@settings(max_examples=30, deadline=None)
@given(before=st.lists(BATCH, max_size=4), after=st.lists(BATCH, max_size=4), chunk_rows=st.integers(1, 4))
def test_a_read_gives_what_a_naive_merge_says_changed(before: list[Batch], after: list[Batch], chunk_rows: int) -> None:
    with edge() as site:
        put(site, before)
        first = site.chunks("router", collection="settings", chunk_rows=chunk_rows)
        assert ordered(rows(first)) == ordered([*merged(before).values()])
        cursor = first[-1].cursor if first else 0
        put(site, after)
        whole = merged([*before, *after])
        expected = [whole[key] for key in changed(after)]
        chunks = site.chunks("router", collection="settings", after=cursor, chunk_rows=chunk_rows)
        assert ordered(rows(chunks)) == ordered(expected)
        for index, chunk in enumerate(chunks):
            rest = site.chunks("router", collection="settings", after=cursor, resume=chunk.cursor)
            assert ordered(rows(rest)) == ordered(rows(chunks[index + 1 :]))


def put(site: Site, batches: Sequence[Batch]) -> None:
    for device, changes in batches:
        site.capture(device, [{"user_id": "ann", **change} for change in changes], collection="settings")


def rows(chunks: Sequence[Any]) -> list[Row]:
    return [row for chunk in chunks for row in chunk.batch.to_pylist()]
