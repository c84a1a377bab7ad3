"""Formats by Accept header and by name."""

import pytest

from datasync.api.negotiation import choose
from datasync.api.problems import NotAcceptable

ARROW = "application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", "arrow"),
        ("*/*", "arrow"),
        ("text/csv", "csv"),
        ("TEXT/CSV; charset=utf-8", "csv"),
        ("application/x-ndjson, text/csv;q=0.5", "jsonl"),
        ("application/x-ndjson;q=0.1, text/*;q=0.5", "csv"),
        ("application/*", "arrow"),
        (f"{ARROW};q=0, */*", "jsonl"),
        (f"*/*;q=0.1, {ARROW};q=0.05, text/csv; q=0.2", "csv"),
        ("text/html, */*;q=0.8", "arrow"),
        (",, text/csv ,", "csv"),
    ],
)
def test_the_best_of_what_is_accepted_is_chosen(accept, name):
    assert choose(None, accept).name == name


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/csv;q=0", "*/*;q=0", "text/csv;q=much"])
def test_what_cannot_be_given_is_refused(accept):
    with pytest.raises(NotAcceptable):
        choose(None, accept)


def test_a_name_goes_before_the_header():
    assert choose("csv", "application/x-ndjson").name == "csv"
