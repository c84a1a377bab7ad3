"""Files that are no policy, by accident or on purpose: each refused with its code, its place, and in bounded work."""

import gc
import time
import tracemalloc
from contextlib import contextmanager

import pytest

from datasync.domain.limits import POLICY_BYTES_MAX, POLICY_PROBLEMS_MAX
from datasync.policy.loading import load
from datasync.policy.problems import PolicyInvalid
from tests.unit.policy.city import CITY, changed

MIB = 1 << 20


def problems(source):
    with pytest.raises(PolicyInvalid) as caught:
        load(source if isinstance(source, bytes) else source.encode(), name="city.yaml")
    return caught.value.problems


def codes(source):
    return [each.code for each in problems(source)]


def problem(*changes):
    """Return the only problem of the changed city policy, and the text where it stands."""
    text = changed(*changes)
    found = problems(text)
    assert len(found) == 1, [str(each) for each in found]
    return found[0], text.splitlines()[found[0].line - 1][found[0].column - 1 :]


@contextmanager
def bounded(seconds, memory_bytes):
    """Fail when the block takes longer, or has more memory at a time."""
    gc.collect()
    tracemalloc.start()
    try:
        began = time.perf_counter()
        yield
        took, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < seconds
    assert peak < memory_bytes


# The bytes.


@pytest.mark.parametrize("source", ["", "\n\n", "# a comment\n", "---\n", "\ufeff", "---\n...\n"])
def test_a_file_without_a_policy_is_refused_as_such(source):
    assert codes(source) in (["POLICY_SYNTAX"], ["POLICY_VALUE_INVALID"])


def test_an_empty_file_says_how_a_policy_begins():
    (found,) = problems("")

    assert (found.line, found.column, found.message) == (1, 1, "the policy is empty")
    assert found.fix == "begin with schema: datasync.policy/v1"


@pytest.mark.parametrize(
    "source",
    [
        b"\x00" * (10 * MIB),
        b"\xff" * (10 * MIB),
        b"[" * (10 * MIB),
        CITY.encode() + b"#" * (10 * MIB),
        b"a: &a [b]\n" + b"c: *a\n" * (2 * MIB),
    ],
)
def test_a_file_of_ten_megabytes_is_refused_before_anything_is_parsed(source):
    with bounded(seconds=0.5, memory_bytes=MIB):
        (found,) = problems(source)

    assert (found.code, found.line, found.column) == ("POLICY_TOO_LARGE", 1, 1)
    assert str(POLICY_BYTES_MAX) in found.fix


def test_a_nul_byte_is_refused_where_it_stands():
    for change in (("city-mobility", "city\0mobility"), ("operators:", "\0operators:"), ("tests:\n", "tests:\n\0")):
        found, text = problem(change)
        assert (found.code, text[:1]) == ("POLICY_SYNTAX", "\0")


def test_text_that_is_not_utf_8_is_refused_where_it_stands():
    source = CITY.encode().replace(b"city-mobility", "städte".encode("latin-1"))
    (found,) = problems(source)

    assert (found.code, found.line, found.column) == ("POLICY_SYNTAX", 2, 7)
    assert codes(CITY.encode("utf-16")) == ["POLICY_SYNTAX"]


# What editors leave in files, and what does no harm.


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_ends_of_lines_do_not_change_what_a_policy_says(line_end):
    policy = load(CITY.replace("\n", line_end).encode())

    assert policy.digest == load(CITY.encode()).digest


def test_problems_stand_at_the_same_place_whatever_ends_the_lines():
    text = changed(("revision: 7", "revision: seven"), ("effect: deny", "effect: dany"))
    places = [[(each.line, each.column) for each in problems(text.replace("\n", end))] for end in ("\n", "\r\n")]

    assert places[0] == places[1]
    assert len(places[0]) == 2


def test_a_byte_order_mark_does_not_change_what_a_policy_says():
    policy = load(b"\xef\xbb\xbf" + CITY.encode())

    assert policy.digest == load(CITY.encode()).digest


def test_a_tab_is_refused_wherever_yaml_wants_space_and_kept_where_text_is_quoted():
    for change, fix in (
        (("  trips:\n    kind", "  trips:\n\tkind"), "indent with spaces"),
        (("id: city-mobility", "id:\tcity-mobility"), "use spaces instead of tabs"),
    ):
        found, text = problem(change)
        assert (found.code, found.fix, text[0]) == ("POLICY_SYNTAX", fix, "\t")
    assert load(changed(("revision: 7", "revision: 7  #\ta comment")).encode()).revision == 7
    policy = load(changed(("[mode, eq, private_road]", "[mode, eq, 'a\tb']")).encode())
    assert policy.document.collections["trips"].raised[0].where == (("mode", "eq", "a\tb"),)


