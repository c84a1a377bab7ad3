"""What must hold once a deployment has come to rest: every row at every place, and nothing private elsewhere."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from datasync.handover.states import DeviceState, EdgeState
from datasync.protocol import segment
from datasync.security.vault import Vault
from datasync.store import segments, streams
from datasync.store.database import Database
from datasync.store.segments import State, StoredSegment
from datasync.sync.capture import recorded
from datasync.views.client import open_view
from tests.integration import rows
from tests.integration.deployment import Deployment, Place, Server, Wanderer
from tests.integration.rows import TRIPS

Row = Mapping[str, Any]
PAGE_SEGMENTS = 256


def settle(deployment: Deployment, seconds_max: float) -> None:
    """Wait until every device is at one edge with all its state, and nothing waits to be sent anywhere."""
    try:
        deployment.until(lambda: _is_settled(deployment), "everything to come to rest", seconds_max)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{describe(deployment)}") from None


def describe(deployment: Deployment) -> str:
    """Return where everything stands."""
    lines = []
    for place in deployment.places:
        with place.store() as (database, _), database.read() as tx:
            waiting = {state.name: segments.count(tx, [state]) for state in (State.WAITING, State.DURABLE)}
        lines.append(f"{place.name}: {waiting}")
    for device in deployment.devices:
        lines.append(str(device.whereabouts()))
        lines += [f"  {name}: {edge.account(device.name)}" for name, edge in deployment.edges.items()]
    return "\n".join(lines)


def _is_settled(deployment: Deployment) -> bool:
    return all(_is_home(deployment, device) for device in deployment.devices) and not any(
        _owes(server) for server in deployment.edges.values()
    )


def check(deployment: Deployment) -> int:
    """Compare every row at every place with what was recorded. Raises AssertionError; returns how many there are."""
    public: dict[str, Row] = {}
    total = 0
    for device in deployment.devices:
        count = _check_device(device)
        _check_edges(deployment, device, count)
        _check_edge_view(deployment, device, count)
        public |= {form["label"]: form for n in range(count) if (form := rows.public_form(device.name, n)) is not None}
        total += count
    _check_cloud(deployment, public)
    _check_secrets(deployment)
    return total


def shown(place: Place, device: str | None = None) -> dict[str, list[tuple[int, Row]]]:
    """Return, by tier, the visible rows of trips as (sequence number, columns without nulls), of one device if given.

    What is returned was decrypted and its signature verified here.
    """
    found: dict[str, list[tuple[int, Row]]] = {}
    with place.store() as (database, vault):
        for each in _segments(database):
            if each.position is None or each.collection != TRIPS:
                continue
            if device is not None and _device_of(database, each) != device:
                continue
            batch, numbers = opened(database, vault, each)
            columns = [{name: value for name, value in row.items() if value is not None} for row in batch.to_pylist()]
            found.setdefault(each.tier.label, []).extend(zip(numbers.tolist(), columns, strict=True))
    return {tier: sorted(pairs, key=lambda pair: pair[0]) for tier, pairs in found.items()}


def opened(database: Database, vault: Vault, each: StoredSegment) -> tuple[pa.RecordBatch, Any]:
    """Return the rows and sequence numbers of a stored segment."""
    with database.read() as tx:
        body = segments.bodies(tx, [each.id])[each.id]
    return segment.rows(segment.parse(vault.decrypt(each.stream, each.key_id, each.seq_first, body)))


def haystacks(place: Place) -> Iterator[tuple[str, bytes]]:
    """Yield everything that a node has on its disk, and every segment that it holds, visible or not, decrypted."""
    for path in sorted(each for each in place.folder.rglob("*") if each.is_file()):
        yield str(path), path.read_bytes()
    with place.store() as (database, vault):
        for each in _segments(database):
            sink = pa.BufferOutputStream()
            batch, _ = opened(database, vault, each)
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            yield f"{place.name}: segment {each.id}, decrypted", sink.getvalue().to_pybytes()


def _is_home(deployment: Deployment, device: Wanderer) -> bool:
    here = device.whereabouts()
    if here.state is not DeviceState.ATTACHED or here.mode != "full" or here.wish is not None or here.edge is None:
        return False
    with device.store() as (database, _), database.read() as tx:
        if segments.count(tx, [State.WAITING, State.DURABLE]):
            return False
    accounts = {name: edge.account(device.name) for name, edge in deployment.edges.items()}
    serving = accounts.pop(here.edge)
    gone = all(account.state in (EdgeState.UNKNOWN, EdgeState.ERASED) for account in accounts.values())
    return gone and serving.state is EdgeState.ACTIVE and serving.registered and not serving.unreleased


def _owes(edge: Server) -> bool:
    with edge.store() as (database, _), database.read() as tx:
        return bool(segments.waiting(tx, limit=1))


def _check_device(device: Wanderer) -> int:
    """Compare the device's own rows, and return how many there are."""
    with device.store() as (database, _), database.read() as tx:
        count = recorded(tx, device.name, TRIPS)
    expected = [(number, rows.device_form(device.name, number)) for number in range(count)]
    _same(f"{device.name} itself", shown(device).get("user-private", []), expected)
    return count


