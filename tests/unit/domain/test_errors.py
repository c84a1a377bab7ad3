"""Every error has a code of its own, a title, and a message that says where and what would be right."""

import re
from collections import Counter

import pytest

from datasync.domain import errors
from datasync.domain.errors import AccessDenied, ConfigError, DatasyncError


def family(of: type[DatasyncError]) -> list[type[DatasyncError]]:
    return [of, *(below for child in of.__subclasses__() for below in family(child))]


KINDS = [kind for kind in family(DatasyncError) if kind.__module__ == errors.__name__]


def test_every_code_belongs_to_one_kind_of_error() -> None:
    assert [code for code, count in Counter(kind.code for kind in KINDS).items() if count > 1] == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_has_a_code_of_its_own_in_capitals_and_a_docstring_that_is_its_title(
    kind: type[DatasyncError],
) -> None:
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", vars(kind)["code"])
    assert re.fullmatch(r"[A-Z].*\.", vars(kind)["__doc__"].splitlines()[0])


def test_the_title_is_the_docstrings_first_line() -> None:
    assert ConfigError("x").title == "The configuration cannot be used"


def test_a_message_says_where_what_is_right_and_the_code() -> None:
    error = ConfigError("no such key", where="device.toml", fix="write url")
    assert str(error) == "device.toml: no such key (write url) [CONFIG_INVALID]"
    assert str(ConfigError("no such key")) == "no such key [CONFIG_INVALID]"
    assert (error.detail, error.where, error.fix) == ("no such key", "device.toml", "write url")


def test_a_denial_carries_the_decisions_code() -> None:
    error = AccessDenied("no", reason="NO_RULE")
    assert (error.code, error.reason) == ("ACCESS_DENIED", "NO_RULE")