# YAML that means less, or more, than it seems.


def test_an_alias_bomb_is_refused_for_its_first_alias_and_never_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    with bounded(seconds=2, memory_bytes=16 * MIB):
        found = problems("\n".join(lines))

    assert {each.code for each in found} == {"POLICY_YAML_FORBIDDEN"}
    assert len(found) == POLICY_PROBLEMS_MAX
    assert "anchor &a0" in found[0].message
    assert "alias *a0" in found[2].message


def test_an_alias_to_itself_is_refused():
    assert set(codes("a: &a [*a]\n")) == {"POLICY_YAML_FORBIDDEN"}


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (b"[" * 1_000_000, "POLICY_SYNTAX"),
        (b"{a: " * 200_000, "POLICY_SYNTAX"),
        (b"- " * 500_000, "POLICY_SYNTAX"),
        (b"? " * 500_000, "POLICY_SYNTAX"),
        (b"'" * 999_999, "POLICY_SYNTAX"),
        (b"a:\n" * 300_000, "POLICY_KEY_DUPLICATE"),
        (b"[" + b"a," * 500_000 + b"]", "POLICY_TOO_LARGE"),
        (b"".join(b"%d:\n" % number for number in range(100_000)), "POLICY_VALUE_INVALID"),
        (b"!a\n" * 300_000, "POLICY_YAML_FORBIDDEN"),
    ],
)
def test_what_is_deep_or_endless_is_refused_in_bounded_time(source, code):
    began = time.perf_counter()

    assert code in codes(source)
    assert time.perf_counter() - began < 20


def test_the_deepest_level_that_is_read_is_far_below_what_python_can_recurse():
    (found,) = problems("a: " + "[" * 17 + "]" * 17)

    assert (found.code, found.line) == ("POLICY_SYNTAX", 1)
    assert "levels deep" in found.message


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("consent:\n", "operators: [acme]\nconsent:\n", "operators"),
        ("precision: 5,", "precision: 5, precision: 5,", "precision: 5,                   from"),
        ("up: {edge: [pid]}", "up: {edge: [pid], edge: [pid]}", "edge: [pid]}}"),
        ("region: public, garage", "region: public, region: public, garage", "region: public, garage"),
    ],
)
def test_a_key_that_is_there_twice_is_refused_at_the_second_even_if_both_say_the_same(old, new, at):
    found, text = problem((old, new))

    assert found.code == "POLICY_KEY_DUPLICATE"
    assert text.startswith(at)
    assert "already in line" in found.message


def test_two_chains_for_one_field_and_place_are_refused():
    found, _ = problem(("{edge: [cell], cloud: [cell, area]}", "{edge: [cell], edge: [area], cloud: [cell, area]}"))

    assert found.code == "POLICY_KEY_DUPLICATE"


@pytest.mark.parametrize("word", ["no", "No", "NO", "on", "ON", "off", "yes", "Yes", "0x1F", "010", "1_000", "12:30"])
def test_words_that_yaml_1_1_and_1_2_read_differently_are_refused_until_they_are_quoted(word):
    found, text = problem(("[mode, eq, school_bus]", f"[mode, eq, {word}]"))

    assert found.code == "POLICY_AMBIGUOUS"
    assert text.startswith(f"{word}]]")
    assert f"'{word}'" in found.fix
    assert load(
        changed(
            ("[mode, eq, school_bus]", f"[mode, eq, '{word}']"), ("mode: school_bus}", f"mode: '{word}'}}")
        ).encode()
    )


def test_an_ambiguous_key_is_refused_too():
    found, text = problem(("region: cbd", "no: cbd, region: cbd"))

    assert (found.code, text[:3]) == ("POLICY_AMBIGUOUS", "no:")


