"""A few seconds of fuzzing, so that the fuzzer and its seeds do not rot; ``make fuzz`` is the real one."""

import pytest

from tests.fuzz.run import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_its_seeds(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].take(seed)


@pytest.mark.parametrize("name", ["envelope", "message", "policy"])
def test_a_parser_takes_what_a_second_makes_of_its_seeds(name: str) -> None:
    assert fuzz(name, 1)
