"""Views over HTTP: formats, cursors, limits, and what happens when things go wrong half-way."""

import asyncio
import csv
import io
import json

import pyarrow as pa
import pytest
from aiohttp import ClientPayloadError

from datasync.domain.errors import AccessDenied, Forbidden, LinkError, NotFound, RequestError, Unauthenticated
from datasync.store import streams
from datasync.views.client import cursor_of, open_view

VIEW = "/v1/views/trips?purpose=service.routing"


def trips(*speeds):
    return [{"user_id": "u", "speed": float(speed), "mode": "bike"} for speed in speeds]


@pytest.fixture
def token(api):
    return api.node.enrol("router")


def speeds(answer):
    return [json.loads(line)["speed"] for line in answer.body.splitlines()]


def test_a_view_is_an_arrow_stream_unless_something_else_is_asked_for(api, token):
    api.node.capture("watch-1", trips(1, 2))
    answer = api.get(VIEW, token=token)
    assert answer.content_type == "application/vnd.apache.arrow.stream"
    with pa.ipc.open_stream(answer.body) as stream:
        assert stream.schema.metadata[b"datasync.cursor"] == answer.headers["X-Datasync-Cursor"].encode()
        assert stream.read_all().to_pylist() == [{"speed": 1.0, "mode": "bike"}, {"speed": 2.0, "mode": "bike"}]


def test_a_view_comes_as_json_lines(api, token):
    api.node.capture("watch-1", trips(1, 2))
    answer = api.get(VIEW, token=token, headers={"Accept": "application/x-ndjson"})
    assert answer.content_type == "application/x-ndjson"
    assert [json.loads(line) for line in answer.body.splitlines()] == [
        {"speed": 1, "mode": "bike"},
        {"speed": 2, "mode": "bike"},
    ]


def test_a_view_comes_as_csv(api, token):
    api.node.capture("watch-1", trips(1, 2))
    answer = api.get(VIEW + "&format=csv", token=token)
    assert answer.content_type == "text/csv"
    assert list(csv.reader(io.StringIO(answer.body.decode()))) == [["speed", "mode"], ["1", "bike"], ["2", "bike"]]


def test_a_format_that_there_is_not_is_refused(api, token):
    assert api.get(VIEW, token=token, headers={"Accept": "image/png"}).problem() == (406, "NOT_ACCEPTABLE")


def test_an_empty_view_is_a_whole_answer(api, token):
    answer = api.get(VIEW, token=token)
    assert answer.headers["X-Datasync-Cursor"] == "0"
    assert pa.ipc.open_stream(answer.body).read_all().num_rows == 0


def test_the_answer_names_the_policy_that_decided(api, token):
    assert api.get(VIEW, token=token).headers["X-Datasync-Policy"] == api.node.policy().digest


def test_cursors_read_on_without_loss_or_repetition_while_rows_arrive(api, token):
    seen, after = [], 0
    for number in range(6):
        api.node.capture(f"watch-{number % 2}", trips(2 * number, 2 * number + 1))
        if number % 2:
            answer = api.get(f"{VIEW}&format=jsonl&after={after}", token=token)
            seen += speeds(answer)
            after = int(answer.headers["X-Datasync-Cursor"])
    assert seen == list(range(12))
    again = api.get(f"{VIEW}&format=jsonl&after={after}", token=token)
    assert (again.body, again.headers["X-Datasync-Cursor"]) == (b"", str(after))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 100])