# Words that are not the format's, and ways that are not down.


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("device: user-private, edge", "device: users-private, edge", "users-private, edge"),
        ("from: user-private, to: edge-private}\n  cell", "from: user, to: edge-private}\n  cell", "user, to"),
        ("from: user-private, to: edge-private}\n  cell", "from: user-private, to: Edge-private}\n  cell", "Edge"),
        ("region: public, garage", "region: open, garage", "open, garage"),
        ("{to: user-private, where", "{to: private, where", "private, where"),
        ("clearance: public,       purposes: [improve", "clearance: 1, purposes: [improve", "1, purposes"),
        ("never: {tier: [edge-private,", "never: {tier: [edge_private,", "edge_private"),
    ],
)  # fmt: skip
def test_a_tier_that_is_none_is_refused_with_those_there_are(old, new, at):
    found, text = problem((old, new))

    assert found.code == "POLICY_VALUE_INVALID"
    assert text.startswith(at)
    assert "public" in found.fix or "private" in found.fix


def test_a_chain_that_raises_is_refused_at_the_transform_and_where_it_is_used():
    found = problems(
        changed(
            ("  area:", "  back: {op: geohash, precision: 2, from: edge-private, to: user-private}\n  area:"),
            ("{edge: [cell], cloud: [cell, area]}", "{edge: [cell, back], cloud: [cell, area]}"),
        )
    )

    assert [each.code for each in found] == ["POLICY_VALUE_INVALID", "POLICY_CHAIN_INVALID"]
    assert "back leads from edge-private to user-private, which is not down" in found[0].message


@pytest.mark.parametrize("value", ["^school", "school.*", "'(?i)school'", "'[a-z]+_bus'", "'\\d{2}'", "s.+l"])
def test_a_value_that_is_a_pattern_is_refused_for_it_would_match_nothing_that_was_meant(value):
    found, text = problem(("[mode, eq, school_bus]", f"[mode, eq, {value}]"))

    assert (found.code, found.fix) == ("POLICY_WHERE_INVALID", "list the values with in")
    assert text.startswith(value)
    assert problem(("[mode, eq, private_road]", f"[mode, in, [{value}]]"))[0].code == "POLICY_WHERE_INVALID"
    assert problem(("[region, eq, $worker.region]", f"[region, ne, {value}]"))[0].code == "POLICY_WHERE_INVALID"


@pytest.mark.parametrize("value", ["A***", "US$", "1.5", "a.b", "[x]", "C:\\data", "what?", "50+", "(a)"])
def test_a_text_with_signs_in_it_is_a_value_and_no_pattern(value):
    text = changed(("[mode, eq, school_bus]", f"[mode, eq, '{value}']")).partition("tests:\n")[0]

    assert load(text.encode())


def test_a_pattern_as_an_operation_is_refused_with_the_operations_there_are():
    found, text = problem(("[mode, eq, school_bus]", "[mode, matches, school_bus]"))

    assert found.code == "POLICY_VALUE_INVALID"
    assert text.startswith("matches")
    assert "not_in" in found.fix


# Several at once.


def test_problems_of_the_text_are_all_told_with_line_and_column():
    found = problems(
        changed(
            ("revision: 7", "revision: no"),
            ("operators: [acme, borealis]", "operators: &them [acme, borealis]"),
            ("precision: 5,", "precision: 010,"),
            ("kind: stream\n", "kind: stream\n    kind: stream\n"),
            ("region: cbd", "region: !!str cbd"),
        )
    )

    assert [(each.code, each.line, each.column) for each in found] == [
        ("POLICY_AMBIGUOUS", 3, 11),
        ("POLICY_YAML_FORBIDDEN", 5, 12),
        ("POLICY_AMBIGUOUS", 9, 35),
        ("POLICY_KEY_DUPLICATE", 17, 5),
        ("POLICY_YAML_FORBIDDEN", 33, 27),
    ]


def test_problems_of_meaning_are_all_told_with_line_and_column():
    found = problems(
        changed(
            ("subject: user_id", "subject: user"),
            ("up: {cloud: [band]}", "up: {cloud: [bend]}"),
            ("clearance: edge-private, purposes: [service.routing]", "clearance: edge-private, purposes: [routing]"),
            ("{worker: cloud-trainer}, data: trips, fields", "{worker: trainer}, data: trips, fields"),
            ("id: H0, from: acme, to: acme", "id: H0, from: acme, to: acne"),
        )
    )

    assert [each.code for each in found] == ["POLICY_NAME_UNKNOWN"] * 5
    assert [each.line for each in found] == sorted({each.line for each in found})
    assert all(each.column > 1 and each.fix for each in found)


def test_a_file_that_is_wrong_everywhere_tells_a_bounded_number_of_problems():
    odd = "".join(f"odd{number}: 1\n" for number in range(1_000))

    assert len(problems(CITY + odd)) == POLICY_PROBLEMS_MAX
