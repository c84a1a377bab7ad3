"""Views over HTTP: formats, cursors, limits, and what happens when things go wrong half-way."""

import csv
import io
import json

import pyarrow as pa
import pytest

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


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_pages_by_limit_give_every_row_once_and_hold_whole_batches(api, token, limit):
    for number in range(5):
        api.node.capture("watch-1", trips(2 * number, 2 * number + 1))
    seen, after = [], -1
    following = 0
    while following != after:
        after = following
        answer = api.get(f"{VIEW}&format=jsonl&limit={limit}&after={after}", token=token)
        page = speeds(answer)
        assert len(page) <= max(limit, 2)
        assert len(page) % 2 == 0
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
        from datasync.store import streams

        erased = [stream.stream for stream in streams.of_device(tx, "watch-1")]
    api.node.vault.destroy(erased)
    assert speeds(api.get(f"{VIEW}&format=jsonl", token=token)) == [2]
    assert api.node.metric("datasync_view_segments_withheld_total", reason="KEY_UNAVAILABLE") == 1