def _check_edges(deployment: Deployment, device: Wanderer, count: int) -> None:
    serving = device.whereabouts().edge
    for name, edge in deployment.edges.items():
        found = shown(edge, device.name)
        if name != serving:
            assert found == {}, f"{name} still shows rows of {device.name}"
            continue
        private = [(n, form) for n in range(count) if (form := rows.edge_form(device.identity, n)) is not None]
        public = [(n, form) for n in range(count) if (form := rows.public_form(device.name, n)) is not None]
        assert found.keys() <= {"edge-private", "public"}, f"{name} has {sorted(found)}"
        _same(f"{device.name} at {name}, edge-private", found.get("edge-private", []), private)
        _same(f"{device.name} at {name}, public", found.get("public", []), public)


def _check_edge_view(deployment: Deployment, device: Wanderer, count: int) -> None:
    edge = deployment.edges[device.whereabouts().edge]
    seen = [row for row in view(edge, rows.EDGE_WORKER) if row.get("label", "").startswith(f"{device.name}/")]
    expected = [form for n in range(count) if (form := rows.edge_view(device.identity, n)) is not None]
    _same(f"the view of {device.name} at {edge.name}", _by_label(seen), _by_label(expected))


def _check_cloud(deployment: Deployment, public: Mapping[str, Row]) -> None:
    found = shown(deployment.cloud)
    assert found.keys() <= {"public"}, f"the cloud has {sorted(found)}"
    expected = _by_label(list(public.values()))
    _same("the cloud", _by_label([row for _, row in found.get("public", [])]), expected)
    _same("the view in the cloud", _by_label(view(deployment.cloud, rows.CLOUD_WORKER)), expected)


def _check_secrets(deployment: Deployment) -> None:
    """Look for the devices' private texts and exact coordinates in everything that the servers have."""
    needles = [b"person of ", b"secret "]
    for device in deployment.devices:
        for number in range(0, 200, 7):
            point = rows.row_of(device.name, number)["gps"]
            needles += [struct.pack("<d", point["lat"]), struct.pack("<d", point["lon"])]
    for server in deployment.servers:
        for where, content in haystacks(server):
            for needle in needles:
                assert needle not in content, f"{needle!r} is in {where}"
    controls = b"".join(content for where, content in haystacks(deployment.devices[0]) if "decrypted" in where)
    assert all(needle in controls for needle in needles[:3]), "a search that finds nothing anywhere proves nothing"


def view(server: Server, worker: str) -> list[Row]:
    """Return the rows that a worker sees over HTTP, without nulls."""
    table = open_view(server.url, server.tokens[worker], TRIPS, rows.PURPOSE, known=server.known).read_all()
    return [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]


def _by_label(found: list[Row]) -> list[tuple[str, Row]]:
    return sorted(((row["label"], row) for row in found), key=lambda pair: pair[0])


def _same(where: str, found: list[tuple[Any, Row]], expected: list[tuple[Any, Row]]) -> None:
    """Raise AssertionError that says what is lost, doubled, foreign or changed."""
    if found == expected:
        return
    found_keys, expected_keys = [key for key, _ in found], [key for key, _ in expected]
    doubled = sorted({key for key in found_keys if found_keys.count(key) > 1})
    lost = sorted(set(expected_keys) - set(found_keys))
    foreign = sorted(set(found_keys) - set(expected_keys))
    wanted = dict(expected)
    changed = [(key, row, wanted[key]) for key, row in found if key in wanted and row != wanted[key]]
    raise AssertionError(
        f"{where}: {len(expected)} rows expected, {len(found)} found; lost {lost[:10]} ({len(lost)}), "
        f"doubled {doubled[:10]} ({len(doubled)}), foreign {foreign[:10]} ({len(foreign)}), "
        f"changed {len(changed)}: {changed[:1]}"
    )


def _segments(database: Database) -> Iterator[StoredSegment]:
    after = 0
    while True:
        with database.read() as tx:
            found = segments.page(tx, after_id=after, limit=PAGE_SEGMENTS)
        if not found:
            return
        yield from found
        after = found[-1].id


def _device_of(database: Database, each: StoredSegment) -> str | None:
    with database.read() as tx:
        return streams.get(tx, [each.stream])[each.stream].device
