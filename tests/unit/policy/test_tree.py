"""Reading YAML: one meaning for every reader, and a position for everything."""

import pytest

from datasync.policy.problems import PolicyInvalid, Position
from datasync.policy.tree import read


def found(source):
    with pytest.raises(PolicyInvalid) as caught:
        read(source.encode(), "x.yaml")
    return [(each.code, each.line, each.column) for each in caught.value.problems]


def test_scalars_follow_the_core_schema_of_yaml_1_2():
    source = (
        "{a: 1, b: -7, c: 1.5, d: 1.0e-6, e: 30d, f: true, g: 'no', h: ~, i: 2024-01-01, j: \"1\", k: +4, l: .5, m: y}"
    )

    assert read(source.encode(), "x").data == {
        "a": 1,
        "b": -7,
        "c": 1.5,
        "d": 1e-6,
        "e": "30d",
        "f": True,
        "g": "no",
        "h": None,
        "i": "2024-01-01",
        "j": "1",
        "k": 4,
        "l": 0.5,
        "m": "y",
    }


@pytest.mark.parametrize(
    "text", ["no", "NO", "yes", "on", "Off", "010", "0o17", "0x1F", "0b1", "1_000", "12:30", "<<", "="]
)
def test_what_yaml_1_1_and_1_2_read_differently_must_be_quoted(text):
    assert found(f"a: {text}") == [("POLICY_AMBIGUOUS", 1, 4)]
    assert found(f"? {text}\n: 1") == [("POLICY_AMBIGUOUS", 1, 3)]
    assert read(f"a: '{text}'".encode(), "x").data == {"a": text}


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9223372036854775808", "1" * 5000])
def test_numbers_are_finite_and_have_64_bits(text):
    assert found(f"a: {text}") == [("POLICY_VALUE_INVALID", 1, 4)]


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        ("a: 1\nb: 2\na: 3", [("POLICY_KEY_DUPLICATE", 3, 1)]),
        ("{a: 1, 'a': 2}", [("POLICY_KEY_DUPLICATE", 1, 8)]),
        ("a: &x 1\nb: *x", [("POLICY_YAML_FORBIDDEN", 1, 4), ("POLICY_YAML_FORBIDDEN", 2, 4)]),
        ("a: !!str 1", [("POLICY_YAML_FORBIDDEN", 1, 4)]),
        ("a: !x [1]", [("POLICY_YAML_FORBIDDEN", 1, 4)]),
        ("%YAML 1.1\n---\na: 1", [("POLICY_YAML_FORBIDDEN", 1, 1)]),
        ("a: 1\n---\nb: 1", [("POLICY_YAML_FORBIDDEN", 2, 1)]),
        ("1: a", [("POLICY_VALUE_INVALID", 1, 1)]),
        ("? [a]\n: 1", [("POLICY_VALUE_INVALID", 1, 3)]),
        ("a:\n\tb: 1\n\t\tc: 1", [("POLICY_SYNTAX", 2, 1), ("POLICY_SYNTAX", 3, 1)]),
        ("a:\tb", [("POLICY_SYNTAX", 1, 3)]),
        ("a: b: c", [("POLICY_SYNTAX", 1, 5)]),
        ("a: [1", [("POLICY_SYNTAX", 1, 6)]),
        ("a: @b", [("POLICY_SYNTAX", 1, 4)]),
        ('a: "\\ud800"', [("POLICY_SYNTAX", 1, 4)]),
        ("a: \x01", [("POLICY_SYNTAX", 1, 4)]),
        ("", [("POLICY_SYNTAX", 1, 1)]),
    ],
)
def test_what_a_policy_may_not_contain_is_named_at_its_place(source, problems):
    assert found(source) == problems


def test_depth_is_bounded_before_anything_recurses():
    assert found("[" * 100_000) == [("POLICY_SYNTAX", 1, 18)]


def test_problems_are_bounded():
    assert len(found("[" + "no, " * 500 + "]")) == 50


def test_every_key_and_value_has_a_position():
    tree = read(b"a:\n  b: [x, {c: 1}]\n", "x")

    assert tree.position(("a", "b", 1, "c"), key=True) == Position(2, 11)
    assert tree.position(("a", "b", 1, "c")) == Position(2, 14)
    assert tree.position(("a", "b", 7, "z")) == Position(2, 6)