def test_pages_by_limit_give_every_row_once_and_hold_whole_batches(api, token, limit):
    for number in range(5):
        api.node.capture("watch-1", trips(2 * number, 2 * number + 1))
    seen, after = [], -1
    following = 0
    while following != after:
        after = following
        answer = api.get(f"{VIEW}&format=jsonl&limit={limit}&after={after}", token=token)
        page = speeds(answer)
        assert len(page) in (min(max(limit // 2 * 2, 2), 10 - len(seen)), 0)
        seen += page
        following = int(answer.headers["X-Datasync-Cursor"])
    assert seen == list(range(10))


def test_a_cursor_of_the_future_reads_nothing(api, token):
    api.node.capture("watch-1", trips(1))
    answer = api.get(f"{VIEW}&format=jsonl&after=999", token=token)
    assert (answer.body, answer.headers["X-Datasync-Cursor"]) == (b"", "999")


def test_rows_shown_are_counted(api, token):
    api.node.capture("watch-1", trips(1, 2, 3))
    api.get(VIEW, token=token)
    assert api.node.metric("datasync_view_rows_total", collection="trips") == 3


def test_an_erased_stream_is_passed_over_and_counted(api, token):
    api.node.capture("watch-1", trips(1))
    api.node.capture("watch-2", trips(2))
    with api.node.database.read() as tx:
        erased = [stream.stream for stream in streams.of_device(tx, "watch-1")]
    api.node.vault.destroy(erased)
    assert speeds(api.get(f"{VIEW}&format=jsonl", token=token)) == [2]
    assert api.node.metric("datasync_view_segments_withheld_total", reason="KEY_UNAVAILABLE") == 1


ROUTE = "/v1/views/{collection}"
BATCH_ROWS = 60_000


def fill(api, batches):
    """Store batches that are a chunk each."""
    for number in range(batches):
        modes = pa.array([f"mode {number} {row}" for row in range(BATCH_ROWS)])
        api.node.capture("watch-1", pa.table({"mode": modes, "speed": pa.nulls(BATCH_ROWS, pa.float32())}))


def test_a_view_of_several_chunks_is_one_answer(api, token):
    fill(api, 3)
    answer = api.get(VIEW, token=token)
    with pa.ipc.open_stream(answer.body) as stream:
        assert [batch.num_rows for batch in stream] == [BATCH_ROWS] * 3


@pytest.mark.parametrize("form", ["arrow", "jsonl", "csv"])
def test_when_the_policy_changes_half_way_the_answer_breaks_off_and_does_not_look_whole(api, token, form):
    fill(api, 2)
    policy = api.node.policy()
    answers = iter([policy, policy, None])
    api.node.policy = lambda: next(answers)
    with pytest.raises(ClientPayloadError):
        api.get(f"{VIEW}&format={form}", token=token)
    assert api.node.metric("datasync_view_rows_total", collection="trips") == BATCH_ROWS


def test_what_breaks_half_way_is_logged_and_breaks_the_answer_off(api, token, caplog):
    fill(api, 2)
    decrypt, calls = api.node.vault.decrypt, iter(range(3))

    def failing(*args):
        if next(calls) == 2:
            raise RuntimeError("the disk is gone")
        return decrypt(*args)

    api.node.vault.decrypt = failing
    with pytest.raises(ClientPayloadError):
        api.get(VIEW, token=token)
    assert "the disk is gone" in caplog.text


async def until_answered(api, requests):
    """Wait until this many views have ended, however they did."""
    async with asyncio.timeout(30):
        while True:
            ended = [api.node.metric("datasync_http_requests_total", route=ROUTE, method="GET", status="200")]
            if sum(ended) >= requests:
                return
            async with api.client.get("/healthz") as response:
                assert response.status == 200


def test_a_client_that_leaves_stops_the_reading(api, token, caplog):
    fill(api, 12)

    async def leave():
        headers = {"Authorization": f"Bearer {token}"}
        response = await api.client.get(f"{VIEW}&format=jsonl", headers=headers)
        await response.content.readany()
        response.close()
        await until_answered(api, 1)

    api.run(leave())
    assert api.node.metric("datasync_view_rows_total", collection="trips") < 12 * BATCH_ROWS
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert api.get(VIEW, token=token).status == 200


def test_a_client_that_takes_nothing_is_given_up(api, token, monkeypatch):
    monkeypatch.setattr("datasync.api.views.WRITE_S_MAX", 0.1)
    fill(api, 12)

    async def stall():
        headers = {"Authorization": f"Bearer {token}"}
        response = await api.client.get(f"{VIEW}&format=jsonl", headers=headers)
        await until_answered(api, 1)
        with pytest.raises(ClientPayloadError):
            await response.read()

    api.run(stall())


def test_more_views_than_the_node_reads_at_one_time_are_turned_away(monkeypatch, request):
    monkeypatch.setattr("datasync.api.service.VIEWS_OPEN_MAX", 0)
    api = request.getfixturevalue("api")
    answer = api.get(VIEW, token=api.node.enrol("router"))
    assert answer.problem() == (503, "BUSY")
    assert answer.headers["Retry-After"] == "1"


def opened(api, *arguments, **options):
    """Open a view with the standard library's client, in a thread, and read it whole."""

    def read():
        with open_view(api.url, *arguments, **options) as reader:
            return cursor_of(reader), reader.read_all()

    return api.run(asyncio.to_thread(read))


def test_the_client_reads_a_view_and_reads_on_from_its_cursor(api, token):
    api.node.capture("watch-1", trips(1, 2))
    cursor, table = opened(api, token, "trips", "service.routing")
    assert table.column("speed").to_pylist() == [1.0, 2.0]
    api.node.capture("watch-1", trips(3))
    cursor, table = opened(api, token, "trips", "service.routing", after=cursor)
    assert table.column("speed").to_pylist() == [3.0]
    assert opened(api, token, "trips", "service.routing", after=cursor)[1].num_rows == 0


@pytest.mark.parametrize(
    ("worker", "collection", "purpose", "error"),
    [
        (None, "trips", "service.routing", Unauthenticated),
        ("trainer", "trips", "service.routing", Forbidden),
        ("router", "secrets", "service.routing", AccessDenied),
        ("router", "a/b c", "service.routing", NotFound),
        ("router", "trips", "", RequestError),
    ],
)
def test_the_client_raises_what_the_node_says(api, worker, collection, purpose, error):
    token = api.node.enrol(worker) if worker else "made up"
    with pytest.raises(error) as raised:
        opened(api, token, collection, purpose)
    assert type(raised.value) is error
    if error is AccessDenied:
        assert raised.value.reason == "NO_RULE"


def test_the_client_says_when_there_is_no_node(api, token):
    url = api.url
    api.close()
    with pytest.raises(LinkError):
        open_view(url, token, "trips", "service.routing")
    with pytest.raises(RequestError, match="https://host:port"):
        open_view("file:///etc/passwd", token, "trips", "service.routing")


def test_the_client_notices_a_stream_that_breaks_off(api, token):
    fill(api, 2)
    policy = api.node.policy()
    answers = iter([policy, policy, None])
    api.node.policy = lambda: next(answers)
    with pytest.raises(LinkError, match="broke the view off"):
        opened(api, token, "trips", "service.routing")
