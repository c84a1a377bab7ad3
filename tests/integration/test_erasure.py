"""A subject is erased everywhere, over real brokers, while an edge is down: afterwards nothing of it can be found.

Looked through are all files of all nodes and brokers, every body that is stored anywhere, and copies of all bodies from
before the erasure, as a backup would have them, each with every key that any node has left. Another subject's rows are
untouched, and grow meanwhile.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from datasync import Device
from datasync.cli.main import main
from datasync.domain.errors import BodyDamaged, KeyUnavailable, Undecipherable
from datasync.domain.ids import NodeName, StreamId
from datasync.domain.tiers import Place as PlaceKind
from datasync.handover import accounts, whereabouts
from datasync.protocol import segment
from datasync.security.identity import Role
from datasync.security.vault import open_body, state_key
from datasync.store import segments, streams
from tests.integration import rows
from tests.integration.deployment import CBD, CLOUD, DOCKS, Deployment, Place
from tests.integration.rows import TRIPS

ANN, BOB = NodeName("ann"), NodeName("bob")


@dataclass(frozen=True)
class Copy:
    """A stored body, as a backup would have it."""

    stream: StreamId
    key_id: str
    seq_first: int
    body: bytes


def copies(place: Place) -> list[Copy]:
    """Return every body that a place has stored."""
    with place.store() as (database, _), database.read() as tx:
        held = segments.page(tx, after_id=0, limit=10_000)
        bodies = segments.bodies(tx, [each.id for each in held])
    return [Copy(each.stream, each.key_id, each.seq_first, bodies[each.id]) for each in held]


def session_keys(place: Place) -> set[bytes]:
    """Return every session key that a place has."""
    with place.store() as (database, vault), database.read() as tx:
        if place.identity.role is Role.DEVICE:
            ring = whereabouts.load(tx, vault, place.name).ring
            return {ring.session, *(key for keys in ring.by_edge.values() for key in keys)}
        kept = [accounts.load_keys(tx, vault, device) for device in (ANN, BOB) if place.name != CLOUD]
    return {
        key
        for each in kept
        if each
        for key in (each.session, *(one for keys in each.previous.values() for one in keys))
    }


def opened(place: Place, wanted: list[Copy], sessions: set[bytes]) -> Iterator[bytes]:
    """Yield what opens of these bodies with any data key of the place, or with a key that any session key gives."""
    with place.store() as (_, vault):
        for each in wanted:
            with suppress(KeyUnavailable, BodyDamaged):
                yield vault.decrypt(each.stream, each.key_id, each.seq_first, each.body)
            for session in sessions:
                with suppress(Undecipherable):
                    yield open_body(state_key(session, each.stream), each.stream, each.seq_first, each.body)


def texts(opened_bodies: Iterator[bytes]) -> set[str]:
    """Return the values of labels and notes, which tell whose and which row it is."""
    found = set()
    for plain in opened_bodies:
        batch, _ = segment.rows(segment.parse(plain))
        for row in batch.to_pylist():
            found.update(str(row[name]) for name in ("label", "note") if row.get(name))
    return found


def readable(deployment: Deployment, wanted: list[Copy]) -> set[str]:
    """Return what can be read of these bodies, and of all that is stored now, with all keys of all nodes."""
    sessions = {key for place in deployment.places for key in session_keys(place)}
    return {text for place in deployment.places for text in texts(opened(place, wanted + copies(place), sessions))}


def canaries(numbers: range) -> set[str]:
    found = set()
    for number in numbers:
        row = rows.row_of(ANN, number)
        found |= {row["label"], row["note"]}
    return found


def files_with(deployment: Deployment, needles: set[bytes]) -> list[str]:
    """Return the files of all nodes and brokers that have any of these texts or bytes, and which of them."""
    found = []
    for path in sorted(each for each in deployment.folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        found += [f"{path}: {needle!r}" for needle in needles if needle in content]
    return found


def record(device: Device, name: str, numbers: range) -> None:
    device.record(TRIPS, [rows.row_of(name, number) for number in numbers], wait=True)


def rows_at(place: Place, stream_ids: set[StreamId]) -> int:
    with place.store() as (database, _), database.read() as tx:
        return sum(each.rows for stream in stream_ids for each in segments.of_stream(tx, stream))


def command(*words: str) -> tuple[int, Any]:
    """Run a command; return its exit code, and the JSON that it printed."""
    output = io.StringIO()
    with redirect_stdout(output):
        code = main([*words, "--json"])
    return code, json.loads(output.getvalue())


@pytest.mark.parametrize("cloud", ["sqlite", "postgres"])
def test_after_an_erasure_nothing_of_the_subject_is_found_or_can_be_opened_anywhere(
    deploy: Callable[..., Deployment], cloud: str, request: pytest.FixtureRequest
) -> None:
    options = {"cloud_database": request.getfixturevalue("postgres_url")} if cloud == "postgres" else {}
    deployment = deploy(hold_s=3_600.0, **options)
    deployment.start()
    ann_place, bob_place = deployment.device(ANN, CBD), deployment.device(BOB, DOCKS)
    docks, cbd = deployment.edges[DOCKS], deployment.edges[CBD]
    with Device(ann_place.config) as ann, Device(bob_place.config) as bob:
        for device, name in ((ann, ANN), (bob, BOB)):
            deployment.until(lambda device=device: device.has_policy, f"a policy at {name}")
            record(device, name, range(60))
        deployment.until(lambda: ann.owed() == bob.owed() == 0, "the rows to be safe")
        ann.move(DOCKS)
        deployment.until(lambda: ann.whereabouts.edge == DOCKS and ann.whereabouts.mode == "full", "ann to roam")
        record(ann, ANN, range(60, 90))
        deployment.until(lambda: ann.owed() == 0, "the rows to be safe")
        before = [each for place in deployment.places for each in copies(place)]
        assert canaries(range(90)) <= readable(deployment, before), "a search that cannot find would prove nothing"
        of_bob = _streams(bob, PlaceKind.EDGE)

        cbd.kill()
        erased = ann.erase(everything=True)
        deployment.until(lambda: ann.erasure_awaited() == {CBD}, "all but the edge that is down to confirm")
        assert [rows_at(place, set(erased)) for place in (ann_place, docks, deployment.cloud)] == [0, 0, 0]
        assert rows_at(cbd, set(erased)) > 0
        assert len(files_with(deployment, {each.body[:24] for each in copies(cbd)})) >= len(copies(cbd))
        code, told = command("subject", "where", "--config", str(ann_place.config))
        assert (code, told["awaited"]) == (0, [CBD])
        record(bob, BOB, range(60, 90))
        record(ann, ANN, range(100, 130))

        cbd.start()
        deployment.until(lambda: not ann.erasure_awaited(), "the edge that was down to confirm")
        deployment.until(lambda: ann.owed() == bob.owed() == 0, "the new rows to be safe")
        assert not readable(deployment, before) & canaries(range(90))
        ciphertext = {each.body[:24] for each in before if each.stream in erased}
        plaintext = {text.encode() for text in canaries(range(90))}
        deployment.until(lambda: not files_with(deployment, plaintext | ciphertext), "files to have nothing of it")
        assert canaries(range(100, 130)) <= readable(deployment, [])
        assert (rows_at(docks, of_bob), bob.recorded(TRIPS)) == (_rows_for_edges(BOB, range(90)), 90)
        for server in (cbd, docks, deployment.cloud):
            (found,) = server.admin.get("v1", "subjects", str(erased[0]), "where")["erased"]
            assert found["keys_destroyed"]

    archive = deployment.folder / "ann.zip"
    assert command("subject", "export", "--config", str(ann_place.config), "--output", str(archive))[0] == 0
    with zipfile.ZipFile(archive) as opened_archive:
        manifest = json.loads(opened_archive.read("manifest.json"))
    places = {receipt["place"] for each in manifest["erased"] for receipt in each["receipts"]}
    assert places == {ANN, CBD, DOCKS, CLOUD}
    code, done = command("subject", "erase", "--config", str(ann_place.config), "--everything")
    assert (code, done["awaited"], len(done["erased"])) == (0, [], 3)


def _streams(device: Device, place: PlaceKind) -> set[StreamId]:
    with device.read() as tx:
        return {each.stream for each in streams.of_device(tx, BOB) if each.tier <= place.highest_tier}


def _rows_for_edges(device: str, numbers: range) -> int:
    """Return how many rows of both layers an edge has of these."""
    public = sum(rows.public_form(device, number) is not None for number in numbers)
    return public + sum(rows.row_of(device, number)["mode"] != "private_road" for number in numbers)
